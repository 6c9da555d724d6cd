"""The kernel's ports over Kafka (aiokafka): a log partition, a partition's inboxes, and effects.

Facts of aiokafka that matter here: an idempotent batch never expires, so every append has a time-out of its own; a sequence
number does not roll back after a failed batch, so a producer is thrown away after any failure; `BatchBuilder.append`
answers None when the batch is full; a producer that cannot reach its broker never finishes `stop()`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from streams import topics
from streams.concurrency import closed
from streams.kafka import Kafka, start
from streams.log.kafka_appender import KafkaAppender
from streams.log.ports import Appender, Outgoing, Stored

FETCH_TIMEOUT_MS = 1000
#: How often a reader of a range looks where it is, milliseconds. aiokafka says nothing when it comes to what is no record (the end of a
#: transaction, what was compacted away): where such ends the range, the reader would wait for its whole time.
RANGE_LOOK_MS = 20
CLOSE_TIMEOUT_S = 2.0
#: Of consumers that read a range and go: aiokafka pauses for `retry_backoff_ms` (100) before its first question about a partition,
#: and closing a consumer may wait for the fetch that it has sent ahead.
RANGE_OPTIONS: Mapping[str, Any] = {"retry_backoff_ms": 10, "fetch_max_wait_ms": 5}

#: Where the index of fences of a log lies.
SNAPSHOTS_OF = {
    topics.TRANSITIONS: topics.WORKFLOW_SNAPSHOTS,
    topics.MESSAGES: topics.MODULE_SNAPSHOTS,
    topics.COMPOSITES: topics.INTERNAL_SNAPSHOTS,
    topics.BLOCKS: topics.INTERNAL_SNAPSHOTS,
}


class SystemClock:
    """The wall clock."""

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return time.time_ns() // 1000


async def abandon(producer: AIOKafkaProducer) -> None:
    """Closes a producer without waiting for what it has in flight longer than `CLOSE_TIMEOUT_S`."""
    stopping = asyncio.ensure_future(producer.stop())
    done, _ = await asyncio.wait([stopping], timeout=CLOSE_TIMEOUT_S)
    if done:
        stopping.exception()
        return
    stopping.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await stopping
    sender = producer._sender.sender_task
    if sender is not None:
        sender.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await sender
    await producer.client.close()


class KafkaLog:
    """A log partition on Kafka. `topic` is given as logical name."""

    def __init__(self, kafka: Kafka, topic: str, partition: int) -> None:
        self._kafka = kafka
        self._snapshots = kafka.names.physical(SNAPSHOTS_OF.get(topic, topics.INTERNAL_SNAPSHOTS))
        self.topic = kafka.names.physical(topic)
        self.partition = partition

    async def end(self) -> int:
        """See `LogPort.end`."""
        tp = TopicPartition(self.topic, self.partition)
        async with self._kafka.consumer(**RANGE_OPTIONS) as consumer:
            return int((await consumer.end_offsets([tp]))[tp])

    async def read(self, start: int, end: int) -> AsyncIterator[Stored]:
        """See `LogPort.read`."""
        if start >= end:
            return
        async with self._kafka.consumer(**RANGE_OPTIONS) as consumer:
            async for stored in read_range(consumer, self.topic, self.partition, start, end):
                yield stored

    async def open(self) -> Appender:
        """See `LogPort.open`."""
        return await KafkaAppender.connect(self._kafka, self.topic, self.partition)

    async def write_fences(self, fences: Sequence[tuple[str, Outgoing]]) -> None:
        """See `LogPort.write_fences`."""
        async with self._kafka.producer() as producer:
            for key, record in fences:
                await producer.send_and_wait(
                    self._snapshots, key=key.encode(), value=record.value, headers=list(record.headers), partition=self.partition
                )


async def read_range(consumer: AIOKafkaConsumer, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[Stored, None]:
    """Records of [start, end) of a partition, in order; gaps (retention, compaction) are skipped. The consumer is assigned anew."""
    tp = TopicPartition(topic, partition)
    # Offsets are asked for before anything is assigned: a fetch that waits holds up every other request on its connection.
    first = int((await consumer.beginning_offsets([tp]))[tp])
    position = max(start, first)
    if position >= end:
        return
    consumer.assign([tp])
    consumer.seek(tp, position)
    while position < end:
        fetched = await consumer.getmany(tp, timeout_ms=RANGE_LOOK_MS)
        for record in fetched.get(tp, ()):
            if record.offset >= end:
                return
            yield stored_of(record)
        position = int(await consumer.position(tp))


def stored_of(record: object) -> Stored:
    """An aiokafka `ConsumerRecord` as the kernel knows it."""
    return Stored(
        topic=record.topic, partition=record.partition, offset=record.offset, timestamp_ms=record.timestamp,  # type: ignore[attr-defined]
        key=record.key, value=record.value, headers=record.headers,  # type: ignore[attr-defined]
    )  # fmt: skip


class KafkaInboxes:
    """Partition p of the inbox topics (names on the broker), by manual assignment."""

    def __init__(self, kafka: Kafka, inboxes: Sequence[str], partition: int) -> None:
        self._kafka = kafka
        self._topics = tuple(inboxes)
        self._partition = partition
        self._consumer: AIOKafkaConsumer | None = None
        self._positions: dict[str, int] = {}

    async def open(self, positions: Mapping[str, int]) -> Mapping[str, int]:
        """See `InboxPort.open`."""
        await self.close()
        consumer = self._kafka.new_consumer(fetch_max_wait_ms=1000, max_poll_records=2000, retry_backoff_ms=20)
        await start(consumer)
        self._consumer = consumer
        partitions = [TopicPartition(topic, self._partition) for topic in self._topics]
        firsts = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        consumer.assign(partitions)
        for tp in partitions:
            at = max(positions.get(tp.topic, -1) + 1, int(firsts[tp]))
            consumer.seek(tp, at)
            self._positions[tp.topic] = at
        return {tp.topic: int(ends[tp]) for tp in partitions}

    async def fetch(self, timeout_ms: int) -> Sequence[Stored]:
        """See `InboxPort.fetch`."""
        assert self._consumer is not None
        fetched = await self._consumer.getmany(timeout_ms=timeout_ms)
        records: list[Stored] = []
        for tp, batch in fetched.items():
            records.extend(stored_of(record) for record in batch)
            if batch:
                self._positions[tp.topic] = batch[-1].offset + 1
        return records

    def pause(self, topic: str) -> None:
        """See `InboxPort.pause`."""
        assert self._consumer is not None
        self._consumer.pause(TopicPartition(topic, self._partition))

    def resume(self, topic: str) -> None:
        """See `InboxPort.resume`."""
        assert self._consumer is not None
        self._consumer.resume(TopicPartition(topic, self._partition))

    def position(self, topic: str) -> int:
        """See `InboxPort.position`."""
        return self._positions[topic]

    async def close(self) -> None:
        """See `InboxPort.close`."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await closed(consumer.stop())
