"""A source partition between Faust and the log: everything is delivered once and in order, whoever of the two has it; and what Faust is
about to bring is not read besides."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.bus.bodies import Bodies, bodies_of
from streams.codec.avro import Codec, SchemaIds
from streams.faust_app import brought
from streams.faust_app.brought import CHUNKS_MAX, Brought
from streams.faust_app.prefix import Chunk, Placed
from streams.faust_app.route_partition import RoutePartition, State
from streams.faust_app.route_ports import World
from streams.log.ports import Stored
from streams.matching.matchers import RecordView
from streams.records import SystemEvent
from streams.routing.parse import parse_route
from streams.routing.routes import ActiveRoute, active
from streams.routing.tasks import Task
from tests.unit.streams.faust_app.test_route_topics import BEGAN_MS, Memory

CODEC = Codec(SchemaIds.local())
TOPIC, RECORDS, CHUNK = "orders", 60, 5
VALUES = [CODEC.encode(SystemEvent(type="order.paid", source="shop", subject=f"k{n % 3}", data={"n": n})) for n in range(RECORDS)]
LOG = [Stored(topic=TOPIC, partition=0, offset=n, timestamp_ms=BEGAN_MS, key=b"k", value=VALUES[n], headers=()) for n in range(RECORDS)]


@dataclass
class Copies:
    """Writes which route has delivered which offset."""

    route: str

    def write_all(self, tasks: Sequence[Task], partitions: int) -> dict[int, tuple[list[int], Bodies]]:
        offsets = [task.seen.offset for task in tasks]
        return {0: (offsets, bodies_of([f"{self.route}/{offset}".encode() for offset in offsets]))}


@dataclass
class Kafka(Memory):
    """A destination in memory, and a source whose log can be read."""

    was_read: list[int] = field(default_factory=list)  #: offsets, from the log

    async def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[Stored, None]:
        for stored in LOG[start:end]:
            self.was_read.append(stored.offset)
            yield stored
            await asyncio.sleep(0)

    def view(self, value: bytes) -> RecordView:
        return RecordView(CODEC.decode_raw(value)[1])

    def events(self, route: str, place: str) -> Any:
        return Copies(route)

    def delivered(self, route: str = "copy") -> list[int]:
        """Offsets."""
        said = [body.decode().split("/") for body in self.sent]
        return [int(offset) for name, offset in said if name == route]


@dataclass
class Faust:
    """What Faust says it brings next."""

    next_offset: int | None

    def says(self) -> int | None:
        return self.next_offset


def chunk(start: int, end: int) -> Chunk:
    records = tuple(Placed(TOPIC, 0, each.offset, each.timestamp_ms, each.key, each.value, each.headers) for each in LOG[start:end])
    return Chunk(TOPIC, 0, start, end, records, 1)


def route(name: str) -> ActiveRoute:
    return active(parse_route({"id": name, "match": {"topic": TOPIC}, "destination": {"topic": "copies"}}))


@asynccontextmanager
async def partition(world: Kafka, faust: Faust, *, position: int = 0, names: Sequence[str] = ("copy",)) -> AsyncIterator[RoutePartition]:
    """At work; at the end of the block it has come to the end of the log, and everything is delivered."""
    failed: list[BaseException] = []
    made = RoutePartition(cast(World, world), TOPIC, 0, failed=failed.append, buries=False, brought=Brought(faust.says))
    made.start([route(name) for name in names], {name: State(position=position) for name in names}, RECORDS)
    try:
        yield made
        await come(made, RECORDS)
        assert failed == []
    finally:
        await made.close()


async def come(made: RoutePartition, position: int) -> None:
    """Until everything before the position is delivered."""
    async with asyncio.timeout(20):
        while min(runner.oldest() for runner in made.runners.values()) < position:
            await asyncio.sleep(0.001)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is overdue, however busy the machine is."""
    monkeypatch.setattr(brought, "_OVERDUE_S", 3600.0)


@pytest.mark.usefixtures("patient")
async def test_what_faust_is_about_to_bring_is_not_read_besides() -> None:
    world, faust = Kafka(), Faust(0)
    async with partition(world, faust) as made:
        for start in range(0, RECORDS, CHUNK):
            faust.next_offset = start + CHUNK
            await made.room()
            made.offer(chunk(start, start + CHUNK))
            await come(made, start + CHUNK)
    assert world.delivered() == list(range(RECORDS))
    assert world.was_read == []


@pytest.mark.usefixtures("patient")
async def test_what_faust_has_not_said_yet_is_waited_for() -> None:
    world = Kafka()
    async with partition(world, Faust(None)) as made:
        for _ in range(100):
            await asyncio.sleep(0)
        made.offer(chunk(0, RECORDS))
    assert world.delivered() == list(range(RECORDS))
    assert world.was_read == []


@pytest.mark.usefixtures("patient")
async def test_what_lies_before_what_faust_brings_is_read_and_no_more() -> None:
    world = Kafka()
    async with partition(world, Faust(40), position=10) as made:
        await come(made, 40)
        made.offer(chunk(40, RECORDS))
    assert world.delivered() == list(range(10, RECORDS))
    assert world.was_read == list(range(10, 40))


async def test_what_is_let_go_for_want_of_room_is_read() -> None:
    world = Kafka()
    async with partition(world, Faust(0)) as made:
        for start in range(0, RECORDS, CHUNK):  # without a pause: nothing leaves meanwhile
            made.offer(chunk(start, start + CHUNK))
    assert world.delivered() == list(range(RECORDS))
    assert world.was_read == list(range(CHUNK * CHUNKS_MAX, RECORDS))


async def test_what_is_said_to_come_and_does_not_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brought, "_OVERDUE_S", 0.2)
    world = Kafka()
    async with partition(world, Faust(0)):
        pass
    assert world.delivered() == list(range(RECORDS))


def test_who_is_far_ahead_of_faust_does_not_wait_for_it() -> None:
    made = Brought(lambda: 0)
    assert [made.missing(position, position + 10) for position in (0, 100, 100_000)] == [0, 100, 100_010]


SAYS = st.sampled_from(["right", "too early", "too late", "unknown"])


@settings(max_examples=60, deadline=None)
@given(
    position=st.integers(0, RECORDS), names=st.sampled_from([("copy",), ("copy", "second")]), pauses=st.integers(0, 6),
    chunks=st.lists(st.tuples(st.integers(0, RECORDS - 1), st.integers(1, 25), SAYS), max_size=12),
)  # fmt: skip
def test_whatever_comes_and_is_said_everything_is_delivered_once_in_order(
    position: int, names: tuple[str, ...], pauses: int, chunks: list[tuple[int, int, str]]
) -> None:
    """Chunks that come twice, overlap, leave gaps or never come; a Faust that says what is not so."""

    async def story(world: Kafka) -> None:
        faust = Faust(None)
        async with partition(world, faust, position=position, names=names) as made:
            for start, length, says in chunks:
                end = min(start + length, RECORDS)
                faust.next_offset = {"right": end, "too early": 0, "too late": sys.maxsize, "unknown": None}[says]
                made.offer(chunk(start, end))
                for _ in range(pauses):
                    await asyncio.sleep(0)
            faust.next_offset = sys.maxsize
            made.offer(chunk(RECORDS, RECORDS))

    world = Kafka()
    asyncio.run(story(world))
    assert {name: world.delivered(name) for name in names} == {name: list(range(position, RECORDS)) for name in names}
