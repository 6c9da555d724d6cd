"""Records on their way out: key, partition, value and headers, made from records that have been checked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple, get_args

from streams.bus.validate import EventFields
from streams.codec.avro import CONTENT_TYPE, Codec, headers_of
from streams.errors import TooLarge
from streams.limits import TOPIC_MESSAGE_BYTES_MAX
from streams.records import Record, Severity, iso, to_micros
from streams.topics import GIVEN_ID_HEADER, partition_of

#: Bytes of a record beside its key, value and headers: lengths, deltas, and the batch's own header.
RECORD_OVERHEAD_BYTES = 128
#: What a record without a source says in its place.
DEFAULT_SOURCE = "mplp"

Headers = Sequence[tuple[str, bytes]]


class Outgoing(NamedTuple):
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


def outgoing(
    codec: Codec, record: Record, partitions: int, *, key: str | None = None, headers: Headers = (), most: int = TOPIC_MESSAGE_BYTES_MAX
) -> Outgoing:
    """The record encoded. `key` defaults to the subject, or the id when there is none; `most` are the bytes that its topic takes.

    Raises `InvalidInput` (`record.invalid`) and `TooLarge` (`payload.too-large`: with its envelope beyond what a topic takes).
    """
    record = with_defaults(record)
    value = codec.encode(record)
    text = key if key is not None else record.subject or record.id
    all_headers = headers_of(record)
    all_headers.extend(headers)
    found = Outgoing(partition_for(text, partitions), text.encode(), value, all_headers)
    if len(value) > most // 2 and size_of(found) > most:
        raise TooLarge("payload.too-large", f"The record has {size_of(found):,} bytes; {most:,} are allowed.", pointer="/data")
    return found


def event_outgoing(codec: Codec, event: EventFields, partitions: int, headers: Headers = ()) -> Outgoing:
    """As `outgoing`, for a checked system event: written by hand in a third of the time, since events come in masses.

    A test holds its bytes and headers against the codec's.
    """
    id = event.id.encode()
    type = event.type.encode()
    source = (event.source or DEFAULT_SOURCE).encode()
    subject = event.subject.encode()
    correlation_id = event.correlation_id.encode() or id
    text = event.text
    value = b"".join(
        (
            b"\x00", codec.schema_id("SystemEvent").to_bytes(4, "big"), _length(id), id, _length(type), type, _length(source), source,
            _length(subject), subject, avro_time(to_micros(event.time)), avro_text(event.tenant), _length(correlation_id), correlation_id,
            b"\x00" if event.causation_id is None else b"\x02" + avro_text(event.causation_id), _length(text), text,
            SEVERITIES_WRITTEN[event.severity], NOT_IN_A_LOG,
        )
    )  # fmt: skip
    all_headers: list[tuple[str, bytes]] = [
        ("ce_specversion", b"1.0"),
        ("ce_id", id),
        ("ce_type", type),
        ("ce_source", source),
        ("ce_time", iso(event.time).encode()),
        ("content-type", CONTENT_TYPE),
    ]
    if subject:
        all_headers.append(("ce_subject", subject))
    if event.given_id is not None:
        all_headers.append((GIVEN_ID_HEADER, event.given_id.encode()))
    if headers:
        all_headers.extend(headers)
    return Outgoing(partition_for(event.subject or event.id, partitions), subject or id, value, all_headers)


def size_of(record: Outgoing) -> int:
    """Bytes that the record takes in a batch, at most."""
    headers = sum(len(name) + len(value) + 8 for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers + RECORD_OVERHEAD_BYTES


@lru_cache(maxsize=65536)
def partition_for(key: str, partitions: int) -> int:
    """`partition_of`, remembered: keys come again, and murmur2 is pure Python."""
    return partition_of(key, partitions)


def avro_text(text: str) -> bytes:
    """Avro's string."""
    raw = text.encode()
    return _length(raw) + raw


def _length(raw: bytes) -> bytes:
    length = len(raw)
    return _SHORT_LENGTHS[length] if length < 256 else avro_long(length)


def avro_long(number: int) -> bytes:
    """Avro's zigzag varint."""
    rest = (number << 1) ^ (number >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def avro_time(time_us: int) -> bytes:
    """As `avro_long`, quicker for what takes eight bytes: microseconds of the years 1979 to 3111."""
    number = time_us << 1
    if not 1 << 49 <= number < 1 << 56:
        return avro_long(time_us)
    # Groups of seven bits move apart: first in fours, then in pairs, then each into a byte of its own.
    number = (number & 0x0FFFFFFF) | (number & 0xFFFFFFF0000000) << 4
    number = (number & 0x00003FFF00003FFF) | (number & 0x0FFFC0000FFFC000) << 2
    number = (number & 0x007F007F007F007F) | (number & 0x3F803F803F803F80) << 1
    return (number | 0x0080808080808080).to_bytes(8, "little")


_SHORT_LENGTHS = tuple(avro_long(length) for length in range(256))
#: Severity → Avro's enum.
SEVERITIES_WRITTEN = {name: avro_long(index) for index, name in enumerate(get_args(Severity))}
#: aggregate_id, sequence, epoch and input: all null.
NOT_IN_A_LOG = b"\x00\x00\x00\x00"
