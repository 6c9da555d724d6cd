"""Routes that are changed, held, taken away, handed over and left behind while keys are parked: what becomes of what waits."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from streams.bus import Bus
from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.records import SystemEvent
from streams.routing import breaker, control, dlq, lateness, line
from streams.routing.parked import parked
from streams.routing.selection import LetterSelection
from streams.topics import SYSTEM_EVENTS, partition_of
from tests.integration.streams.route_parts import Part, part
from tests.unit.streams.webhooks.receiver import Request, answer, receiver

pytestmark = pytest.mark.broker

KEYS = 8
EVERY = {0, 1, 2, 3}
#: Long enough that a key stays parked until somebody wakes it, short enough to go on at once.
PATIENT = {"max-retries": 1000, "backoff-strategy": "fixed", "initial-interval": 50}


class Hook:
    """A receiver that refuses some keys, or everything, for as long as a test wants; what it took, by key in order."""

    def __init__(self, *refused: str) -> None:
        self.refused = set(refused)
        self.down = False
        self.open = asyncio.Event()
        self.open.set()
        self.calls = 0
        self.seen: set[str] = set()
        self.taken: dict[str, list[int]] = defaultdict(list)
        self.types: dict[int, str] = {}

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        event = orjson.loads(request.body)
        await self.open.wait()
        refuses = self.down or event["subject"] in self.refused
        if not refuses and event["id"] not in self.seen:  # it may come again when an answer took long
            self.seen.add(event["id"])
            self.taken[event["subject"]].append(event["data"]["number"])
            self.types[event["data"]["number"]] = event["type"]
        await answer(503 if refuses else 204)(request, writer)

    @property
    def count(self) -> int:
        """How much it took."""
        return sum(map(len, self.taken.values()))


def route(port: int, route_id: str = "hook", **more: Any) -> dict[str, Any]:
    match = {"topic": SYSTEM_EVENTS, "type": "order.*"}
    return {"id": route_id, "match": match, "destination": {"webhook": f"http://127.0.0.1:{port}/"}, "retry": PATIENT, **more}


def key(number: int) -> str:
    return f"k{number % KEYS}"


def named(number: int) -> str:
    """Of many keys."""
    return f"n{number % 200}"


def in_order(end: int, *without: str) -> dict[str, list[int]]:
    """What a receiver has taken that has everything up to `end` but for some keys."""
    return {key(first): list(range(first, end, KEYS)) for first in range(KEYS) if key(first) not in without}


async def publish(bus: Bus, first: int, end: int, named: Callable[[int], str] = key) -> None:
    events = [SystemEvent(type="order.paid", source="shop", subject=named(number), data={"number": number}) for number in range(first, end)]
    await bus.publish(events)


async def until(met: Callable[[], Any]) -> None:
    async with asyncio.timeout(120):
        while not met():
            await asyncio.sleep(0.02)


async def told(bus: Bus, kind: str, about: str = "hook") -> SystemEvent:
    """The first event of this type about a route."""
    async with asyncio.timeout(120):
        async for delivered in bus.read(SYSTEM_EVENTS, since="beginning", type=kind, where=f'subject == "{about}"'):
            return delivered.record  # type: ignore[return-value]
    raise AssertionError("a subscription never ends")


async def waits_behind(bus: Bus, waiting: int) -> None:
    """Returns when a key is parked, as was written down, and so much waits with it."""
    async with asyncio.timeout(120):
        while not (found := await parked(bus, "hook")) or found[0].waiting < waiting:
            await asyncio.sleep(0.05)


async def parks_one_of_eight(bus: Bus, worker: Part, port: int) -> None:
    """A route to the port, eighty events of eight keys, and what was sent under the key that is refused waits."""
    await control.apply(bus, [route(port)], who="test")
    await until(lambda: worker.part.topics)
    await worker.holds(EVERY, 1)
    await publish(bus, 0, 80)
    await waits_behind(bus, 10)


async def test_parked_keys_go_on_in_order_by_a_worker_that_was_added(bus: Bus, kafka: Kafka, codec: Codec) -> None:
    hook = Hook("k0", "k1", "k2", "k3")
    async with receiver(hook) as server, part(kafka, codec) as first, part(kafka, codec) as second:
        await control.apply(bus, [route(server.port)], who="test")
        await until(lambda: first.part.topics and second.part.topics)
        await first.holds(EVERY, 1)
        await publish(bus, 0, 200)
        await until(lambda: hook.count == 100)

        # Two of the partitions go, and one of those comes back, while keys are parked in all of them.
        await asyncio.gather(first.holds({0, 1}, 2), second.holds({2, 3}, 2))
        await publish(bus, 200, 400)
        await until(lambda: hook.count == 200)
        await asyncio.gather(first.holds({0, 1, 2}, 3), second.holds({3}, 3))
        hook.refused.clear()
        await until(lambda: hook.count >= 400)

    assert hook.taken == in_order(400)


async def test_a_new_version_takes_over_what_is_parked(bus: Bus, kafka: Kafka, codec: Codec) -> None:
    hook, other = Hook("k0"), Hook()
    async with receiver(hook) as server, receiver(other) as elsewhere, part(kafka, codec) as worker:
        await parks_one_of_eight(bus, worker, server.port)
        await until(lambda: hook.count == 70)

        changed = route(elsewhere.port, transforms=[{"map": '{"type": "order.sent"}'}], filters=["data.number != 40"])
        await control.apply(bus, [changed], who="test")
        await publish(bus, 80, 160)
        await until(lambda: other.count == 89)

    assert hook.taken == in_order(80, "k0")
    everything = in_order(160)
    assert other.taken == {
        name: [number for number in numbers if number != 40 and (number >= 80 or name == "k0")] for name, numbers in everything.items()
    }
    assert set(other.types.values()) == {"order.sent"}


async def test_a_new_order_leaves_nothing_out_that_waited_under_the_old_one(bus: Bus, kafka: Kafka, codec: Codec) -> None:
    hook = Hook("k0")
    async with receiver(hook) as server, part(kafka, codec) as worker:
        await parks_one_of_eight(bus, worker, server.port)
        for order, end in (("none", 120), ("key", 160)):
            await control.apply(bus, [route(server.port, order=order)], who="test")
            await publish(bus, end - 40, end)
            async with asyncio.timeout(120):
                while hook.count < end - end // KEYS:
                    await asyncio.sleep(0.02)
        # Also a successor knows under which order what waits was looked at.
        await worker.holds(set(), 2)
        await worker.holds(EVERY, 3)
        hook.refused.clear()
        await until(lambda: hook.count >= 160)

    late = hook.taken.pop("k0")
    for numbers in hook.taken.values():
        numbers.sort()  # of some the order was none
    assert sorted(late) == list(range(0, 160, KEYS))
    assert [number for number in late if number < 80] == list(range(0, 80, KEYS)), "what waited keeps its order"
    assert [number for number in late if number >= 120] == list(range(120, 160, KEYS))
    assert hook.taken == in_order(160, "k0")


async def test_a_route_that_is_held_keeps_what_is_parked_and_goes_on_where_it_was(bus: Bus, kafka: Kafka, codec: Codec) -> None:
    hook = Hook("k0")
    async with receiver(hook) as server, part(kafka, codec) as worker:
        await parks_one_of_eight(bus, worker, server.port)

        await control.apply(bus, [route(server.port, enabled=False)], who="test")
        stage = worker.part.stage
        assert stage is not None
        await until(lambda: all(runner.held for _, runner in stage.runners))
        hook.refused.clear()
        await publish(bus, 80, 160)
        position = partition_of("k0", 4)
        await until(
            lambda: all(partition.position >= partition.end for partition, _ in stage.runners if partition.place.partition == position)
        )
        assert hook.taken == in_order(80, "k0"), "nothing while it is held"
        await control.apply(bus, [route(server.port)], who="test")
        await until(lambda: hook.count >= 160)

    assert hook.taken == in_order(160)


async def test_what_a_route_had_not_settled_is_told_when_it_is_deleted(bus: Bus, kafka: Kafka, codec: Codec) -> None:
    hook = Hook("k0")
    async with receiver(hook) as server, part(kafka, codec) as worker:
        await parks_one_of_eight(bus, worker, server.port)
        await until(lambda: hook.count == 70)

        await control.DOCUMENTS.delete(bus, "hook", "test", "")
        abandoned = await told(bus, "route.abandoned")
        hook.refused.clear()
        await control.apply(bus, [route(server.port)], who="test")  # one of the same name: it begins with what comes from now on
        await until(lambda: worker.part.topics)
        await publish(bus, 80, 160)
        await until(lambda: hook.count >= 150)

    assert (abandoned.data["keys"], abandoned.data["records"], list(abandoned.data["offsets"])) == (1, 10, ["k0"])
    assert hook.taken["k0"] == list(range(80, 160, KEYS))
    assert hook.taken == {name: [n for n in numbers if name != "k0" or n >= 80] for name, numbers in in_order(160).items()}
    assert await parked(bus, "hook") == []


async def test_a_destination_that_is_down_is_left_alone_and_holds_up_no_other(
    bus: Bus, kafka: Kafka, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PAUSE_MS", 300)
    monkeypatch.setattr(breaker, "KEYS_MAX", 20)
    hook, well = Hook(), Hook()
    hook.down = True
    async with receiver(hook) as server, receiver(well) as healthy, part(kafka, codec) as worker:
        routes = [route(server.port, retry={**PATIENT, "initial-interval": 1}), route(healthy.port, "well")]
        await control.apply(bus, routes, who="test")
        await until(lambda: worker.part.topics)
        await worker.holds({0}, 1)
        mine = [number for number in range(400) if partition_of(named(number), 4) == 0]
        await publish(bus, 0, 400, named)
        await until(lambda: well.count == len(mine))
        down = await told(bus, "route.destination-down")
        calls = hook.calls
        # Each time one attempt, and each pause twice as long: what is not attempted is not counted either.
        await until(lambda: hook.calls >= calls + 2)
        assert hook.calls < calls + 10
        hook.down = False
        await until(lambda: hook.count >= len(mine))
        up = await told(bus, "route.destination-up")
        letters = [letter async for letter in dlq.letters(bus, LetterSelection())]

    assert calls >= breaker.KEYS_MAX
    assert down.data["destination"] == up.data["destination"] == f"http://127.0.0.1:{server.port}/"
    assert letters == []
    assert sorted(hook.taken.values()) == sorted([number, number + 200] for number in mine if number < 200)


async def test_a_route_that_falls_behind_is_told_and_comes_to_what_is_live_again(
    bus: Bus, kafka: Kafka, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "RECORDS_MAX", 30)
    monkeypatch.setattr(lateness, "LATE_MS", 200)
    slow, well = Hook(), Hook()
    slow.open.clear()
    async with receiver(slow) as server, receiver(well) as healthy, part(kafka, codec) as worker:
        await control.apply(bus, [route(server.port, "slow"), route(healthy.port, "well")], who="test")
        await until(lambda: worker.part.topics)
        await worker.holds(EVERY, 1)
        await publish(bus, 0, 400, named)
        await until(lambda: well.count == 400)
        behind = await told(bus, "route.fell-behind", "slow")
        slow.open.set()
        await until(lambda: slow.count >= 400)
        caught_up = await told(bus, "route.caught-up", "slow")
        await publish(bus, 400, 480)
        await until(lambda: slow.count >= 480 and well.count >= 480)

    assert (behind.severity, caught_up.severity) == ("warning", "info")
    assert behind.data["records"] > 0
    assert behind.data["seconds"] >= 0.2
    assert slow.taken == well.taken
    assert all(numbers == sorted(numbers) for numbers in slow.taken.values())
