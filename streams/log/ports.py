"""Interfaces of the kernel to the world: a log partition, inboxes, effects, a clock. Kafka is one adapter, a simulation another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from streams.log.types import Send
from streams.records import InputPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A record as it lies in a partition. `topic` is the name on the broker."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A record to append."""

    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    timestamp_ms: int


class BatchTooLarge(Exception):
    """The records do not fit into one batch; nothing was sent."""


class Appender(Protocol):
    """The right to append to one log partition, one batch at a time, acknowledged by all replicas, idempotent."""

    async def append(self, batch: Sequence[Outgoing]) -> int:
        """Appends one atomic batch and returns the offset of its first record (-1: the broker knows it as a repeat).

        Raises `BatchTooLarge` before anything is sent; any other exception means that the outcome is unknown.
        """

    async def close(self) -> None:
        """Gives up at once, without waiting for what is under way."""


class LogPort(Protocol):
    """One log partition."""

    topic: str  #: name on the broker
    partition: int

    async def end(self) -> int:
        """The offset that the next record will get."""

    def read(self, start: int, end: int) -> AsyncIterator[Stored]:
        """The records from `start` (or the first that is kept) up to, not including, `end`, in order."""

    async def open(self) -> Appender:
        """A fresh appender: it shares nothing with earlier ones."""

    async def write_fences(self, fences: Sequence[tuple[str, Outgoing]]) -> None:
        """Writes entries (key, record) of the index of fences to the snapshots topic, acknowledged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A record for a topic of snapshots; `value` None: a tombstone."""

    key: str
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class SnapshotsPort(Protocol):
    """One partition of a topic of snapshots: of the machine's own (compacted by key), or of the parked states (deleted by age).

    Its producer is another one than the log's, so that slow snapshots hold no decision up. All methods may fail with any
    error of the broker: then nothing is known about what was written, and the caller writes it again.
    """

    topic: str  #: name on the broker
    partition: int

    async def end(self) -> int:
        """The offset that the next record will get."""

    def read(self, start: int, end: int) -> AsyncIterator[Stored]:
        """The records that compaction or retention left of [`start`, `end`), in order; offsets may have gaps."""

    async def at(self, offset: int) -> Stored | None:
        """The record at `offset`; None if it is not there any more."""

    async def write(self, records: Sequence[Kept]) -> Sequence[int]:
        """Appends the records in order; returns their offsets when all are acknowledged."""

    async def close(self) -> None:
        """Gives up at once; what is under way may or may not arrive."""


class InboxPort(Protocol):
    """Partition p of all inbox topics of a host, read by manual assignment."""

    async def open(self, positions: Mapping[str, int]) -> Mapping[str, int]:
        """Begins to read each topic (name on the broker) after its position; returns the end offsets seen now."""

    async def fetch(self, timeout_ms: int) -> Sequence[Stored]:
        """What has arrived, in order per topic; empty after `timeout_ms`."""

    def pause(self, topic: str) -> None:
        """No more records of the topic until `resume`."""

    def resume(self, topic: str) -> None:
        """See `pause`."""

    def position(self, topic: str) -> int:
        """The offset of the next record that `fetch` will give for the topic; also past gaps."""

    async def close(self) -> None:
        """Ends reading."""


class EffectsPort(Protocol):
    """Performs effects that leave the partition, at least once as long as the process lives."""

    async def send(self, effect: Send) -> None:
        """Takes the effect; returns when there is room for it, not when it is done."""

    async def forward(self, stored: Stored) -> None:
        """Puts an input to the partition of its home (its key), unchanged but for a header; returns when it is acknowledged."""

    async def settled(self) -> None:
        """Returns when everything that `send` took before is acknowledged."""

    async def dead_letter(self, stored: Stored, code: str, message: str) -> None:
        """Puts an input that cannot be decided to `<topic>.dlq`, unchanged; returns when it is acknowledged."""


class Clock(Protocol):
    """Time of the host."""

    def now_us(self) -> int:
        """Wall clock, microseconds since the epoch."""


def position_of(stored: Stored) -> InputPosition:
    """The record's place."""
    return InputPosition(topic=stored.topic, partition=stored.partition, offset=stored.offset)
