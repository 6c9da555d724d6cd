"""Appends to one log partition over a Kafka client of aiokafka, without its producer.

A producer gathers records of many callers for many partitions: tasks, queues and wake-ups that cost a decision more than its bytes
do. A log partition has one writer with one batch in flight, so what remains of a producer is its promise: `acks=all`, a producer id of
its own, and a sequence number per record. After an error that may pass, the same bytes are sent again (the broker knows a batch by its
sequence and answers with its first offset) until the caller's time-out ends it; any other error means that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import DuplicateSequenceNumber, KafkaConnectionError, KafkaError, NoError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from streams import limits
from streams.concurrency import closed
from streams.kafka import Kafka
from streams.log.ports import BatchTooLarge, Outgoing

_log = structlog.get_logger("log.appender")

MAGIC = 2
NO_COMPRESSION = 0
ACKS_OF_ALL = -1
REQUEST_TIMEOUT_MS = 30_000
#: Pause before a request is repeated, seconds.
RETRY_PAUSE_S = 0.1
#: How long the broker may take to give a producer id and the partition's leader, seconds.
OPEN_TIMEOUT_S = 30.0
#: Sequence numbers have 31 bits and begin at 0 again.
SEQUENCES = 1 << 31
#: A batch of the log, with room for what the broker counts beside its records.
BATCH_BYTES_MAX = limits.LOG_MESSAGE_BYTES_MAX - 1024 * 1024


class KafkaAppender:
    """See `streams.log.ports.Appender`. One `append` at a time."""

    def __init__(self, client: AIOKafkaClient, topic: str, partition: int, *, producer_id: int, producer_epoch: int) -> None:
        self._client = client
        self._place = TopicPartition(topic, partition)
        self._producer_id = producer_id
        self._producer_epoch = producer_epoch
        self._sequence = 0
        self._closed = False

    @classmethod
    async def connect(cls, kafka: Kafka, topic: str, partition: int) -> KafkaAppender:
        """An appender with a new producer id. Raises `Unavailable` (`kafka.unreachable`) and what the broker answers."""
        client = AIOKafkaClient(**kafka.client_options(), request_timeout_ms=REQUEST_TIMEOUT_MS)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await client.bootstrap()
                await client.add_topic(topic)
                producer_id, producer_epoch = await _producer_id(client)
        except (KafkaConnectionError, OSError) as error:
            await closed(client.close())
            raise kafka.unreachable(error) from error
        except BaseException:
            await closed(client.close())
            raise
        return cls(client, topic, partition, producer_id=producer_id, producer_epoch=producer_epoch)

    async def append(self, batch: Sequence[Outgoing]) -> int:
        """See `Appender.append`."""
        builder = DefaultRecordBatchBuilder(
            MAGIC, NO_COMPRESSION, is_transactional=0, producer_id=self._producer_id, producer_epoch=self._producer_epoch,
            base_sequence=self._sequence, batch_size=BATCH_BYTES_MAX,
        )  # fmt: skip
        for number, record in enumerate(batch):
            if builder.append(number, record.timestamp_ms, record.key, record.value, list(record.headers)) is None:
                raise BatchTooLarge(f"{len(batch)} records do not fit into a batch of {BATCH_BYTES_MAX} bytes.")
        place = self._place
        request = ProduceRequest(None, ACKS_OF_ALL, REQUEST_TIMEOUT_MS, [(place.topic, [(place.partition, builder.build())])])
        while True:
            try:
                offset = await self._send(request)
            except KafkaError as error:
                if self._closed or not error.retriable:
                    raise
                _log.warning("append.again", topic=place.topic, partition=place.partition, reason=f"{type(error).__name__}: {error}")
                await asyncio.sleep(RETRY_PAUSE_S)
                await self._client.force_metadata_update()
                continue
            self._sequence = (self._sequence + len(batch)) % SEQUENCES
            return offset

    async def _send(self, request: ProduceRequest) -> int:
        """The first offset of the batch, -1 if the broker knows it as a repeat and not where it lies. Raises what it answers."""
        leader = self._client.cluster.leader_for_partition(self._place)
        if leader is None or leader < 0:
            raise UnknownTopicOrPartitionError(f"{self._place} has no leader")
        response = await self._client.send(leader, request)
        _, ((_, code, offset, *_),) = response.topics[0]
        if code == NoError.errno:
            return int(offset)
        error = for_code(code)
        if error is DuplicateSequenceNumber:
            return -1
        raise error(f"{self._place}")

    async def close(self) -> None:
        """See `Appender.close`."""
        if self._closed:
            return
        self._closed = True
        await closed(self._client.close())


async def _producer_id(client: AIOKafkaClient) -> tuple[int, int]:
    """A new producer id and its epoch, from any broker. Raises `KafkaError` for what does not pass by waiting."""
    while True:
        try:
            # No transactions: the time-out of one means nothing.
            response: Any = await client.send(client.get_random_node(), InitProducerIdRequest(None, REQUEST_TIMEOUT_MS))
            error = for_code(response.error_code)
            if error is NoError:
                return int(response.producer_id), int(response.producer_epoch)
            raise error("InitProducerId")
        except KafkaError as error:
            if not error.retriable:
                raise
        await asyncio.sleep(RETRY_PAUSE_S)
