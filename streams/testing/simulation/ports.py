"""The kernel's ports over the simulated broker, for one process: log, inboxes, effects, clock, codec."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

from streams import topics
from streams.codec.avro import Codec, headers_of
from streams.errors import InvalidInput
from streams.log.kafka_log import SNAPSHOTS_OF
from streams.log.ports import Appender, Kept, Outgoing, Stored
from streams.log.types import Send
from streams.records import Record, to_micros
from streams.testing.simulation.broker import BrokerError, Partition, SimulatedBroker
from streams.testing.simulation.loop import Life, ProcessLoop
from streams.testing.simulation.machines import OUTSIDE
from streams.topics import FORWARDED_HEADER, home_of, partition_of

#: A fetch that finds nothing is answered after so long: rarer than in life, since virtual time is no shorter for being idle.
FETCH_WAIT_US = 10_000_000


class MemoryCodec(Codec):
    """Keeps records as they are; the bytes are a number. Ten times cheaper than Avro, and a run has thousands of them."""

    def __init__(self) -> None:
        self._records: list[Record] = []

    def encode(self, record: Record, instead: Mapping[str, Any] | None = None) -> bytes:
        """See `Codec.encode`."""
        self._records.append(replace(record, **instead) if instead else record)
        return (len(self._records) - 1).to_bytes(8, "big")

    def decode(self, value: bytes | None) -> Record:
        """See `Codec.decode`."""
        number = -1 if value is None or len(value) != 8 else int.from_bytes(value, "big")
        if not 0 <= number < len(self._records):
            raise InvalidInput("avro.framing", "The value is no record.")
        return self._records[number]

    def decode_raw(self, value: bytes | None) -> tuple[str, dict[str, Any]]:
        """See `Codec.decode_raw`; as deep as snapshots and fences need it."""
        record = self.decode(value)
        plain = {each.name: getattr(record, each.name) for each in fields(record)}
        return type(record).__name__, plain | {"time": to_micros(record.time)}


class SimulatedAppender:
    """`Appender`: a producer of its own. How an append ends is the weather's choice."""

    def __init__(self, broker: SimulatedBroker, loop: ProcessLoop, topic: str, partition: int) -> None:
        self._broker, self._loop, self._topic, self._partition = broker, loop, topic, partition
        self.closed = False

    async def append(self, batch: Sequence[Outgoing]) -> int:
        """See `Appender.append`."""
        assert not self.closed, "an appender is used after it was closed"
        broker, scheduler = self._broker, self._broker.scheduler
        if scheduler.over:
            raise asyncio.CancelledError
        await asyncio.sleep(0)  # the batch waits in the client; a process may be stopped just here
        future: asyncio.Future[int] = self._loop.create_future()
        fate = self._fate()
        error = ConnectionError("the answer did not arrive") if scheduler.random.random() < 0.5 else BrokerError("unknown error")

        def answer(what: object) -> None:
            scheduler.at(broker.delay(), lambda: broker.resolve(self._loop, future, what))

        def store() -> int:
            return broker.store(self._topic, self._partition, batch)

        def arrived() -> None:
            chance = scheduler.random.random
            match fate:
                case "lost":
                    answer(error)
                case "unknown":
                    store()
                    answer(error)
                case "late":
                    answer(error)
                    scheduler.at(int(chance() ** 3 * 20_000_000), store)
                case "repeat":
                    store()
                    answer(-1)
                case "stuck":
                    if chance() < 0.7:
                        scheduler.at(int(chance() ** 3 * 40_000_000), store)
                case "doubled":
                    first = store()
                    if chance() < 0.5:
                        second = store()
                        answer(first if chance() < 0.3 else second)
                    else:
                        answer(first)
                        scheduler.at(int(chance() ** 3 * 2_000_000), store)
                case _:
                    broker.store(self._topic, self._partition, batch, answer)

        scheduler.at(broker.delay(), arrived)
        return await future

    def _fate(self) -> str:
        weather = self._broker.weather
        left = self._broker.scheduler.random.random()
        for fate in ("lost", "unknown", "late", "repeat", "stuck", "doubled"):
            left -= getattr(weather, fate)
            if left < 0:
                return fate
        return "stored"

    async def close(self) -> None:
        """See `Appender.close`: what is on its way may still be stored."""
        self.closed = True


class Reading:
    """Records of a range, fetched in chunks; waits for those that are not replicated."""

    def __init__(
        self, broker: SimulatedBroker, loop: ProcessLoop, partition: Partition, start: int, end: int, *, wrapped: bool = False
    ) -> None:
        self._broker, self._loop, self._partition, self._position, self._end = broker, loop, partition, start, end
        self._wrapped = wrapped
        self._chunk: list[Stored] = []

    def __aiter__(self) -> Reading:
        return self

    async def __anext__(self) -> Stored:
        while not self._chunk:
            if self._position >= self._end:
                raise StopAsyncIteration
            self._chunk, self._position = await self._broker.ask(self._loop, self._fetched, wrapped=self._wrapped)
            self._chunk.reverse()
            if not self._chunk and self._position < self._end:
                await self._broker.replication(self._loop, self._partition, self._position)
        return self._chunk.pop()

    def _fetched(self) -> tuple[list[Stored], int]:
        count = 1 + int(self._broker.scheduler.random.random() * 60)
        end = min(self._end, self._partition.visible)
        found = self._partition.between(self._position, end, count)
        if found:
            return found, found[-1].offset + 1
        return [], max(end, self._position)


