"""Record batches of Kafka (magic 2) made of rendered records, as aiokafka's producer takes them.

Its own builder takes a record apart into key, value and headers, and writes each again. A rendered body needs two numbers in front of it,
so a batch of them is one join. A test reads what is written here with aiokafka's parser, and compares it with what its builder writes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from operator import add
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.util import calc_crc32c

from streams.bus.bodies import Bodies, bodies_of
from streams.bus.outgoing import avro_long
from streams.bus.rendering import VARINTS

#: Attributes, last offset, first and last timestamp, producer, its epoch, first sequence, records: what the checksum begins with.
_CHECKED = struct.Struct(">hiqqqhii")
#: Base offset, length of what follows, partition leader epoch (-1: nobody's), magic, checksum.
_BEGIN = struct.Struct(">qiibI")
_LENGTH_BEGINS_AFTER = 12
#: Bytes of a record beside its body, at most: its length, attributes, timestamp and offset.
_RECORD_BYTES = 13
#: Attributes and timestamp (as far from the batch's as 0), then the offset; and how long that is.
_OFFSETS = [b"\x00\x00" + avro_long(number) for number in range(2048)]
_OFFSET_SIZES = list(map(len, _OFFSETS))


class RenderedBatch(BatchBuilder):  # type: ignore[misc]  # aiokafka is not typed
    """A closed batch. `timestamp_ms`: of all its records, unless the topic has the broker's clock."""

    def __init__(self, bodies: Sequence[bytes], timestamp_ms: int) -> None:
        self._bodies: Bodies = bodies_of(bodies)
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
        return _BEGIN.size + _CHECKED.size + sum(self._bodies.sizes)


def assembled(bodies: Sequence[bytes], timestamp_ms: int, producer_id: int, producer_epoch: int, base_sequence: int) -> bytes:
    """A batch's bytes."""
    found = bodies_of(bodies)
    count = len(found)
    width = 2 + len(found.columns)
    parts = [b""] * (1 + count * width)
    parts[0] = _CHECKED.pack(0, count - 1, timestamp_ms, timestamp_ms, producer_id, producer_epoch, base_sequence, count)
    offsets, offset_sizes = _offsets(count)
    parts[1::width] = map(VARINTS.__getitem__, map(add, found.sizes, offset_sizes))
    parts[2::width] = offsets
    for number, column in enumerate(found.columns, 3):
        parts[number::width] = column
    checked = b"".join(parts)
    return _BEGIN.pack(0, _BEGIN.size - _LENGTH_BEGINS_AFTER + len(checked), -1, 2, calc_crc32c(checked)) + checked


def _offsets(count: int) -> tuple[list[bytes], list[int]]:
    """What stands before the bodies of so many records, behind the length; and how long each is."""
    if count <= len(_OFFSETS):
        return _OFFSETS[:count], _OFFSET_SIZES
    offsets = _OFFSETS + [b"\x00\x00" + avro_long(number) for number in range(len(_OFFSETS), count)]
    return offsets, list(map(len, offsets))


def batches_of(bodies: Sequence[bytes], timestamp_ms: int, bytes_max: int) -> Iterator[RenderedBatch]:
    """The bodies as batches of at most so many bytes, in order; a larger record gets a batch of its own."""
    found = bodies_of(bodies)
    if len(found) and sum(found.sizes) + _RECORD_BYTES * len(found) <= bytes_max:  # most are so
        yield RenderedBatch(found, timestamp_ms)
        return
    begin, size = 0, 0
    for number, of_body in enumerate(found.sizes):
        more = of_body + _RECORD_BYTES
        if size + more > bytes_max and number > begin:
            yield RenderedBatch(found[begin:number], timestamp_ms)
            begin, size = number, 0
        size += more
    if begin < len(found):
        yield RenderedBatch(found[begin:], timestamp_ms)
