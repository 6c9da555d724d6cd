"""Records as their bytes lie in a Kafka batch (magic 2), all but what their place in the batch decides. Pure.

Who writes masses of records that have much in common renders what they have in common once, and joins it with the rest. A body is a
record from its key on: lengths are zigzag varints (Avro's, too), -1 for what is null.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from streams.bus.outgoing import Outgoing, avro_long

_NULL = avro_long(-1)
_REMEMBERED_MAX = 16_384


class _Varints(dict[int, bytes]):
    """Number → its varint; small ones are remembered."""

    def __missing__(self, number: int) -> bytes:
        written = avro_long(number)
        if 0 <= number < _REMEMBERED_MAX:
            self[number] = written
        return written


VARINTS = _Varints()


class Rendered(NamedTuple):
    """A record, ready for a batch of its partition."""

    partition: int
    body: bytes


def sized(raw: bytes | None) -> bytes:
    """Bytes behind their length."""
    return _NULL if raw is None else VARINTS[len(raw)] + raw


def header(name: str, content: bytes) -> bytes:
    """One header."""
    return header_begin(name, len(content)) + content


def header_begin(name: str, length: int) -> bytes:
    """A header whose content, of this length, follows."""
    return sized(name.encode()) + VARINTS[length]


def body_of(key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]) -> bytes:
    """The body of a record."""
    return b"".join((sized(key), sized(value), VARINTS[len(headers)], *(header(name, content) for name, content in headers)))


def rendered(record: Outgoing) -> Rendered:
    """A record whose parts are known."""
    return Rendered(record.partition, body_of(record.key, record.value, record.headers))
