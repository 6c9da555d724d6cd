"""Records of a topic as Kafka has them."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import TopicPartition

from streams.kafka import Kafka, cluster_metadata


async def raw_records(kafka: Kafka, topic: str, count: int, *, within_s: float = 120.0) -> list[Any]:
    """The first records of a topic (logical name), waited for, and for the topic, too: who subscribes to one that is made a moment later
    learns of it only with the next metadata, minutes later.
    """
    physical = kafka.names.physical(topic)
    async with asyncio.timeout(within_s), kafka.consumer() as consumer:
        while not (numbers := (await cluster_metadata(consumer._client)).partitions_for_topic(physical)):
            await asyncio.sleep(0.1)
        places = [TopicPartition(physical, number) for number in sorted(numbers)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        return [await consumer.getone() for _ in range(count)]
