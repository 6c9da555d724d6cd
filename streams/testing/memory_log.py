"""The kernel's ports in memory: logs with real offsets and batches, inboxes, effects, a clock that stands still until told.

Faults are given as values: `MemoryAppender` ends the next append as a script says. Everything is single-threaded and
deterministic, so a test that fails once fails always.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from streams.log.kafka_log import SNAPSHOTS_OF
from streams.log.ports import Appender, BatchTooLarge, Kept, Outgoing, Stored
from streams.log.types import Send
from streams.topics import INTERNAL_SNAPSHOTS


class Fault(Enum):
    """How an append ends."""

    NONE = "acknowledged as it should be"
    LOST = "an error, and nothing was stored"
    UNKNOWN = "an error, yet the batch was stored"
    REPEAT = "acknowledged as a repeat, without an offset"
    STUCK = "never ends"


@dataclass(slots=True)
class MemoryBroker:
    """Partitions by (topic, partition); time is `now_ms`."""

    partitions: dict[tuple[str, int], list[Stored]] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)  #: of the next appends, of any appender
    snapshot_faults: deque[Fault] = field(default_factory=deque)  #: of the next writes of snapshots: `LOST`, `UNKNOWN` or `STUCK`
    batch_bytes_max: int = 1024 * 1024
    now_ms: int = 1_767_225_600_000
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def records(self, topic: str, partition: int = 0) -> list[Stored]:
        """The partition's records."""
        return self.partitions.setdefault((topic, partition), [])

    def end(self, topic: str, partition: int = 0) -> int:
        """The offset that the partition's next record gets. The newest record is never compacted."""
        records = self.records(topic, partition)
        return records[-1].offset + 1 if records else 0

    def keep(self, topic: str, partition: int, record: Kept) -> int:
        """Stores one record of a topic of snapshots; returns its offset."""
        offset = self.end(topic, partition)
        stored = Stored(
            topic=topic, partition=partition, offset=offset, timestamp_ms=self.now_ms,
            key=record.key.encode(), value=record.value, headers=record.headers,
        )  # fmt: skip
        self.records(topic, partition).append(stored)
        return offset

    def compact(self, topic: str, partition: int = 0) -> None:
        """Leaves the newest record of each key, and no tombstone but the newest record."""
        records = self.records(topic, partition)
        newest = {stored.key: stored.offset for stored in records}
        end = self.end(topic, partition)
        records[:] = [
            stored for stored in records if stored.offset == end - 1 or (newest[stored.key] == stored.offset and stored.value is not None)
        ]

    def store(self, topic: str, partition: int, batch: Sequence[Outgoing], *, append_time: bool = False) -> int:
        """Stores a batch; returns the offset of its first record."""
        records = self.records(topic, partition)
        first = self.end(topic, partition)
        for index, record in enumerate(batch):
            timestamp_ms = self.now_ms if append_time else record.timestamp_ms
            records.append(
                Stored(
                    topic=topic, partition=partition, offset=first + index, timestamp_ms=timestamp_ms,
                    key=record.key, value=record.value, headers=record.headers,
                )
            )  # fmt: skip
        self.arrived.set()
        return first


class MemoryAppender:
    """`Appender` over a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, topic: str, partition: int) -> None:
        self._broker, self._topic, self._partition = broker, topic, partition
        self.closed = False

    async def append(self, batch: Sequence[Outgoing]) -> int:
        """See `Appender.append`; ends as the broker's next fault says."""
        assert not self.closed, "an appender is used after it was closed"
        await asyncio.sleep(0)
        if sum(len(record.value) for record in batch) > self._broker.batch_bytes_max:
            raise BatchTooLarge("too large")
        fault = self._broker.faults.popleft() if self._broker.faults else Fault.NONE
        if fault is Fault.LOST:
            raise ConnectionError("lost")
        if fault is Fault.STUCK:
            await asyncio.Event().wait()
        offset = self._broker.store(self._topic, self._partition, batch)
        if fault is Fault.UNKNOWN:
            raise ConnectionError("the answer did not arrive")
        return -1 if fault is Fault.REPEAT else offset

    async def close(self) -> None:
        """See `Appender.close`."""
        self.closed = True


