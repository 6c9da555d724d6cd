"""A route that is changed while records are under way: each is delivered as one version has it, to that version's destination."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from streams.codec.avro import Codec, SchemaIds
from streams.faust_app.route_lines import LineRunner
from streams.faust_app.route_ports import World
from streams.faust_app.route_runner import Place, Source
from streams.faust_app.route_topics import TopicRunner
from streams.log.ports import Stored
from streams.matching.matchers import RecordView
from streams.records import Json
from streams.routing.gates import Gates
from streams.routing.parse import parse_route
from streams.routing.plan import Filtered, Plan
from streams.routing.routes import active
from streams.routing.seen import Seen
from streams.routing.tasks import Task
from streams.webhooks.outcomes import Delivered, Failed, Outcome
from tests.unit.streams.faust_app.test_route_topics import BEGAN_MS, Memory, task

CODEC = Codec(SchemaIds.local())
RETRY = {"max-retries": 5, "backoff-strategy": "fixed", "initial-interval": "1ms", "max-interval": "1ms"}


def version(destination: Json, **more: Any) -> Plan:
    return Plan(active(parse_route({"id": "copy", "match": {}, "destination": destination, "retry": RETRY, **more})))


def looked_at(offset: int, plan: Plan) -> Task:
    return cast(Task, made(task(offset).raw, plan))


def made(stored: Stored, plan: Plan) -> Task | None:
    view = RecordView(CODEC.decode_raw(stored.value or b"")[1])
    seen = Seen("orders", 0, stored, BEGAN_MS, view)
    outcome = plan.made(view, seen.depth, seen.known)
    return None if isinstance(outcome, Filtered) else Task(seen, plan, outcome)


class Log:
    """A source that makes tasks of what it is shown, and has nothing else."""

    position = 0

    async def task(self, stored: Stored, plan: Plan) -> Task | None:
        await asyncio.sleep(0)
        return made(stored, plan)


@dataclass
class Hooks(Memory):
    """A world with webhooks that answer when they are told to, and topics that say what came."""

    gates: Gates = field(default_factory=Gates)
    posted: list[tuple[str, str]] = field(default_factory=list)  #: URL, type of the event
    answers: asyncio.Queue[Outcome] = field(default_factory=asyncio.Queue)
    came: list[tuple[str, int]] = field(default_factory=list)  #: topic, records

    def at_a_time(self, destination: Any) -> int:
        return 8

    def ours(self) -> bool:
        return True

    async def post(self, destination: Any, delivery_id: str, event: Any) -> Outcome:
        self.posted.append((destination.target.url, event.type))
        return await self.answers.get()

    async def send(self, topic: str, records: Any) -> None:
        await super().send(topic, records)
        self.came.append((topic, sum(map(len, records.values()))))


async def until(met: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not met():
            await asyncio.sleep(0.001)


async def calling(world: Hooks, failed: list[BaseException]) -> LineRunner:
    """A runner whose first record is under way to `/before`."""
    before = version({"webhook": "http://127.0.0.1:1/before"})
    runner = LineRunner(cast(World, world), before, Place("orders", 0), cast(Source, Log()), failed.append, position=0, state=None)
    runner.start()
    runner.take([looked_at(0, before)], 1)
    await until(lambda: world.posted)
    return runner


async def test_what_fails_after_its_route_was_changed_goes_on_as_the_new_version_has_it() -> None:
    world, failed = Hooks(), list[BaseException]()
    runner = await calling(world, failed)
    runner.use(version({"webhook": "http://127.0.0.1:1/after"}, transforms=[{"map": '{"type": "order.sent"}'}]))
    world.answers.put_nowait(Failed(code="webhook.failed", message="HTTP 500", retryable=True))
    await until(lambda: runner.counts["retried"])
    world.clock_ms += 1000
    world.answers.put_nowait(Delivered())
    await until(lambda: not runner.waiting())
    await runner.close()

    assert world.posted == [("http://127.0.0.1:1/before", "order.paid"), ("http://127.0.0.1:1/after", "order.sent")]
    assert failed == []


async def test_what_the_new_version_filters_is_settled_without_another_attempt() -> None:
    world, failed = Hooks(), list[BaseException]()
    runner = await calling(world, failed)
    runner.use(version({"webhook": "http://127.0.0.1:1/after"}, filters=["data.n > 0"]))
    world.answers.put_nowait(Failed(code="webhook.failed", message="HTTP 500", retryable=True))
    await until(lambda: runner.counts["retried"])
    world.clock_ms += 1000
    await until(lambda: not runner.waiting())
    await runner.close()

    assert [url for url, _ in world.posted] == ["http://127.0.0.1:1/before"]
    assert (runner.counts["filtered"], failed) == (1, [])


async def test_what_waits_for_its_topic_goes_to_the_new_versions_topic_as_that_has_it() -> None:
    world, failed = Hooks(), list[BaseException]()
    before = version({"topic": "copies"})
    runner = TopicRunner(
        cast(World, world), before, Place("orders", 0), cast(Source, Log()), failed.append, position=0, state=None, since_ms=None
    )
    runner.start()
    world.may_send.clear()
    runner.take([looked_at(0, before)], 1)
    await world.sending.wait()
    runner.take([looked_at(1, before), looked_at(2, before), looked_at(3, before)], 4)
    runner.use(version({"topic": "others"}, filters=["data.n != 2"], transforms=[{"map": '{"type": "order.sent"}'}]))
    world.may_send.set()
    await until(lambda: not runner.waiting())
    await runner.close()

    assert world.came == [("copies", 1), ("others", 2)]
    assert [b"order.sent" in body for body in world.sent] == [False, True, True]
    assert (world.told, failed) == (3, [])