class SimulatedLog:
    """`LogPort` over a `SimulatedBroker`."""

    def __init__(self, broker: SimulatedBroker, loop: ProcessLoop, topic: str, partition: int) -> None:
        self._broker, self._loop = broker, loop
        self.topic, self.partition = topic, partition
        self._snapshots = SNAPSHOTS_OF[topic]

    async def end(self) -> int:
        """See `LogPort.end`."""
        return await self._broker.ask(self._loop, lambda: self._broker.partition(self.topic, self.partition).visible)

    def read(self, start: int, end: int) -> Reading:
        """See `LogPort.read`."""
        return Reading(self._broker, self._loop, self._broker.partition(self.topic, self.partition), start, end)

    async def open(self) -> Appender:
        """See `LogPort.open`."""
        await self._broker.ask(self._loop, lambda: None)
        return SimulatedAppender(self._broker, self._loop, self.topic, self.partition)

    async def write_fences(self, fences: Sequence[tuple[str, Outgoing]]) -> None:
        """See `LogPort.write_fences`."""
        batch = [replace(record, key=key.encode()) for key, record in fences]
        first = await self._broker.ask(self._loop, lambda: self._broker.store(self._snapshots, self.partition, batch))
        await self._broker.replication(self._loop, self._broker.partition(self._snapshots, self.partition), first + len(batch) - 1)


class SimulatedSnapshots:
    """`SnapshotsPort` over a `SimulatedBroker`: slow, and what fails may have been written."""

    def __init__(self, broker: SimulatedBroker, loop: ProcessLoop, topic: str, partition: int) -> None:
        self._broker, self._loop = broker, loop
        self.topic, self.partition = topic, partition

    async def end(self) -> int:
        """See `SnapshotsPort.end`."""
        return await self._broker.ask(self._loop, lambda: self._broker.partition(self.topic, self.partition).visible, wrapped=True)

    def read(self, start: int, end: int) -> Reading:
        """See `SnapshotsPort.read`."""
        return Reading(self._broker, self._loop, self._broker.partition(self.topic, self.partition), start, end, wrapped=True)

    async def at(self, offset: int) -> Stored | None:
        """See `SnapshotsPort.at`."""
        partition = self._broker.partition(self.topic, self.partition)
        found = await self._broker.ask(self._loop, lambda: partition.between(offset, offset + 1, 1), wrapped=True)
        return found[0] if found else None

    async def write(self, records: Sequence[Kept]) -> Sequence[int]:
        """See `SnapshotsPort.write`."""
        offsets = []
        weather, chance = self._broker.weather, self._broker.scheduler.random.random
        for kept in records:
            if weather.snapshots_us:
                await asyncio.sleep(chance() ** 3 * weather.snapshots_us / 1e6)
            record = Outgoing(key=kept.key.encode(), value=kept.value, headers=kept.headers, timestamp_ms=0)  # type: ignore[arg-type]
            store = partial(self._broker.store, self.topic, self.partition, [record])
            offsets.append(await self._broker.ask(self._loop, store, wrapped=True))
            if weather.unknown and chance() < weather.unknown:
                raise ConnectionError("the answer did not arrive")
        return offsets

    async def close(self) -> None:
        """See `SnapshotsPort.close`."""


class SimulatedInboxes:
    """`InboxPort` over a `SimulatedBroker`: what is at hand of each topic arrives in portions, topics in any order."""

    def __init__(
        self, broker: SimulatedBroker, loop: ProcessLoop, inboxes: Sequence[str], partition: int,
        on_open: Callable[[Mapping[str, int]], None],
    ) -> None:  # fmt: skip
        self._broker, self._loop, self._topics, self._partition, self._on_open = broker, loop, tuple(inboxes), partition, on_open
        self._positions: dict[str, int] = {}
        self._paused: set[str] = set()

    async def open(self, positions: Mapping[str, int]) -> Mapping[str, int]:
        """See `InboxPort.open`."""

        def ends() -> dict[str, int]:
            for topic in self._topics:
                first = self._broker.partition(topic, self._partition).first
                self._positions[topic] = max(positions.get(topic, -1) + 1, first)
            return {topic: self._broker.partition(topic, self._partition).visible for topic in self._topics}

        found = await self._broker.ask(self._loop, ends)
        self._on_open(found)
        return found

    async def fetch(self, timeout_ms: int) -> Sequence[Stored]:
        """See `InboxPort.fetch`."""
        broker, scheduler = self._broker, self._broker.scheduler
        if scheduler.over:
            raise asyncio.CancelledError
        future: asyncio.Future[list[Stored]] = self._loop.create_future()
        partitions = [broker.partition(topic, self._partition) for topic in self._topics if topic not in self._paused]
        starts = [self._positions[topic] for topic in self._topics if topic not in self._paused]
        deadline = scheduler.now_us + FETCH_WAIT_US
        state = {"answered": False}

        def look() -> None:
            if state["answered"]:
                return
            found = self._at_hand(partitions, starts)
            if found or scheduler.now_us >= deadline:
                state["answered"] = True
                scheduler.at(broker.delay(), lambda: broker.resolve(self._loop, future, found))
                return
            for partition in partitions:
                partition.waiting.append(look)

        scheduler.at(broker.delay(), look)
        scheduler.at(FETCH_WAIT_US, look)
        records = await future
        for record in records:
            self._positions[record.topic] = record.offset + 1
        return records

    def _at_hand(self, partitions: Sequence[Any], starts: Sequence[int]) -> list[Stored]:
        chance = self._broker.scheduler.random.random
        portions = []
        for partition, start in zip(partitions, starts, strict=True):
            if start < partition.visible:
                portions.append(partition.between(start, partition.visible, 1 + int(chance() * 12)))
        if len(portions) > 1 and chance() < 0.4:
            portions = portions[::-1] if chance() < 0.5 else portions[int(chance() * len(portions)) :][:1]
        return [record for portion in portions for record in portion]

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


