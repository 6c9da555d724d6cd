"""Workers under fire: planted records go through worker processes that are killed, stopped and continued; the composites are judged."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams.bus.bus import Bus
from streams.correlation import control
from streams.errors import Unavailable
from streams.kafka import Kafka
from streams.records import CompositeEvent, now
from streams.settings import Settings
from streams.topics import COMPOSITES, SYSTEM_EVENTS
from tests.chaos.planted import LONGEST_S, RULES, Plan, event_of, hostile, ticks, witnesses
from tests.integration.streams.workers import WorkerProcess

#: How long everything that was sent may take to be said after the last fault, seconds.
SETTLE_S = 900.0
Say = Callable[[str], None]


@dataclass(slots=True)
class Fire:
    """What is done to the workers, and how often: every `every_s` seconds one of the `faults`, chosen by a seed."""

    every_s: float
    faults: Sequence[str]  #: "kill", "zombie" (stopped for longer than the session), "pause" (for less), or a name of `others`
    seed: int
    others: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)  #: what else can go wrong
    done: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def workers(settings: Settings, count: int) -> AsyncIterator[list[WorkerProcess]]:
    """Started workers, killed at the end."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    found = [WorkerProcess(settings, f"worker-{n}", settings.data_dir / f"worker-{n}.log") for n in range(count)]
    try:
        await asyncio.gather(*(process.start() for process in found))
        yield found
    finally:
        await asyncio.gather(*(process.kill() for process in found))


async def burn(processes: Sequence[WorkerProcess], fire: Fire, session_s: float, say: Say, over: asyncio.Event) -> None:
    """Does its worst until it is over; then everything runs."""
    chance = random.Random(fire.seed)
    number = 0
    while True:
        try:
            await asyncio.wait_for(over.wait(), fire.every_s)
            return
        except TimeoutError:
            pass
        fault = fire.faults[number % len(fire.faults)]
        victim = processes[chance.randrange(len(processes))]
        number += 1
        say(f"  {fault}")
        match fault:
            case "kill":
                await victim.kill()
                await asyncio.sleep(chance.uniform(0.0, 2.0))
                await victim.start()
            case "zombie" | "pause":
                victim.signal(signal.SIGSTOP)
                await asyncio.sleep(session_s + chance.uniform(2.0, 4.0) if fault == "zombie" else chance.uniform(0.5, session_s - 1.0))
                victim.signal(signal.SIGCONT)
            case _:
                await fire.others[fault]()
        fire.done[fault] += 1
        # A zombie may have ended itself once it was told that it is none of the group; whoever runs workers starts them again.
        for process in processes:
            if process.ended:
                await process.start()


async def produce(bus: Bus, of: Plan, begin: datetime, *, hostile_every: int, behind: Callable[[], Awaitable[None]] | None = None) -> int:
    """Sends everything at the pace of its event time, what is hostile in between; how many records."""
    sent = 0
    for number, chunk in enumerate(of.chunks()):
        events = [event_of(item, begin) for item in chunk]
        at = chunk[-1].at
        if number % hostile_every == hostile_every // 2:
            events += hostile(begin, at, number)
        await _published(bus, events)
        sent += len(events)
        ahead_s = (begin + timedelta(seconds=at) - now()).total_seconds()
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
    return sent


async def _published(bus: Bus, events: Sequence[Any]) -> None:
    """Sends them, again if the broker does not answer: whoever reads ignores what comes twice."""
    while True:
        try:
            await bus.publish(events)
            return
        except Unavailable:
            await asyncio.sleep(0.5)


async def all_matched(kafka: Kafka) -> None:
    """Returns when the workers have handled what the source topic has."""
    topic = kafka.names.physical(SYSTEM_EVENTS)
    places = [TopicPartition(topic, partition) for partition in range(kafka.settings.partitions)]
    async with asyncio.timeout(SETTLE_S):
        while True:
            try:
                async with kafka.consumer() as consumer, kafka.admin() as admin:
                    committed = await admin.list_consumer_group_offsets(f"{kafka.settings.topic_prefix}-worker")
                    ends = await consumer.end_offsets(places)
            except (Unavailable, KafkaError, OSError):
                committed, ends = {}, dict.fromkeys(places, 1)  # the broker may be the one that is under fire
            if all(place in committed and committed[place].offset >= end for place, end in ends.items() if end):
                return
            await asyncio.sleep(0.5)


