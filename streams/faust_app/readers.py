"""Consumers that read stretches of partitions: a few at a time, and each for one stretch after the other.

To make one costs some milliseconds of processor time, and what it has fetched lies in memory until Python collects it. Sweeps of failing
keys read hundreds of short stretches.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from aiokafka import AIOKafkaConsumer

from streams.concurrency import closed
from streams.kafka import Kafka, start
from streams.log.kafka_log import read_range
from streams.log.ports import Stored


class Readers:
    """See the module. `most`: stretches that are read at a time; `options` are those of aiokafka's consumer."""

    def __init__(self, kafka: Kafka, most: int, options: Mapping[str, Any]) -> None:
        self._kafka = kafka
        self._options = options
        self._turns = asyncio.Semaphore(most)
        self._idle: list[AIOKafkaConsumer] = []

    async def read(self, physical: str, partition: int, start_offset: int, end: int) -> AsyncGenerator[Stored, None]:
        """Records of [start_offset, end) of a partition (its topic's name on the broker). Raises `Unavailable`, `KafkaError`."""
        async with self._turns:
            consumer = self._idle.pop() if self._idle else await self._made()
            is_well = False
            try:
                async with aclosing(read_range(consumer, physical, partition, start_offset, end)) as records:
                    async for stored in records:
                        yield stored
                is_well = True
            except GeneratorExit:  # the reader has what it wants
                is_well = True
                raise
            finally:
                if is_well:
                    consumer.pause(*consumer.assignment())  # or it would go on fetching
                    self._idle.append(consumer)
                else:
                    await closed(consumer.stop())

    async def _made(self) -> AIOKafkaConsumer:
        consumer = self._kafka.new_consumer(**self._options)
        await start(consumer)
        return consumer

    async def close(self) -> None:
        """Closes those that read nothing; to be called when nobody reads any more."""
        while self._idle:
            await closed(self._idle.pop().stop())
