"""Routes on the real stack: what arrives where, in which order, what becomes of failures, and what survives a kill."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from streams.bus import Bus
from streams.kafka import Kafka
from streams.records import Delivery, SystemEvent, derived_id
from streams.routing import control, dlq
from streams.routing.lag import lag
from streams.routing.parked import parked
from streams.routing.selection import LetterSelection
from streams.settings import Settings
from streams.topics import DELIVERIES, SYSTEM_EVENTS
from streams.topics_apply import WantedTopic, create_topics
from tests.chaos.redrive import bury
from tests.integration.streams.workers import worker
from tests.unit.streams.webhooks.receiver import Request, answer, receiver

pytestmark = pytest.mark.broker

QUICK = {"max-retries": 3, "initial-interval": 20, "max-interval": 100}


def route(route_id: str, destination: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": route_id, "match": {"topic": SYSTEM_EVENTS, "type": "order.*"}, "destination": destination, "retry": QUICK, **more}


def order(number: int, subject: str = "one", **data: Any) -> SystemEvent:
    return SystemEvent(type="order.paid", source="shop", subject=subject, data={"number": number, **data})


async def records(bus: Bus, topic: str, count: int, wanted: Callable[[Any], bool] = lambda record: True) -> list[Any]:
    """The first records of a topic that are wanted."""
    found: list[Any] = []
    async with asyncio.timeout(120):
        async for delivered in bus.read(topic, since="beginning"):
            if wanted(delivered.record):
                found.append(delivered.record)
                if len(found) >= count:
                    break
    return found


async def letters(bus: Bus, count: int, **selection: Any) -> list[dlq.Letter]:
    """The dead letters, once there are so many."""
    async with asyncio.timeout(120):
        while True:
            found = [letter async for letter in dlq.letters(bus, LetterSelection(**selection))]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.2)


async def test_an_event_is_filtered_transformed_and_arrives_with_its_cause(bus: Bus, settings: Settings) -> None:
    async with worker(settings):
        applied = await control.apply(
            bus,
            [
                route(
                    "billing", {"topic": "mplp.billing"}, filters=["!has(data.test)"],
                    transforms=[{"set": {"data.cents": "int(data.number * 100.0)"}}, {"map": '{"type": "billing.requested"}'}],
                ),
                route("copy", {"topic": "mplp.copies"}),
            ],
            who="test",
        )  # fmt: skip
        assert (applied.created, applied.report.missing) == (("mplp.billing", "mplp.copies"), ())
        events = [order(1), order(2, test=True), SystemEvent(type="user.login"), order(3)]
        await bus.publish(events)
        found = await records(bus, "mplp.billing", 2)
        copies = await records(bus, "mplp.copies", 3)
        told = await records(bus, DELIVERIES, 5, lambda record: isinstance(record, Delivery))

    assert [(each.type, each.data, each.causation_id, each.subject) for each in found] == [
        ("billing.requested", {"number": number, "cents": 100 * number}, events[place].id, "one") for number, place in ((1, 0), (3, 3))
    ]
    assert [each.id for each in found] == [derived_id("route", "billing", event.id) for event in (events[0], events[3])]
    assert [each.data["number"] for each in copies] == [1, 2, 3]
    assert {(each.route_id, each.event_id, each.status, each.attempt) for each in told} == {
        *(("billing", event.id, "delivered", 1) for event in (events[0], events[3])),
        *(("copy", event.id, "delivered", 1) for event in (events[0], events[1], events[3])),
    }


class Flaky:
    """A receiver that refuses some events some times, and remembers in which order it took the others."""

    def __init__(self, failures: dict[int, int]) -> None:
        self.left = dict(failures)
        self.taken: dict[str, list[int]] = defaultdict(list)
        self.seen: set[str] = set()

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        event = orjson.loads(request.body)
        number = event["data"]["number"]
        if self.left.get(number, 0) > 0:
            self.left[number] -= 1
            await answer(500)(request, writer)
            return
        if request.headers["idempotency-key"] not in self.seen:
            self.seen.add(request.headers["idempotency-key"])
            self.taken[event["subject"]].append(number)
        await answer()(request, writer)


async def test_a_key_that_fails_keeps_its_order_and_holds_up_no_other(bus: Bus, settings: Settings) -> None:
    hook = Flaky({0: 2, 4: 99, 9: 1})
    async with receiver(hook) as server, worker(settings):
        await control.apply(bus, [route("hook", {"webhook": f"http://127.0.0.1:{server.port}/"})], who="test")
        await bus.publish([order(number, "abc"[number % 3]) for number in range(300)])
        (letter,) = await letters(bus, 1)
        async with asyncio.timeout(120):
            while sum(map(len, hook.taken.values())) < 299:
                await asyncio.sleep(0.05)

    assert dict(hook.taken) == {subject: [number for number in range(place, 300, 3) if number != 4] for place, subject in enumerate("abc")}
    assert (letter.route, letter.code, letter.attempts, letter.stage) == ("hook", "webhook.failed", 4, "deliver")
    assert letter.key == b"b"


async def test_dead_letters_keep_their_bytes_and_come_back_once_and_edited(bus: Bus, settings: Settings) -> None:
    hook = Flaky(dict.fromkeys(range(5), 99))
    async with receiver(hook) as server, worker(settings):
        await control.apply(bus, [route("hook", {"webhook": f"http://127.0.0.1:{server.port}/"}, retry={"max-retries": 0})], who="test")
        await bus.publish([order(number, "abc"[number % 3]) for number in range(8)])
        found = await letters(bus, 5)
        assert sorted(bus.codec.decode(letter.value).data["number"] for letter in found) == [0, 1, 2, 3, 4]
        hook.left = {1: 99}
        dry = await dlq.redrive(bus, LetterSelection(where="data.number < 3"), who="ann", dry_run=True)
        assert (dry.matched, dry.redriven) == (3, 0)

        done = await dlq.redrive(bus, LetterSelection(route="hook", where="data.number < 3"), who="ann")
        again = await dlq.redrive(bus, LetterSelection(route="hook", where="data.number < 3 && letter.attempts < 2"), who="ann")

        assert (done.matched, done.redriven, again.matched) == (3, 3, 0)
        async with asyncio.timeout(120):
            while not {0, 2} <= {number for numbers in hook.taken.values() for number in numbers}:
                await asyncio.sleep(0.05)
        twice = next(letter for letter in await letters(bus, 3) if letter.history)
        assert (twice.attempts, twice.topic, [past["who"] for past in twice.history]) == (2, SYSTEM_EVENTS, ["ann"])

        await dlq.redrive(bus, LetterSelection(ids=frozenset({twice.id})), who="bob", edit={"data": {"number": 77}})
        async with asyncio.timeout(120):
            while 77 not in hook.taken["b"]:
                await asyncio.sleep(0.05)
        purged = await dlq.purge(bus, LetterSelection(), who="ann")
        assert purged["purged"] == 2
        assert [letter async for letter in dlq.letters(bus, LetterSelection())] == []
        told = await records(bus, SYSTEM_EVENTS, 4, lambda record: record.type in ("dlq.redriven", "dlq.purged"))
    assert sorted((event.type, event.data["who"], event.data["matched"]) for event in told) == [
        ("dlq.purged", "ann", 2), ("dlq.redriven", "ann", 0), ("dlq.redriven", "ann", 3), ("dlq.redriven", "bob", 1),
    ]  # fmt: skip
    assert {event.data["who"]: event.data["edited"] for event in told if event.type == "dlq.redriven"} == {"ann": False, "bob": True}
    assert [event.data["purged"] for event in told if event.type == "dlq.purged"] == [2]


async def test_a_topic_of_dead_letters_that_is_deleted_while_they_are_listed_has_none(bus: Bus, kafka: Kafka) -> None:
    await bury(bus, 3)
    doomed = kafka.names.physical("mplp.tried.dlq")
    async with kafka.admin() as admin:
        await create_topics(admin, [WantedTopic(name=doomed, partitions=4, replication=1, config={})])
        listing = dlq.letters(bus, LetterSelection())
        first = await anext(listing)
        await admin.delete_topics([doomed])

    assert {first.key, *[letter.key async for letter in listing]} == {b"k0", b"k1", b"k2"}


async def test_a_worker_that_is_killed_leaves_nothing_out_and_keeps_the_order(bus: Bus, settings: Settings) -> None:
    hook = Flaky(dict.fromkeys(range(0, 2000, 97), 2))
    async with receiver(hook) as server:
        async with worker(settings) as first:
            await control.apply(
                bus,
                [route("hook", {"webhook": f"http://127.0.0.1:{server.port}/"}), route("copy", {"topic": "mplp.copies"})],
                who="test",
            )
            await bus.publish([order(number, f"k{number % 20}") for number in range(2000)])
            async with asyncio.timeout(120):
                while sum(map(len, hook.taken.values())) < 300:
                    await asyncio.sleep(0.01)
            await first.kill()
        async with worker(settings):
            async with asyncio.timeout(120):
                while sum(map(len, hook.taken.values())) < 2000:
                    await asyncio.sleep(0.05)
            copies = await records(bus, "mplp.copies", 2000)

    for key, numbers in hook.taken.items():
        assert numbers == sorted(numbers), key
    arrived = [each.data["number"] for each in copies]
    assert sorted(arrived) == list(range(2000)), "each once: a successor looks at what is there"


async def test_parked_keys_are_told_with_what_waits_behind_them(bus: Bus, settings: Settings) -> None:
    hook = Flaky({0: 99})
    slow = {"max-retries": 5, "initial-interval": "60s"}
    async with receiver(hook) as server, worker(settings):
        await control.apply(bus, [route("hook", {"webhook": f"http://127.0.0.1:{server.port}/"}, retry=slow)], who="test")
        await bus.publish([order(number, "a") for number in range(50)])
        async with asyncio.timeout(120):
            while not (found := await parked(bus, "hook")) or found[0].waiting < 50:
                await asyncio.sleep(0.1)
        behind = await lag(bus, "hook")
    assert behind.records == 50
    assert behind.seconds > 0
    assert (found[0].key, found[0].offset, found[0].waiting, found[0].failure.attempts, found[0].failure.code) == (
        "a", 0, 50, 1, "webhook.failed",
    )  # fmt: skip