async def all_said(bus: Bus, begin: datetime, span_s: float, partitions: int) -> list[CompositeEvent]:
    """Event time goes on until everything is decided; all composites, when the last of every partition is there."""
    end = span_s + 2 * LONGEST_S
    # Once all is read event time goes on by itself: on a busy machine the witnesses come long after the ticks.
    last = witnesses(begin, end + LONGEST_S, partitions)
    # One after the other: a clock that leaps makes late what is still on its way.
    for events in (ticks(begin, end, partitions), last, ticks(begin, end + 2 * LONGEST_S, partitions)):
        await _published(bus, events)
        await all_matched(bus.kafka)
    waited_for = {event.data["witness"] for event in last}
    found: list[CompositeEvent] = []
    async with asyncio.timeout(SETTLE_S):
        async for delivered in bus.read(COMPOSITES, since="beginning"):
            found.append(delivered.record)  # type: ignore[arg-type]
            if delivered.record.rule_id == "witness":  # type: ignore[attr-defined]
                waited_for.discard(delivered.record.data["group"]["data.witness"])
                if not waited_for:
                    return found
    raise AssertionError("a subscription never ends")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is wrong, one sentence each, and how much there was."""

    faults: tuple[str, ...]
    composites: int
    revisions: int
    planted: int


def judged(of: Plan, found: Sequence[CompositeEvent]) -> Verdict:
    """Holds what was said against what was planted: each exactly once, nothing else, sequences without gaps."""
    faults: list[str] = []
    by_id: dict[str, list[CompositeEvent]] = defaultdict(list)
    sequences: dict[str, list[int]] = defaultdict(list)
    for composite in found:
        by_id[composite.id].append(composite)
        sequences[composite.aggregate_id or ""].append(composite.sequence or 0)
    for composite_id, said in by_id.items():
        if [each.revision for each in said] != list(range(len(said))):
            faults.append(f"{said[0].rule_id} {composite_id} has the revisions {[each.revision for each in said]}")
    faults += [f"{name} has the sequences {numbers}" for name, numbers in sequences.items() if numbers != list(range(1, len(numbers) + 1))]
    standing = [said[-1] for said in by_id.values() if not said[-1].retracted and said[-1].rule_id != "witness"]
    stands: dict[tuple[str, str], list[tuple[str, ...]]] = defaultdict(list)
    for composite in standing:
        stands[composite.rule_id, *composite.group_key.values()].append(tuple(composite.event_ids))  # type: ignore[index]
    for key, ids in of.expected.items():
        if stands.get(key) != [ids]:
            faults.append(f"{' '.join(key)}: planted {ids}, there {stands.get(key, 'nothing')}")
    faults += [f"{' '.join(key)}: nothing was planted, there is {ids}" for key, ids in stands.items() if key not in of.expected]
    return Verdict(tuple(faults), len(found), sum(len(said) - 1 for said in by_id.values()), len(of.expected))


async def under_fire(
    settings: Settings, bus: Bus, of: Plan, fire: Fire, *, workers_count: int = 3, hostile_every: int = 7, say: Say = lambda _: None
) -> Verdict:
    """The whole run: workers, rules, records, fire, and the verdict."""
    async with workers(settings, workers_count) as processes:
        await control.apply(bus, RULES, who="chaos", timeout=30.0)
        begin, over = now(), asyncio.Event()
        session_s = settings.group_session_timeout_ms / 1000
        burning = asyncio.create_task(burn(processes, fire, session_s, say, over))
        try:
            sent = await produce(bus, of, begin, hostile_every=hostile_every)
            say(f"{sent} records sent in {(now() - begin).total_seconds():.0f} s")
            await all_matched(bus.kafka)
            say(f"all matched after {(now() - begin).total_seconds():.0f} s")
        finally:
            over.set()
            await burning
        found = await all_said(bus, begin, of.span_s, settings.partitions)
        say(f"all said after {(now() - begin).total_seconds():.0f} s")
    return judged(of, found)