class MemoryLog:
    """`LogPort` over a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, topic: str, partition: int = 0) -> None:
        self.broker, self.topic, self.partition = broker, topic, partition

    async def end(self) -> int:
        """See `LogPort.end`."""
        await asyncio.sleep(0)
        return self.broker.end(self.topic, self.partition)

    async def read(self, start: int, end: int) -> AsyncIterator[Stored]:
        """See `LogPort.read`."""
        for stored in self.broker.records(self.topic, self.partition)[start:end]:
            await asyncio.sleep(0)
            yield stored

    async def open(self) -> Appender:
        """See `LogPort.open`."""
        return MemoryAppender(self.broker, self.topic, self.partition)

    async def write_fences(self, fences: Sequence[tuple[str, Outgoing]]) -> None:
        """See `LogPort.write_fences`."""
        topic = SNAPSHOTS_OF.get(self.topic, INTERNAL_SNAPSHOTS)
        for key, record in fences:
            self.broker.store(topic, self.partition, [replace(record, key=key.encode())])


class MemorySnapshots:
    """`SnapshotsPort` over a `MemoryBroker`; a write ends as the broker's next fault of snapshots says."""

    def __init__(self, broker: MemoryBroker, topic: str, partition: int = 0) -> None:
        self._broker, self.topic, self.partition = broker, topic, partition
        self.closed = False

    async def end(self) -> int:
        """See `SnapshotsPort.end`."""
        await asyncio.sleep(0)
        return self._broker.end(self.topic, self.partition)

    async def read(self, start: int, end: int) -> AsyncIterator[Stored]:
        """See `SnapshotsPort.read`."""
        for stored in list(self._broker.records(self.topic, self.partition)):
            if start <= stored.offset < end:
                await asyncio.sleep(0)
                yield stored

    async def at(self, offset: int) -> Stored | None:
        """See `SnapshotsPort.at`."""
        await asyncio.sleep(0)
        records = self._broker.records(self.topic, self.partition)
        return next((stored for stored in records if stored.offset == offset), None)

    async def write(self, records: Sequence[Kept]) -> Sequence[int]:
        """See `SnapshotsPort.write`."""
        assert not self.closed, "a store of snapshots is used after it was closed"
        offsets = []
        for record in records:
            await asyncio.sleep(0)
            fault = self._broker.snapshot_faults.popleft() if self._broker.snapshot_faults else Fault.NONE
            if fault is Fault.LOST:
                raise ConnectionError("lost")
            if fault is Fault.STUCK:
                await asyncio.Event().wait()
            offsets.append(self._broker.keep(self.topic, self.partition, record))
            if fault is Fault.UNKNOWN:
                raise ConnectionError("the answer did not arrive")
        return offsets

    async def close(self) -> None:
        """See `SnapshotsPort.close`."""
        self.closed = True


class MemoryInboxes:
    """`InboxPort` over a `MemoryBroker`."""

    def __init__(self, broker: MemoryBroker, inboxes: Sequence[str], partition: int = 0) -> None:
        self._broker, self._topics, self._partition = broker, tuple(inboxes), partition
        self._positions: dict[str, int] = {}
        self._paused: set[str] = set()

    async def open(self, positions: Mapping[str, int]) -> Mapping[str, int]:
        """See `InboxPort.open`."""
        self._positions = {topic: positions.get(topic, -1) + 1 for topic in self._topics}
        return {topic: len(self._broker.records(topic, self._partition)) for topic in self._topics}

    async def fetch(self, timeout_ms: int) -> Sequence[Stored]:
        """See `InboxPort.fetch`; waits until something arrives."""
        while True:
            self._broker.arrived.clear()
            found: list[Stored] = []
            for topic in self._topics:
                if topic not in self._paused:
                    found.extend(self._broker.records(topic, self._partition)[self._positions[topic] :][:100])
            for stored in found:
                self._positions[stored.topic] = stored.offset + 1
            await asyncio.sleep(0)
            if found:
                return found
            try:
                async with asyncio.timeout(timeout_ms / 1000):
                    await self._broker.arrived.wait()
            except TimeoutError:
                return ()

    def pause(self, topic: str) -> None:
        """See `InboxPort.pause`."""
        self._paused.add(topic)

    def resume(self, topic: str) -> None:
        """See `InboxPort.resume`."""
        self._paused.discard(topic)

    def position(self, topic: str) -> int:
        """See `InboxPort.position`."""
        return self._positions[topic]

    async def close(self) -> None:
        """See `InboxPort.close`."""


@dataclass(slots=True)
class MemoryEffects:
    """`EffectsPort` that keeps what it is given."""

    sent: list[Send] = field(default_factory=list)
    forwarded: list[Stored] = field(default_factory=list)
    dead: list[tuple[Stored, str, str]] = field(default_factory=list)

    async def send(self, effect: Send) -> None:
        """See `EffectsPort.send`."""
        self.sent.append(effect)

    async def forward(self, stored: Stored) -> None:
        """See `EffectsPort.forward`."""
        self.forwarded.append(stored)

    async def settled(self) -> None:
        """See `EffectsPort.settled`: what is kept is acknowledged."""
        await asyncio.sleep(0)

    async def dead_letter(self, stored: Stored, code: str, message: str) -> None:
        """See `EffectsPort.dead_letter`."""
        self.dead.append((stored, code, message))


@dataclass(slots=True)
class MemoryClock:
    """`Clock` that shows the broker's time."""

    broker: MemoryBroker

    def now_us(self) -> int:
        """See `Clock.now_us`."""
        return self.broker.now_ms * 1000
