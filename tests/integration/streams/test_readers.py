"""Stretches of partitions that are read one after the other by consumers that are kept."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from streams.faust_app.readers import Readers
from streams.kafka import Kafka
from streams.log.kafka_log import RANGE_OPTIONS
from streams.topics_apply import WantedTopic, create_topics

pytestmark = pytest.mark.broker

RECORDS = 400
MOST = 3


class Counted(Readers):
    """Counts the consumers that it makes; the first ones may be told to fail."""

    made = 0
    failures = 0

    async def _made(self) -> AIOKafkaConsumer:
        self.made += 1
        consumer = await super()._made()
        if self.failures:
            self.failures -= 1
            consumer.beginning_offsets = failing  # type: ignore[method-assign]
        return consumer


async def failing(*_: object) -> dict[object, int]:
    raise KafkaError("no")


@pytest.fixture
async def readers(kafka: Kafka) -> AsyncIterator[Counted]:
    readers = Counted(kafka, MOST, {**RANGE_OPTIONS, "max_poll_records": 20})
    yield readers
    await readers.close()


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    name = kafka.names.physical("mplp.stretches")
    async with kafka.admin() as admin:
        await create_topics(admin, [WantedTopic(name=name, partitions=2, replication=1, config={})])
    async with kafka.producer() as producer:
        sent = [await producer.send(name, value=b"%d" % number, partition=number % 2) for number in range(2 * RECORDS)]
        await asyncio.gather(*sent)
    return name


async def read(readers: Readers, topic: str, partition: int, start: int, end: int, most: int) -> list[tuple[int, int]]:
    found = []
    async with aclosing(readers.read(topic, partition, start, end)) as records:
        async for stored in records:
            found.append((stored.offset, int(stored.value or b"")))
            if len(found) == most:
                break
    return found


async def test_each_stretch_is_what_was_asked_for_however_the_last_one_ended(readers: Counted, topic: str) -> None:
    chance = random.Random(7)

    async def ask() -> None:
        for _ in range(15):
            partition, start, most = chance.randrange(2), chance.randrange(RECORDS), chance.choice((1, 7, RECORDS))
            end = chance.randint(start, RECORDS)
            expected = [(offset, 2 * offset + partition) for offset in range(start, end)][:most]
            assert await read(readers, topic, partition, start, end, most) == expected

    await asyncio.gather(*(ask() for _ in range(2 * MOST)))
    assert readers.made <= MOST


async def test_a_consumer_that_failed_is_not_kept(readers: Counted, topic: str) -> None:
    readers.failures = 1
    with pytest.raises(KafkaError):
        await read(readers, topic, 0, 0, 5, 5)
    assert await read(readers, topic, 0, 0, 2, 5) == [(0, 0), (1, 2)]
    assert readers.made == 2


async def test_one_that_was_cancelled_is_not_kept_and_hands_its_turn_on(readers: Counted, topic: str) -> None:
    seen: list[int] = []

    async def read_beyond_the_end() -> None:
        async with aclosing(readers.read(topic, 0, 0, 2 * RECORDS)) as records:
            async for stored in records:
                seen.append(stored.offset)

    reading = [asyncio.create_task(read_beyond_the_end()) for _ in range(MOST)]
    async with asyncio.timeout(60):
        while len(seen) < MOST * RECORDS:  # from there on they wait
            await asyncio.sleep(0.01)
    for each in reading:
        each.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    assert await read(readers, topic, 1, 3, 4, 5) == [(3, 7)]
    assert readers.made == MOST + 1
