"""Kafka's clients over the simulated broker, shaped like those of aiokafka as far as the stages and the rules' readers use them.

What is promised is what aiokafka promises: the batches of a producer for one partition are stored in order, each at most once
unless the broker forgot its producers; an answer may come late or be an error; what waits in the client of a process that is
killed is lost, what is on its way may still arrive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndTimestamp

from streams.codec.avro import Codec, SchemaIds
from streams.kafka import Kafka
from streams.log.ports import Outgoing, Stored
from streams.records import Record as AnyRecord
from streams.settings import Settings
from streams.testing.simulation.broker import BrokerError, SimulatedBroker
from streams.testing.simulation.loop import ProcessLoop
from streams.topics import INTERNAL_SNAPSHOTS

#: Most records that one answer of the broker has.
FETCH_RECORDS_MAX = 40


class RememberingCodec(Codec):
    """The real codec; what was decoded once is not decoded again: every record of a run is read several times."""

    def __init__(self, ids: SchemaIds) -> None:
        super().__init__(ids)
        self._plains: dict[bytes | None, tuple[str, dict[str, Any]]] = {}
        self._records: dict[bytes | None, AnyRecord] = {}

    def decode_raw(self, value: bytes | None) -> tuple[str, dict[str, Any]]:
        """See `Codec.decode_raw`. The fields are shared: nobody may change them."""
        found = self._plains.get(value)
        if found is None:
            found = self._plains[value] = super().decode_raw(value)
        return found

    def decode(self, value: bytes | None) -> AnyRecord:
        """See `Codec.decode`."""
        found = self._records.get(value)
        if found is None:
            found = self._records[value] = super().decode(value)
        return found

    def forget(self) -> None:
        """A run has ended."""
        self._plains.clear()
        self._records.clear()


class Record(NamedTuple):
    """A fetched record, with the fields of aiokafka's `ConsumerRecord` that are read."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


def record_of(stored: Stored) -> Record:
    """A stored record as consumers give it."""
    return Record(stored.topic, stored.partition, stored.offset, stored.timestamp_ms, stored.key, stored.value, stored.headers)


class Metadata(NamedTuple):
    """Where a batch lies."""

    topic: str
    partition: int
    offset: int
    timestamp: int  #: the broker's, if its topic is dated by it; else -1
    timestamp_type: int  #: 1: the broker's


class Fetched(NamedTuple):
    """What a fetch brought."""

    records: list[Stored]
    ends: dict[tuple[str, int], int]  #: the end of each partition as it was then


async def fetch(broker: SimulatedBroker, loop: ProcessLoop, positions: Mapping[tuple[str, int], int], wait_us: int) -> Fetched:
    """What lies at the positions, a portion of each partition, partitions in any order; waits for something, at most `wait_us`."""
    scheduler = broker.scheduler
    if scheduler.over:
        raise asyncio.CancelledError
    future: asyncio.Future[Fetched] = loop.create_future()
    deadline_us = scheduler.now_us + wait_us
    answered = False

    def look() -> None:
        nonlocal answered
        if answered:
            return
        found = _at_hand(broker, positions)
        if found or scheduler.now_us >= deadline_us:
            answered = True
            ends = {place: broker.partition(*place).visible for place in positions}
            scheduler.at(broker.delay(), partial(broker.resolve, loop, future, Fetched(found, ends)))
            return
        for topic, number in positions:
            broker.partition(topic, number).waiting.append(look)

    scheduler.at(broker.delay(), look)
    scheduler.at(wait_us, look)
    return await future


def _at_hand(broker: SimulatedBroker, positions: Mapping[tuple[str, int], int]) -> list[Stored]:
    chance = broker.scheduler.random.random
    portions = []
    for (topic, number), position in positions.items():
        partition = broker.partition(topic, number)
        if position < partition.visible:
            portions.append(partition.between(position, partition.visible, 1 + int(chance() * FETCH_RECORDS_MAX)))
    if len(portions) > 1 and chance() < 0.5:
        start = int(chance() * len(portions))
        portions = portions[start:] + portions[:start] if chance() < 0.6 else portions[start : start + 1]
    return [record for portion in portions for record in portion]


class Appended(NamedTuple):
    """A record of a batch."""

    timestamp: int