class SimulatedEffects:
    """`EffectsPort` of one process: an outbox whose requests keep their order and repeat until they are stored.

    What a crash finds in the outbox is lost or not, as it comes.
    """

    def __init__(
        self, broker: SimulatedBroker, loop: ProcessLoop, codec: Codec, partitions: int, *,
        on_effect: Callable[[Send], None], outside: Callable[[Record], None],
    ) -> None:  # fmt: skip
        self._broker, self._loop, self._codec, self._partitions = broker, loop, codec, partitions
        self._on_effect, self._outside = on_effect, outside
        self._last_us = 0
        self.failed: asyncio.Future[None] = loop.create_future()

    async def send(self, effect: Send) -> None:
        """See `EffectsPort.send`."""
        if self._broker.scheduler.over:
            raise asyncio.CancelledError
        self._on_effect(effect)
        self._request(lambda: self._put(effect))
        weather, chance = self._broker.weather, self._broker.scheduler.random.random
        if weather.doubled and chance() < weather.doubled:
            self._request(lambda: self._put(effect))
        if weather.error and chance() < weather.error * 0.2 and not self.failed.done():
            self.failed.set_exception(BrokerError("the producer is broken"))
        if chance() < 0.1:
            await asyncio.sleep(self._broker.delay() / 1e6)  # there is no room just now

    async def settled(self) -> None:
        """See `EffectsPort.settled`."""
        while self._last_us > self._broker.scheduler.now_us:  # noqa: ASYNC110  the world's time is what is waited for
            await asyncio.sleep((self._last_us - self._broker.scheduler.now_us) / 1e6)

    async def forward(self, stored: Stored) -> None:
        """See `EffectsPort.forward`."""
        partition = partition_of(home_of((stored.key or b"").decode()), self._partitions)
        await self._acknowledged(stored.topic, partition, [*stored.headers, (FORWARDED_HEADER, b"1")], stored)

    async def dead_letter(self, stored: Stored, code: str, message: str) -> None:
        """See `EffectsPort.dead_letter`."""
        headers = [*stored.headers, ("__streams.errors.offset", str(stored.offset).encode())]
        await self._acknowledged(stored.topic + topics.DEAD_LETTER_SUFFIX, stored.partition, headers, stored)

    async def _acknowledged(self, topic: str, partition: int, headers: list[tuple[str, bytes]], stored: Stored) -> None:
        record = Outgoing(key=stored.key or b"", value=stored.value or b"", headers=headers, timestamp_ms=stored.timestamp_ms)
        await self._broker.ask(self._loop, lambda: self._broker.store(topic, partition, [record]))

    def _request(self, what: Callable[[], None]) -> None:
        scheduler = self._broker.scheduler
        delay = max(self._broker.delay(), self._last_us + 1 - scheduler.now_us)
        self._last_us = scheduler.now_us + delay

        def arrived() -> None:
            if self._loop.life is not Life.DEAD or scheduler.random.random() < 0.5:
                what()

        scheduler.at(delay, arrived)

    def _put(self, effect: Send) -> None:
        if effect.topic == OUTSIDE:
            self._outside(effect.record)
            return
        record = Outgoing(
            key=effect.key.encode(), value=self._codec.encode(effect.record), headers=headers_of(effect.record), timestamp_ms=0
        )
        self._broker.store(effect.topic, partition_of(home_of(effect.key), self._partitions), [record])


class SkewedClock:
    """`Clock` of a process: the world's time, wrong by a constant."""

    def __init__(self, loop: ProcessLoop, skew_us: int) -> None:
        self._loop, self._skew_us = loop, skew_us

    def now_us(self) -> int:
        """See `Clock.now_us`."""
        return self._loop.scheduler.now_us + self._skew_us
