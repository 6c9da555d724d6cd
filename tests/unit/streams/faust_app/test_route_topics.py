"""A route to a topic, on a world in memory: what a successor looks at, and a destination that is deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import orjson
import pytest

from streams.bus.rendering import Rendered
from streams.codec.avro import Codec, SchemaIds, headers_of
from streams.errors import NotFound, Unavailable
from streams.faust_app.route_ports import World
from streams.faust_app.route_runner import Place, Source
from streams.faust_app.route_topics import TopicRunner
from streams.log.ports import Stored
from streams.matching.matchers import RecordView
from streams.records import Json, SystemEvent, from_micros
from streams.routing.deliveries import DeliveryWriter
from streams.routing.events import EventWriter
from streams.routing.parse import parse_route
from streams.routing.plan import Plan
from streams.routing.routes import active
from streams.routing.seen import Seen
from streams.routing.states import RouteState, record_of, state_of
from streams.routing.tasks import Task

CODEC = Codec(SchemaIds.local())
SKEW_MS = 60_000
BEGAN_MS = 1_767_225_600_000


@dataclass
class Memory:
    """What a runner sees of a world: a destination of one partition, and what is told."""

    clock_ms: int = BEGAN_MS
    sent: list[bytes] = field(default_factory=list)
    buried: list[tuple[int, str, int]] = field(default_factory=list)  #: offset, code, attempts
    told: int = 0
    there: frozenset[int] = frozenset()
    looked_since_ms: list[int] = field(default_factory=list)
    looked_by_others: list[bool] = field(default_factory=list)
    exists: bool = True
    refusals: list[BaseException] = field(default_factory=list)  #: of `send`, one after the other
    may_send: asyncio.Event = field(default_factory=asyncio.Event)
    may_look: asyncio.Event = field(default_factory=asyncio.Event)
    sending: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_send.set()
        self.may_look.set()

    def now_ms(self) -> int:
        return self.clock_ms

    def now(self) -> datetime:
        return from_micros(self.clock_ms * 1000)

    async def partitions(self, topic: str) -> int:
        if not self.exists:
            raise NotFound("topic.unknown", f"There is no topic {topic}.")
        return 1

    def events(self, route: str, place: str) -> EventWriter:
        return EventWriter(CODEC, route, place)

    def deliveries(self, active_route: Any, topic: str, partition: int) -> DeliveryWriter:
        return DeliveryWriter(CODEC, active_route, topic, partition, 1)

    async def send(self, topic: str, records: Mapping[int, Sequence[bytes]]) -> None:
        self.sending.set()
        await self.may_send.wait()
        if self.refusals:
            raise self.refusals.pop(0)
        await self.partitions(topic)
        self.sent += [body for bodies in records.values() for body in bodies]

    async def settle_down(self) -> None:
        pass

    async def already(self, topic: str, route: str, source: str, partition: int, since_ms: int, *, by_others: bool) -> frozenset[int]:
        self.looked_since_ms.append(since_ms)
        self.looked_by_others.append(by_others)
        await self.may_look.wait()
        await self.partitions(topic)
        return self.there

    async def bury(self, active_route: Any, raw: Stored, redriven: Any, *, code: str, attempts: int, **about: Any) -> None:
        self.buried.append((raw.offset, code, attempts))

    async def tell(self, deliveries: Sequence[Rendered]) -> None:
        self.told += len(deliveries)

    async def tell_all(self, deliveries: Mapping[int, Sequence[bytes]]) -> None:
        self.told += sum(map(len, deliveries.values()))


PLAN = Plan(
    active(
        parse_route(
            {
                "id": "copy", "match": {}, "destination": {"topic": "copies"},
                "retry": {"max-retries": 2, "backoff-strategy": "fixed", "initial-interval": "1ms", "max-interval": "1ms"},
            }
        )
    )
)  # fmt: skip


def task(offset: int) -> Task:
    event = SystemEvent(
        type="order.paid", source="shop", subject=f"k{offset % 3}", data={"n": offset}, time=datetime(2026, 1, 1, tzinfo=UTC)
    )
    stored = Stored(
        topic="orders", partition=0, offset=offset, timestamp_ms=BEGAN_MS, key=event.subject.encode(), value=CODEC.encode(event),
        headers=tuple(headers_of(event)),
    )  # fmt: skip
    view = RecordView(CODEC.decode_raw(stored.value)[1])
    seen = Seen("orders", 0, stored, BEGAN_MS, view)
    return Task(seen, PLAN, cast(Any, PLAN.made(view, seen.depth, seen.known)))


@asynccontextmanager
async def runner(world: Memory, *, state: Json = None, since_ms: int | None = None) -> AsyncIterator[TopicRunner]:
    """A runner that works until the end of the block."""
    failed: list[BaseException] = []
    made = TopicRunner(
        cast(World, world), PLAN, Place("orders", 0), cast(Source, None), failed.append, position=0, state=state, since_ms=since_ms
    )
    made.start()
    try:
        yield made
        assert failed == []
    finally:
        await made.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


def written_down(dump: Json, at_ms: int) -> RouteState:
    """The state as a successor reads it."""
    snapshot = record_of(RouteState(route="copy", topic="orders", partition=0, state=orjson.loads(orjson.dumps(dump))))
    return state_of(snapshot, at_ms)


async def test_a_successor_looks_at_what_the_destination_has_since_the_oldest_unsettled_batch_was_begun() -> None:
    world = Memory()
    world.may_send.clear()
    async with runner(world) as killed:
        killed.offer([task(0), task(1), task(2)], 3)
        await world.sending.wait()
        world.clock_ms += 300_000  # the broker takes its time; states are written down meanwhile
        killed.offer([task(3)], 4)
        state = written_down(killed.dump(), world.clock_ms)

    assert (state.state["position"], state.since_ms) == (0, BEGAN_MS)

    world.there = frozenset({0, 1})  # as far as it came
    world.may_send.set()
    async with runner(world, state=state.state, since_ms=state.since_ms) as successor:
        successor.offer([task(offset) for offset in range(4)], 4)
        await until(lambda: successor.oldest() == 4)

        assert world.looked_since_ms == [BEGAN_MS - SKEW_MS]
        assert len(world.sent) == 2
        assert world.told == 4, "what is there is told, too: its first owner may not have come to that"
        assert "sending_ms" not in successor.dump(), "everything is settled: of nothing it is open whether it is there"


async def test_a_successor_that_dies_before_it_has_looked_leaves_that_to_the_next() -> None:
    world = Memory()
    world.may_look.clear()
    world.clock_ms += 500_000
    async with runner(world, state={"position": 0, "keys": {}}, since_ms=BEGAN_MS) as second:
        second.offer([task(0)], 1)
        await until(lambda: bool(world.looked_since_ms))
        state = written_down(second.dump(), world.clock_ms)

    assert state.since_ms == BEGAN_MS
    assert world.sent == [], "nothing is sent before it is known what is there"


async def test_what_a_former_owner_may_have_sent_is_looked_for_until_it_is_settled() -> None:
    world = Memory(there=frozenset({5}))
    world.clock_ms += 500_000
    async with runner(world, state={"position": 0, "keys": {}}, since_ms=BEGAN_MS) as second:
        second.offer([task(0)], 1)
        await until(lambda: second.oldest() == 1)
        assert second.dump()["sending_ms"] == BEGAN_MS, "offset 5 is there, and not passed yet"

        second.offer([task(5)], 6)
        await until(lambda: second.oldest() == 6)
        assert "sending_ms" not in second.dump()

    assert len(world.sent) == 1


@pytest.mark.parametrize("vanished", ["before", "in-between"])
async def test_what_was_to_go_to_a_deleted_topic_is_dead_and_what_comes_when_it_is_back_is_delivered(vanished: str) -> None:
    world = Memory()
    gone = NotFound("topic.unknown", "There is no topic copies.")
    if vanished == "before":
        world.exists = False
    else:
        world.refusals = [gone, gone, gone]  # it was there when its partitions were asked for
    async with runner(world) as found:
        found.offer([task(0), task(1)], 2)
        await until(lambda: found.oldest() == 2)
        assert world.buried == [(0, "topic.unknown", 3), (1, "topic.unknown", 3)]
        assert (found.counts["dead"], found.counts["delivered"]) == (2, 0)

        world.exists = True
        found.offer([task(2)], 3)
        await until(lambda: found.oldest() == 3)

    assert (len(world.sent), len(world.buried), world.told) == (1, 2, 3)


async def test_a_topic_that_is_made_again_while_it_is_tried_gets_everything() -> None:
    world = Memory(refusals=[NotFound("topic.unknown", "There is no topic copies."), NotFound("topic.unknown", "Still none.")])
    async with runner(world) as found:
        found.offer([task(0), task(1)], 2)
        await until(lambda: found.oldest() == 2)

    assert (len(world.sent), world.buried, found.counts["retried"]) == (2, [], 4)


async def test_a_successor_finds_nothing_in_a_topic_that_is_gone_and_goes_on() -> None:
    world = Memory(exists=False)
    async with runner(world, state={"position": 0, "keys": {}}, since_ms=BEGAN_MS) as successor:
        successor.offer([task(0)], 1)
        await until(lambda: successor.oldest() == 1)

    assert world.looked_since_ms == [BEGAN_MS - SKEW_MS]
    assert world.looked_by_others == [True]
    assert world.buried == [(0, "topic.unknown", 3)]


async def test_after_a_broker_that_did_not_answer_what_arrived_all_the_same_is_not_sent_again() -> None:
    world = Memory(refusals=[Unavailable("kafka.timeout", "The broker did not acknowledge.")], there=frozenset({0}))
    async with runner(world) as found:
        found.offer([task(0), task(1)], 2)
        await until(lambda: found.oldest() == 2)

    assert len(world.sent) == 1
    assert world.looked_by_others == [False], "also what it has written itself since it has the partition"
    assert world.looked_since_ms == [BEGAN_MS - 1000], "its own clock dates what it writes"


async def test_dead_letters_of_different_keys_do_not_wait_for_each_other_and_those_of_one_keep_their_order() -> None:
    world = Memory(exists=False)
    begun: list[int] = []
    may_bury = asyncio.Event()

    async def bury(active_route: Any, raw: Stored, redriven: Any, **about: Any) -> None:
        begun.append(raw.offset)
        await may_bury.wait()
        world.buried.append((raw.offset, about["code"], about["attempts"]))

    world.bury = bury  # type: ignore[method-assign]
    async with runner(world) as made:
        assert made.take([task(offset) for offset in range(9)], 9)
        await until(lambda: len(begun) == 3)
        assert begun == [0, 1, 2], "the first of each key"
        may_bury.set()
        await until(lambda: made.oldest() == 9)
    assert [[offset for offset, _, _ in world.buried if offset % 3 == key] for key in range(3)] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]
    assert world.told == 9