class SimulatedBatch:
    """`BatchBuilder`: full after some records, as large ones make it."""

    def __init__(self, records_max: int, now_ms: Callable[[], int]) -> None:
        self.records: list[Outgoing] = []
        self._records_max = records_max
        self._now_ms = now_ms

    def append(self, *, key: bytes, value: bytes | None, timestamp: int | None, headers: Sequence[tuple[str, bytes]]) -> Appended | None:
        """None: it is full."""
        if len(self.records) >= self._records_max:
            return None
        timestamp = timestamp or self._now_ms()
        self.records.append(Outgoing(key=key, value=value, headers=headers, timestamp_ms=timestamp))  # type: ignore[arg-type]
        return Appended(timestamp)

    def record_count(self) -> int:
        """How many records it has."""
        return len(self.records)


class SimulatedProducer:
    """`AIOKafkaProducer`: idempotent, one batch under way per partition."""

    def __init__(self, broker: SimulatedBroker, loop: ProcessLoop, partitions: Mapping[str, int], *, batch_records: int) -> None:
        self._broker, self._loop, self._partitions, self._batch_records = broker, loop, partitions, batch_records
        self._queues: dict[tuple[str, int], deque[tuple[list[Outgoing], asyncio.Future[Metadata]]]] = {}
        self.client = self
        self._sender = self  # whoever gives it up looks here for the task that sends
        self.sender_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connects."""
        await self._broker.ask(self._loop, lambda: None)

    async def stop(self) -> None:
        """Waits for what is under way."""
        waiting = [future for queue in self._queues.values() for _, future in queue]
        if waiting:
            await asyncio.wait(waiting)

    async def close(self) -> None:
        """As its own client: closes the connections."""

    async def partitions_for(self, topic: str) -> set[int]:
        """The partitions of a topic."""
        return await self._broker.ask(self._loop, lambda: set(range(self._partitions.get(topic, 0))))

    async def fetch_all_metadata(self) -> SimulatedProducer:
        """As its own client: what the broker has."""
        return await self._broker.ask(self._loop, lambda: self)

    def partitions_for_topic(self, topic: str) -> set[int]:
        """As cluster metadata."""
        return set(range(self._partitions.get(topic, 0)))

    def create_batch(self) -> SimulatedBatch:
        """An empty batch."""
        return SimulatedBatch(self._batch_records, self._now_ms)

    async def send(
        self, topic: str, value: bytes | None, key: bytes, *, partition: int, headers: Sequence[tuple[str, bytes]] = ()
    ) -> asyncio.Future[Metadata]:
        """Sends one record."""
        record = Outgoing(key=key, value=value, headers=headers, timestamp_ms=self._now_ms())  # type: ignore[arg-type]
        return await self._send(topic, partition, [record])

    async def send_and_wait(self, topic: str, value: bytes | None, key: bytes, *, partition: int, headers: Any = ()) -> Metadata:
        """Sends one record and waits for its acknowledgement."""
        return await (await self.send(topic, value, key, partition=partition, headers=headers))

    async def send_batch(self, batch: SimulatedBatch, topic: str, *, partition: int) -> asyncio.Future[Metadata]:
        """Sends a batch; the future is its acknowledgement."""
        return await self._send(topic, partition, batch.records)

    def _now_ms(self) -> int:
        return self._broker.scheduler.now_us // 1000

    async def _send(self, topic: str, partition: int, records: list[Outgoing]) -> asyncio.Future[Metadata]:
        if self._broker.scheduler.over:
            raise asyncio.CancelledError
        await asyncio.sleep(0)  # there is room in the client, or there is not
        future: asyncio.Future[Metadata] = self._loop.create_future()
        queue = self._queues.setdefault((topic, partition), deque())
        queue.append((records, future))
        if len(queue) == 1:
            self._next(topic, partition)
        return future

    def _next(self, topic: str, partition: int) -> None:
        """The first batch of the partition's queue goes on its way."""
        broker, scheduler, weather = self._broker, self._broker.scheduler, self._broker.weather
        records, _ = self._queues[topic, partition][0]
        chance = scheduler.random.random
        answered: asyncio.Future[int] = self._loop.create_future()
        answered.add_done_callback(partial(self._answered, topic, partition))
        delay = broker.delay()
        if topic == INTERNAL_SNAPSHOTS and weather.snapshots_us:
            delay += int(chance() ** 3 * weather.snapshots_us)

        def acknowledged(first: int) -> None:
            scheduler.at(broker.delay(), partial(broker.resolve, self._loop, answered, first))

        def arrived() -> None:
            # An error that passes is tried again by the client until it is stored: that is a matter of time only.
            if weather.error and chance() < weather.error * 0.1:
                if chance() < 0.5:
                    broker.store(topic, partition, records)
                scheduler.at(broker.delay(), partial(broker.resolve, self._loop, answered, BrokerError("out of order")))
                return
            if weather.doubled and chance() < weather.doubled:
                broker.store(topic, partition, records)  # a broker that forgot its producers took the repeat for new
            broker.store(topic, partition, records, acknowledged)

        scheduler.at(delay, arrived)

    def _answered(self, topic: str, partition: int, answer: asyncio.Future[int]) -> None:
        queue = self._queues[topic, partition]
        _, future = queue.popleft()
        if answer.cancelled():
            future.cancel()
            return
        error = answer.exception()
        if future.done():
            pass  # whoever waited has gone
        elif error is None:
            at_ms = self._broker.dated(topic, partition, answer.result())
            future.set_result(Metadata(topic, partition, answer.result(), -1 if at_ms is None else at_ms, int(at_ms is not None)))
        else:
            future.set_exception(error)
        if queue:
            self._next(topic, partition)


