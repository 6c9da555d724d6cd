"""Record batches of Kafka (magic 2) made of rendered records, as aiokafka's producer takes them.

Its own builder takes a record apart into key, value and headers, and writes each again. A rendered body needs two numbers in front of it,
so a batch of them is one join. A test reads what is written here with aiokafka's parser, and compares it with what its builder writes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.util import calc_crc32c

from streams.bus.outgoing import avro_long
from streams.bus.rendering import VARINTS

#: Attributes, last offset, first and last timestamp, producer, its epoch, first sequence, records: what the checksum begins with.
_CHECKED = struct.Struct(">hiqqqhii")
#: Base offset, length of what follows, partition leader epoch (-1: nobody's), magic, checksum.
_BEGIN = struct.Struct(">qiibI")
_LENGTH_BEGINS_AFTER = 12
#: Bytes of a record beside its body, at most: its length, attributes, timestamp and offset.
_RECORD_BYTES = 13
#: Attributes and timestamp (as far from the batch's as 0), then the offset.
_OFFSETS = tuple(b"\x00\x00" + avro_long(number) for number in range(2048))


class RenderedBatch(BatchBuilder):  # type: ignore[misc]  # aiokafka is not typed
    """A closed batch. `timestamp_ms`: of all its records, unless the topic has the broker's clock."""

    def __init__(self, bodies: Sequence[bytes], timestamp_ms: int) -> None:
        self._bodies = bodies
        self._timestamp_ms = timestamp_ms
        self._producer = (-1, -1, 0)
        self._built: bytes | None = None

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytes:
        if self._built is None:
            self._built = assembled(self._bodies, self._timestamp_ms, *self._producer)
        return self._built

    def append(self, **_: Any) -> None:
        """It is closed: None, as from aiokafka's own."""

    def close(self) -> None:
        """It is closed."""

    def closed(self) -> bool:
        """It is."""
        return True

    def record_count(self) -> int:
        """Its records."""
        return len(self._bodies)

    def size(self) -> int:
        """About its bytes."""
        return _BEGIN.size + _CHECKED.size + sum(map(len, self._bodies))


def assembled(bodies: Sequence[bytes], timestamp_ms: int, producer_id: int, producer_epoch: int, base_sequence: int) -> bytes:
    """A batch's bytes."""
    last = len(bodies) - 1
    parts = [_CHECKED.pack(0, last, timestamp_ms, timestamp_ms, producer_id, producer_epoch, base_sequence, last + 1)]
    add, lengths, offsets = parts.append, VARINTS, _OFFSETS
    for number, body in enumerate(bodies):
        offset = offsets[number] if number < 2048 else b"\x00\x00" + avro_long(number)
        add(lengths[len(offset) + len(body)])
        add(offset)
        add(body)
    checked = b"".join(parts)
    return _BEGIN.pack(0, _BEGIN.size - _LENGTH_BEGINS_AFTER + len(checked), -1, 2, calc_crc32c(checked)) + checked


def batches_of(bodies: Sequence[bytes], timestamp_ms: int, bytes_max: int) -> Iterator[RenderedBatch]:
    """The bodies as batches of at most so many bytes, in order; a larger record gets a batch of its own."""
    begin, size = 0, 0
    for number, body in enumerate(bodies):
        more = len(body) + _RECORD_BYTES
        if size + more > bytes_max and number > begin:
            yield RenderedBatch(bodies[begin:number], timestamp_ms)
            begin, size = number, 0
        size += more
    if begin < len(bodies):
        yield RenderedBatch(bodies[begin:], timestamp_ms)
