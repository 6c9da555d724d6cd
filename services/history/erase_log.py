"""The topic of erasures: read whole (it is small, and compacted by what never repeats), and written to."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.history.erasures import Erasure, Erasures, erasures_in, key_of, records_of
from streams.codec.avro import Codec, headers_of
from streams.kafka import Kafka, cluster_metadata
from streams.log.kafka_log import RANGE_OPTIONS, read_range
from streams.records import SystemEvent
from streams.topics import ERASURES


async def refresh(kafka: Kafka, codec: Codec, erasures: Erasures, consumer: AIOKafkaConsumer | None = None) -> None:
    """Reads what there is, with a consumer of the caller that is assigned nothing, or one of its own.

    Raises `Unavailable`, `KafkaError`, `Defect` (`history.erasure-lost`).
    """
    if consumer is None:
        async with kafka.consumer(**RANGE_OPTIONS) as own:
            await refresh(kafka, codec, erasures, own)
        return
    topic = kafka.names.physical(ERASURES)
    found: list[SystemEvent] = []
    cluster = await cluster_metadata(consumer._client)
    if cluster.partitions_for_topic(topic):
        tp = TopicPartition(topic, 0)
        end = int((await consumer.end_offsets([tp]))[tp])
        async for stored in read_range(consumer, topic, 0, 0, end):
            record = None if stored.value is None else codec.decode(stored.value)
            if isinstance(record, SystemEvent):
                found.append(record)
        consumer.unsubscribe()
    erasures.replace(erasures_in(found))


async def append(kafka: Kafka, codec: Codec, erasure: Erasure) -> None:
    """Keeps an erasure for ever. Raises `Unavailable` if the broker does not take it; then it does not count."""
    topic = kafka.names.physical(ERASURES)
    async with kafka.producer() as producer:
        try:
            for record in records_of(erasure):
                await producer.send_and_wait(topic, codec.encode(record), key=key_of(record).encode(), headers=headers_of(record))
        except KafkaError as error:
            raise kafka.unreachable(error) from error