class SimulatedConsumer:
    """`AIOKafkaConsumer` without a group, one partition assigned."""

    def __init__(self, broker: SimulatedBroker, loop: ProcessLoop, partitions: Mapping[str, int]) -> None:
        self._broker, self._loop, self._partitions = broker, loop, partitions
        self._at: TopicPartition | None = None
        self._position = 0

    async def start(self) -> None:
        """Connects."""
        await self._broker.ask(self._loop, lambda: None)

    async def stop(self) -> None:
        """Closes."""

    async def topics(self) -> set[str]:
        """Names of all topics."""
        return await self._broker.ask(self._loop, lambda: set(self._partitions))

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Ends."""
        return await self._broker.ask(self._loop, lambda: {tp: self._broker.partition(*tp).visible for tp in partitions})

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Beginnings."""
        return await self._broker.ask(self._loop, lambda: {tp: self._broker.partition(*tp).first for tp in partitions})

    async def offsets_for_times(self, times_ms: Mapping[TopicPartition, int]) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record of a partition that is not older, None if there is none."""

        def looked_up() -> dict[TopicPartition, OffsetAndTimestamp | None]:
            found: dict[TopicPartition, OffsetAndTimestamp | None] = {}
            for tp, time_ms in times_ms.items():
                records = self._broker.partition(*tp).records
                fitting = (OffsetAndTimestamp(each.offset, each.timestamp_ms) for each in records if each.timestamp_ms >= time_ms)
                found[tp] = next(fitting, None)
            return found

        return await self._broker.ask(self._loop, looked_up)

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        """Reads this partition."""
        (self._at,) = partitions

    def seek(self, _: TopicPartition, offset: int) -> None:
        """Goes to an offset."""
        self._position = offset

    async def position(self, _: TopicPartition) -> int:
        """The next offset."""
        return self._position

    async def getmany(self, partition: TopicPartition, *, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
        """What is there, or nothing after the time-out."""
        assert partition == self._at
        found, _ = await fetch(self._broker, self._loop, {(partition.topic, partition.partition): self._position}, timeout_ms * 1000)
        if not found:
            return {}
        self._position = found[-1].offset + 1
        return {partition: [record_of(stored) for stored in found]}


class SimulatedKafka(Kafka):
    """Makes clients of one process."""

    def __init__(
        self, settings: Settings, broker: SimulatedBroker, loop: ProcessLoop, partitions: Mapping[str, int], *, batch_records: int
    ) -> None:
        """`partitions`: of every topic (names on the broker)."""
        super().__init__(settings)
        self._broker, self._loop, self._partitions, self._batch_records = broker, loop, partitions, batch_records

    def new_producer(self, **_: Any) -> Any:
        """See `Kafka.new_producer`."""
        return SimulatedProducer(self._broker, self._loop, self._partitions, batch_records=self._batch_records)

    def new_consumer(self, *topics: str, **_: Any) -> Any:
        """See `Kafka.new_consumer`."""
        assert not topics
        return SimulatedConsumer(self._broker, self._loop, self._partitions)
