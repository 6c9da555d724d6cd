"""Records on their way out: key, partition, value and headers, made from records that have been checked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from streams.codec.avro import Codec, headers_of
from streams.errors import TooLarge
from streams.limits import TOPIC_MESSAGE_BYTES_MAX
from streams.records import Record
from streams.topics import partition_of

#: Bytes of a record beside its key, value and headers: lengths, deltas, and the batch's own header.
RECORD_OVERHEAD_BYTES = 128
#: What a record without a source says in its place.
DEFAULT_SOURCE = "mplp"

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record as the producer takes it."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def with_defaults(record: Record) -> Record:
    """The record with its source and the story it belongs to: its own id begins one."""
    if record.source and record.correlation_id:
        return record
    return replace(record, source=record.source or DEFAULT_SOURCE, correlation_id=record.correlation_id or record.id)


def outgoing(codec: Codec, record: Record, partitions: int, *, key: str | None = None, headers: Headers = ()) -> Outgoing:
    """The record encoded. `key` defaults to the subject, or the id when there is none.

    Raises `InvalidInput` (`record.invalid`) and `TooLarge` (`payload.too-large`: with its envelope beyond what a topic takes).
    """
    record = with_defaults(record)
    value = codec.encode(record)
    text = key if key is not None else record.subject or record.id
    all_headers = headers_of(record)
    all_headers.extend(headers)
    found = Outgoing(partition_for(text, partitions), text.encode(), value, all_headers)
    if len(value) > TOPIC_MESSAGE_BYTES_MAX // 2 and size_of(found) > TOPIC_MESSAGE_BYTES_MAX:
        raise TooLarge(
            "payload.too-large", f"The record has {size_of(found):,} bytes; {TOPIC_MESSAGE_BYTES_MAX:,} are allowed.", pointer="/data"
        )
    return found


def size_of(record: Outgoing) -> int:
    """Bytes that the record takes in a batch, at most."""
    headers = sum(len(name) + len(value) + 8 for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers + RECORD_OVERHEAD_BYTES


@lru_cache(maxsize=65536)
def partition_for(key: str, partitions: int) -> int:
    """`partition_of`, remembered: keys come again, and murmur2 is pure Python."""
    return partition_of(key, partitions)
