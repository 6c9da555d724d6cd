"""Which chunks a worker handles, and when, after the partitions were shared anew; the feed and the stage are in memory."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from streams.codec.avro import Codec
from streams.errors import Defect
from streams.faust_app.feed import Subscription
from streams.faust_app.handover import Handover
from streams.faust_app.match_stage import MatchStage
from streams.faust_app.ports import WorkerPorts
from streams.faust_app.prefix import Chunk
from streams.faust_app.worker import Worker
from streams.kafka import Kafka
from streams.settings import Settings
from streams.topics import MATCHES, SYSTEM_EVENTS


class Stage:
    """Stands for the match stage, and for the owner of a partition of matches."""

    def __init__(self) -> None:
        self.handled: list[Chunk] = []

    async def handle(self, chunk: Chunk) -> None:
        self.handled.append(chunk)

    def forget(self, held: set[tuple[str, int]]) -> None:
        """No partition is held by anybody else."""

    async def take(self) -> None:
        """Nothing is to be taken over."""

    async def keep(self) -> None:
        """Nothing was lost."""

    async def close(self) -> None:
        """Nothing is open."""


class Feed:
    """Says of some chunks that they were left in a queue when the partitions were shared anew."""

    def __init__(self) -> None:
        self.strangers: list[Chunk] = []

    def is_current(self, chunk: Chunk) -> bool:
        return chunk not in self.strangers


class Reader:
    """Stands for the readers of rules and workflows: it has caught up when it is told so."""

    def __init__(self) -> None:
        self.caught_up = asyncio.Event()
        self.offset = 0

    async def catch_up(self) -> None:
        await self.caught_up.wait()


class Parts:
    """A worker, as far as chunks go through it."""

    def __init__(self) -> None:
        kafka = Kafka(Settings())
        self.worker = Worker(kafka, cast("Codec", None), name="w", ports=WorkerPorts())
        self.stage, self.owner, self.feed, self.reader = Stage(), Stage(), Feed(), Reader()
        of: Any = self.worker
        of._feed, of._rules, of._starts, of._matched = self.feed, self.reader, self.reader, frozenset({SYSTEM_EVENTS})
        self.source, self.matches = (kafka.names.physical(topic) for topic in (SYSTEM_EVENTS, MATCHES))
        stage, handover = cast("MatchStage", self.stage), Handover(self.matches, of._owners, self.worker.fail)
        self.subscription: Subscription = of._subscription(stage, [SYSTEM_EVENTS], {}, lambda _: self.owner, handover)

    async def assign(self, *partitions: int) -> None:
        await self.subscription.assigned({(topic, partition) for topic in (self.source, self.matches) for partition in partitions})

    async def handle(self, chunk: Chunk) -> None:
        await self.subscription.handlers[chunk.topic][1](chunk)

    def chunk(self, topic: str, start: int = 0) -> Chunk:
        return Chunk(topic=topic, partition=0, start=start, end=start + 1, records=(), session=0)


@pytest.fixture
async def parts() -> Parts:
    return Parts()


async def test_nothing_is_matched_before_the_rules_of_the_assignment_are_known(parts: Parts) -> None:
    await parts.assign(0)
    matching = asyncio.create_task(parts.handle(parts.chunk(parts.source)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert parts.stage.handled == []  # it may have slept while rules were changed

    parts.reader.caught_up.set()
    await matching
    assert len(parts.stage.handled) == 1


async def test_a_later_assignment_waits_anew(parts: Parts) -> None:
    parts.reader.caught_up.set()
    await parts.assign(0)
    await parts.handle(parts.chunk(parts.source))
    parts.reader.caught_up.clear()
    await parts.assign(0)
    later = asyncio.create_task(parts.handle(parts.chunk(parts.source, 1)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert [chunk.start for chunk in parts.stage.handled] == [0]

    parts.reader.caught_up.set()
    await later
    assert [chunk.start for chunk in parts.stage.handled] == [0, 1]


async def test_a_chunk_of_an_earlier_assignment_is_left_alone(parts: Parts) -> None:
    parts.reader.caught_up.set()
    await parts.assign(0)
    old = [parts.chunk(parts.source, 5), parts.chunk(parts.matches, 5)]
    new = [parts.chunk(parts.source, 2), parts.chunk(parts.matches, 2)]
    parts.feed.strangers += old
    for chunk in (*old, *new):
        await parts.handle(chunk)

    assert (parts.stage.handled, parts.owner.handled) == (new[:1], new[1:])


async def test_a_chunk_that_becomes_a_stranger_while_it_waits_for_the_rules_is_left_alone(parts: Parts) -> None:
    await parts.assign(0)
    chunk = parts.chunk(parts.source)
    matching = asyncio.create_task(parts.handle(chunk))
    await asyncio.sleep(0)
    parts.feed.strangers.append(chunk)
    parts.reader.caught_up.set()
    await matching

    assert parts.stage.handled == []


async def test_matches_that_nobody_owns_are_never_acknowledged(parts: Parts) -> None:
    parts.reader.caught_up.set()
    await parts.assign(1)
    with pytest.raises(Defect, match=r"worker\.no-owner|Nobody owns"):
        await parts.handle(parts.chunk(parts.matches))
