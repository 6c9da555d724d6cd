"""The chunk transport on a real broker: what was not done is never committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition

from streams.faust_app.app import App, add_agent, consumer_of, new_app
from streams.faust_app.prefix import Chunk
from streams.kafka import Kafka
from streams.topics_apply import WantedTopic, create_topics

pytestmark = pytest.mark.broker

RECORDS = 5000
PARTITIONS = 2


@pytest.fixture
async def topic(kafka: Kafka) -> str:
    name = kafka.names.physical("mplp.transport")
    async with kafka.admin() as admin:
        await create_topics(admin, [WantedTopic(name=name, partitions=PARTITIONS, replication=1, config={})])
    async with kafka.producer() as producer:
        sent = [await producer.send(name, value=b"%d" % number, partition=number % PARTITIONS) for number in range(RECORDS)]
        await asyncio.gather(*sent)
    return name


@asynccontextmanager
async def running(app: App) -> AsyncIterator[None]:
    await app.start()
    try:
        yield
    finally:
        await app.stop()


async def committed(kafka: Kafka, group: str, topic: str) -> dict[int, int]:
    async with kafka.consumer(group_id=group) as consumer:
        return {partition: await consumer.committed(TopicPartition(topic, partition)) or 0 for partition in range(PARTITIONS)}


async def test_every_record_arrives_once_in_order_and_is_committed(kafka: Kafka, topic: str) -> None:
    group = f"{topic}-all"
    seen: dict[int, list[int]] = {0: [], 1: []}
    chunks: list[Chunk] = []
    complete = asyncio.Event()

    async def handle(chunk: Chunk) -> None:
        chunks.append(chunk)
        seen[chunk.partition] += [record.offset for record in chunk.records]
        if sum(map(len, seen.values())) == RECORDS:
            complete.set()

    app = new_app(kafka.settings, group=group)
    add_agent(app, [topic], handle, pytest.fail, "all")
    async with running(app):
        await asyncio.wait_for(complete.wait(), 120)
    assert seen == {0: list(range(RECORDS // 2)), 1: list(range(RECORDS // 2))}
    assert len(chunks) < RECORDS / 100  # whole fetches, not single records
    assert await committed(kafka, group, topic) == {0: RECORDS // 2, 1: RECORDS // 2}


async def test_an_exception_acknowledges_nothing_and_the_chunk_comes_again(kafka: Kafka, topic: str) -> None:
    group = f"{topic}-raise"
    failures: asyncio.Queue[BaseException] = asyncio.Queue()
    done: dict[int, int] = {0: 0, 1: 0}  # partition → end of what was handled
    raised: list[Chunk] = []

    async def raise_in_the_middle(chunk: Chunk) -> None:
        if chunk.end > 1000:
            raised.append(chunk)
            raise ValueError("no")
        done[chunk.partition] = chunk.end

    app = new_app(kafka.settings, group=group)
    add_agent(app, [topic], raise_in_the_middle, failures.put_nowait, "raise")
    async with running(app):
        assert isinstance(await asyncio.wait_for(failures.get(), 120), ValueError)
        # Long enough for commits, and for Faust to start the agent again, which must find nothing to do or raise again.
        await asyncio.sleep(2.5)
    first = await committed(kafka, group, topic)
    assert all(first[partition] <= done[partition] for partition in done)
    assert raised[0].start >= first[raised[0].partition]

    again: set[tuple[int, int]] = set()
    complete = asyncio.Event()

    async def handle(chunk: Chunk) -> None:
        again.update((chunk.partition, record.offset) for record in chunk.records)
        if len(again) == RECORDS - sum(first.values()):
            complete.set()

    app = new_app(kafka.settings, group=group)
    add_agent(app, [topic], handle, pytest.fail, "again")
    async with running(app):
        await asyncio.wait_for(complete.wait(), 120)
    assert await committed(kafka, group, topic) == {0: RECORDS // 2, 1: RECORDS // 2}


async def test_what_was_fetched_before_anything_was_committed_is_fetched_again(kafka: Kafka, topic: str) -> None:
    group = f"{topic}-before"
    release, complete = asyncio.Event(), asyncio.Event()
    sessions: dict[int, list[int]] = {}  # session → offsets of partition 0

    async def handle(chunk: Chunk) -> None:
        if chunk.partition == 0:
            sessions.setdefault(chunk.session, []).extend(record.offset for record in chunk.records)
            await release.wait()
        if len(sessions) > 1 and len(sessions[max(sessions)]) == RECORDS // 2:
            complete.set()

    app = new_app(kafka.settings, group=group)
    add_agent(app, [topic], handle, pytest.fail, "before")
    async with running(app):
        while not sessions:
            await asyncio.sleep(0.01)
        await consumer_of(app).perform_seek()  # what Faust does at a rebalance
        release.set()
        await asyncio.wait_for(complete.wait(), 120)
    assert sessions[max(sessions)] == list(range(RECORDS // 2))
    assert (await committed(kafka, group, topic))[0] == RECORDS // 2


async def test_a_slow_chunk_holds_back_the_commit_of_its_partition_only(kafka: Kafka, topic: str) -> None:
    group = f"{topic}-slow"
    release = asyncio.Event()
    other = asyncio.Event()
    slow: list[Chunk] = []
    offsets = {0: 0, 1: 0}

    async def handle(chunk: Chunk) -> None:
        if chunk.partition == 0 and not slow:
            slow.append(chunk)
            await release.wait()
        offsets[chunk.partition] = chunk.end
        if min(offsets.values()) == RECORDS // 2:
            other.set()

    app = new_app(kafka.settings, group=group)
    add_agent(app, [topic], handle, pytest.fail, "slow")
    async with running(app):
        while not slow:
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.5)
        assert (await committed(kafka, group, topic))[0] == 0
        release.set()
        await asyncio.wait_for(other.wait(), 120)
    assert await committed(kafka, group, topic) == {0: RECORDS // 2, 1: RECORDS // 2}
