"""`SnapshotsPort` over Kafka: one producer and one reading consumer per process, shared by all partitions.

The producer is thrown away after any failure (a sequence number does not roll back after a failed batch); what was written
is written again by the caller, under the same keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from streams import limits
from streams.kafka import Kafka, start
from streams.log.kafka_log import FETCH_TIMEOUT_MS, RANGE_OPTIONS, abandon, read_range, stored_of
from streams.log.ports import Kept, Stored

WRITE_TIMEOUT_S = 30.0
#: Bytes of a batch of snapshots: large enough to be cheap, small enough for other partitions to get their turn.
BATCH_BYTES = 512 * 1024


class SnapshotClients:
    """The connections that all `KafkaSnapshots` of a process share; made when first needed."""

    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self._producer: AIOKafkaProducer | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._starting = asyncio.Lock()
        self._reading = asyncio.Lock()

    async def write(self, topic: str, partition: int, records: Sequence[Kept]) -> list[int]:
        """See `SnapshotsPort.write`. Raises `Unavailable`. A caller that is cancelled lets what it has sent arrive."""
        producer = await self._started()
        offsets: list[int] = []
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                at = 0
                while at < len(records):
                    count, first = await self._batch(producer, topic, partition, records[at:])
                    offsets += range(first, first + count)
                    at += count
        except (KafkaError, OSError, TimeoutError) as error:
            if self._producer is producer:
                self._producer = None
            await abandon(producer)
            raise self.kafka.unreachable(error) from error
        return offsets

    async def at(self, topic: str, partition: int, offset: int) -> Stored | None:
        """See `SnapshotsPort.at`; also of a log."""
        tp = TopicPartition(topic, partition)
        async with self._reading:
            if self._consumer is None:
                consumer = self.kafka.new_consumer(**RANGE_OPTIONS, max_partition_fetch_bytes=256 * 1024)
                await start(consumer)
                self._consumer = consumer
            consumer = self._consumer
            consumer.assign([tp])
            consumer.seek(tp, offset)
            while True:
                fetched = await consumer.getmany(tp, timeout_ms=FETCH_TIMEOUT_MS, max_records=1)
                for record in fetched.get(tp, ()):
                    return stored_of(record) if record.offset == offset else None
                if int(await consumer.position(tp)) > offset or int((await consumer.end_offsets([tp]))[tp]) <= offset:
                    return None

    async def close(self) -> None:
        """Closes the connections."""
        producer, consumer = self._producer, self._consumer
        self._producer = self._consumer = None
        if producer is not None:
            await abandon(producer)
        if consumer is not None:
            await consumer.stop()

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = self.kafka.new_producer(max_batch_size=limits.LOG_MESSAGE_BYTES_MAX - 1024 * 1024)
                await start(producer)
                self._producer = producer
            return self._producer

    @staticmethod
    async def _batch(producer: AIOKafkaProducer, topic: str, partition: int, records: Sequence[Kept]) -> tuple[int, int]:
        """Sends as many records as make a batch: how many, and the offset of the first."""
        builder = producer.create_batch()
        count = size = 0
        for record in records:
            added = builder.append(key=record.key.encode(), value=record.value, timestamp=None, headers=list(record.headers))
            if added is None:
                break
            count += 1
            size += len(record.value or b"")
            if size > BATCH_BYTES:
                break
        if not count:
            raise ValueError(f"A snapshot of {len(records[0].value or b'')} bytes does not fit into a batch.")
        metadata = await asyncio.shield(await producer.send_batch(builder, topic, partition=partition))
        if metadata.offset is None or metadata.offset < 0:
            raise ConnectionError("The broker knows a batch of snapshots as a repeat and does not say where it lies.")
        return count, int(metadata.offset)


class KafkaSnapshots:
    """One partition of a topic of snapshots (name on the broker)."""

    def __init__(self, clients: SnapshotClients, topic: str, partition: int) -> None:
        self._clients = clients
        self.topic = topic
        self.partition = partition

    async def end(self) -> int:
        """See `SnapshotsPort.end`."""
        tp = TopicPartition(self.topic, self.partition)
        async with self._clients.kafka.consumer(**RANGE_OPTIONS) as consumer:
            return int((await consumer.end_offsets([tp]))[tp])

    async def read(self, start: int, end: int) -> AsyncIterator[Stored]:
        """See `SnapshotsPort.read`."""
        async with self._clients.kafka.consumer(**RANGE_OPTIONS) as consumer:
            async for stored in read_range(consumer, self.topic, self.partition, start, end):
                yield stored

    async def at(self, offset: int) -> Stored | None:
        """See `SnapshotsPort.at`."""
        return await self._clients.at(self.topic, self.partition, offset)

    async def write(self, records: Sequence[Kept]) -> Sequence[int]:
        """See `SnapshotsPort.write`."""
        return await self._clients.write(self.topic, self.partition, records)

    async def close(self) -> None:
        """See `SnapshotsPort.close`: the connections are the process's."""
