"""Events by routes to a topic, to a webhook that fails for some keys, and to one that takes its time; judged from outside."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson

from streams.bus.bus import Bus
from streams.errors import Unavailable
from streams.records import SystemEvent
from streams.routing import dlq
from streams.routing.selection import LetterSelection
from tests.unit.streams.webhooks.receiver import Request, answer, receiver

COPIES = "mplp.chaos.copies"
#: Retries after 0.1, 0.2 and 0.4 s; what fails four times is dead.
RETRY = {"max-retries": 3, "initial-interval": 100, "max-interval": 1000}
FAILURES = 3
#: Events published at a time.
_BATCH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent. Every key goes to the topic; the first `hooked` of them to the webhook, too, the first `failing` of those fail."""

    events: int
    keys: int
    rate: float  #: events per second
    hooked: int  #: keys
    failing: int  #: keys of which each event fails three times
    forever: bool  #: the key after those fails for ever
    slow: int = 0  #: events that go to the slow webhook, too

    def key(self, number: int) -> int:
        """The key of an event."""
        return number % self.keys

    def dead(self, number: int) -> bool:
        """Whether the webhook refuses the event for ever."""
        return self.forever and self.key(number) == self.failing

    def healthy(self, number: int) -> bool:
        """Whether its key never fails."""
        return self.key(number) > self.failing or not (self.failing or self.forever)

    def event(self, number: int) -> SystemEvent:
        """An event; when it was sent stands in it."""
        slow = self.slow > 0 and number % max(1, self.events // self.slow) == 0
        data = {"number": number, "hooked": self.key(number) < self.hooked, "slow": slow, "sent": time.time()}
        return SystemEvent(type="chaos.sent", source="chaos", subject=f"k{self.key(number)}", data=data)


@dataclass(slots=True)
class Hooks:
    """The receivers' memory."""

    load: Load
    slow_s: float
    attempts: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    arrived: list[tuple[int, str, float]] = field(default_factory=list)  #: number, idempotency key, seconds since it was sent
    slow: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))  #: number → idempotency keys

    async def quick(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Fails as the load says."""
        data = orjson.loads(request.body)["data"]
        number = int(data["number"])
        self.attempts[number] += 1
        fails = self.load.dead(number) or (self.load.key(number) < self.load.failing and self.attempts[number] <= FAILURES)
        if not fails:
            self.arrived.append((number, request.headers["idempotency-key"], time.time() - data["sent"]))
        await answer(500 if fails else 204)(request, writer)

    async def slowly(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answers in its own time."""
        number = int(orjson.loads(request.body)["data"]["number"])
        await asyncio.sleep(self.slow_s)
        self.slow[number].add(request.headers["idempotency-key"])
        await answer()(request, writer)


@asynccontextmanager
async def hooked(load: Load, slow_s: float) -> AsyncIterator[tuple[Hooks, list[dict[str, Any]]]]:
    """Receivers, and the routes to them."""
    hooks = Hooks(load, slow_s)
    async with AsyncExitStack() as stack:
        quick = await stack.enter_async_context(receiver(hooks.quick))
        slow = await stack.enter_async_context(receiver(hooks.slowly))
        match = {"topic": "mplp.system.events", "type": "chaos.sent"}
        yield hooks, [
            {"id": "copy", "match": match, "destination": {"topic": COPIES}},
            {
                "id": "hook", "match": {**match, "where": "data.hooked"}, "retry": RETRY,
                "destination": {"webhook": f"http://127.0.0.1:{quick.port}/"},
            },
            {"id": "slow", "match": {**match, "where": "data.slow"}, "destination": {"webhook": f"http://127.0.0.1:{slow.port}/"}},
        ]  # fmt: skip


async def produce(bus: Bus, load: Load) -> None:
    """Sends everything at its rate, as nearly as it goes."""
    began = time.monotonic()
    batch = max(1, min(_BATCH, int(load.rate / 10)))
    for first in range(0, load.events, batch):
        await asyncio.sleep(max(0.0, began + first / load.rate - time.monotonic()))
        events = [load.event(number) for number in range(first, min(first + batch, load.events))]
        while True:
            try:
                await bus.publish(events)
                break
            except Unavailable:
                await asyncio.sleep(0.5)


async def copies(bus: Bus) -> list[tuple[int, str]]:
    """What the destination topic has: number and id, by partition in order."""
    return [
        (delivered.record.data["number"], delivered.record.id) async for delivered in bus.read(COPIES, since="beginning", until_end=True)
    ]


async def letters(bus: Bus) -> list[tuple[str, int, str]]:
    """The dead letters, in order: route, number, code."""
    return [
        (letter.route, bus.codec.decode(letter.value).data["number"], letter.code)  # type: ignore[attr-defined]
        async for letter in dlq.letters(bus, LetterSelection())
    ]


async def settled(bus: Bus, load: Load, hooks: Hooks, wait_s: float) -> None:
    """Returns when everything has arrived or is dead, or after `wait_s`."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        wanted = {number for number in range(load.events) if load.key(number) < load.hooked}
        open_ones = wanted - {number for number, _, _ in hooks.arrived}
        dead = {number for _, number, _ in await letters(bus)} if len(open_ones) <= load.events // load.keys + 1 else set()
        slow = {number for number in range(load.events) if load.event(number).data["slow"]}
        if open_ones <= dead and slow <= hooks.slow.keys() and len({number for number, _ in await copies(bus)}) == load.events:
            return
        await asyncio.sleep(1.0)


def faults(
    load: Load, hooks: Hooks, copied: Sequence[tuple[int, str]], dead: Sequence[tuple[str, int, str]]
) -> Iterator[str]:  # one sentence each
    """Everything that is wrong."""
    yield from _once(load, copied)
    expected = {number for number in range(load.events) if load.key(number) < load.hooked}
    there = {number for number, _, _ in hooks.arrived}
    buried = [number for route, number, _ in dead if route == "hook"]
    yield from (f"event {number} is neither delivered nor dead" for number in sorted(expected - there - set(buried))[:20])
    yield from (f"event {number} is delivered and dead" for number in sorted(there & set(buried))[:20])
    yield from (f"event {number} is dead by {route}: {code}" for route, number, code in dead if not load.dead(number) or route != "hook")
    if len(buried) != len(set(buried)):
        yield f"{len(buried) - len(set(buried))} letters are there twice"
    yield from _ordered(load, "arrived at the webhook", _first([number for number, _, _ in hooks.arrived]))
    yield from _ordered(load, "are dead", buried)
    slow = [number for number in range(load.events) if load.event(number).data["slow"]]
    yield from (f"event {number} never arrived at the slow webhook" for number in slow if number not in hooks.slow)
    keys: dict[int, set[str]] = defaultdict(set)
    for number, key, _ in hooks.arrived:
        keys[number].add(key)
    for found in (keys, hooks.slow):
        yield from (f"event {number} arrived under {len(ids)} idempotency keys" for number, ids in found.items() if len(ids) > 1)


def _once(load: Load, copied: Sequence[tuple[int, str]]) -> Iterator[str]:
    numbers = [number for number, _ in copied]
    if missing := set(range(load.events)) - set(numbers):
        yield f"{len(missing)} events are not in the topic: {sorted(missing)[:10]}"
    if len(numbers) != len(set(numbers)):
        ids = {event_id for _, event_id in copied}
        yield f"{len(numbers) - len(set(numbers))} events are in the topic twice, {len(copied) - len(ids)} of them under the same id"
    yield from _ordered(load, "lie in the topic", _first(numbers))


def _first(numbers: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(numbers))


def _ordered(load: Load, what: str, numbers: Sequence[int]) -> Iterator[str]:
    by_key: dict[int, list[int]] = defaultdict(list)
    for number in numbers:
        by_key[load.key(number)].append(number)
    yield from (f"events of k{key} {what} out of order: {found[:20]}" for key, found in by_key.items() if found != sorted(found))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that so large a share of the values does not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def latencies_ms(load: Load, hooks: Hooks) -> tuple[float, float]:
    """p50 and p99 from sending to the first arrival at the webhook, of keys that never fail."""
    first: dict[int, float] = {}
    for number, _, seconds in hooks.arrived:
        if load.healthy(number):
            first.setdefault(number, seconds * 1000)
    return round(percentile(list(first.values()), 0.5), 1), round(percentile(list(first.values()), 0.99), 1)
