"""One seeded run: sinks that are killed at any step, stopped and continued late, over stormy topics and tables; then calm and the count."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from functools import partial
from random import Random as random_of
from typing import Any
from unittest.mock import patch

from services.history import block_log, session, unit
from services.history.blocks import BLOCK_INSERTED
from services.history.container import body_id
from services.history.membership import Everything
from services.history.ports import Membership, Ports
from services.history.sink import Sinking
from streams.log.fenced import FencedLog
from streams.records import Inserted, from_micros
from streams.testing.simulation.broker import SimulatedBroker, stormy
from streams.testing.simulation.group import Member, SimulatedGroup
from streams.testing.simulation.logs import logs_to
from streams.testing.simulation.loop import Life, ProcessLoop, Scheduler
from streams.testing.simulation.ports import SimulatedLog
from streams.testing.simulation.world import Outcome
from streams.topics import BLOCKS, COMPOSITES, SYSTEM_EVENTS, TopicNames
from tests.simulation.history.ports import SimulatedFeed, SimulatedMembership
from tests.simulation.history.shelf import Shelf, SimulatedTables, TableWeather
from tests.simulation.history.traffic import CODEC, DEAD, Traffic

START_US = 1_790_000_000_000_000
STORM_US = 45_000_000
#: How long everything may take to come to rest after the storm.
CALM_US = 600_000_000
#: What comes late may come so late; and how much shorter than in life leases and waits are.
LATE_US = 60_000_000
UNITS = 3
SHORT = {"lease_s": 10.0, "age_s": 1.0, "shared_age_s": 0.5}
STEPS_MAX = 3_000_000


class Process:
    """A sink."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.loop = ProcessLoop(world.scheduler, name)  # type: ignore[abstract]  # it has what the sink uses
        self.member = Member(name=name, loop=self.loop)
        self.sink: Sinking | None = None
        self.main = self.loop.create_task(self._run())

    async def _run(self) -> None:
        world, loop = self.world, self.loop

        async def open_feed() -> SimulatedFeed:
            return SimulatedFeed(world.broker, loop, world.traffic)

        async def in_thread(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
            await asyncio.sleep(0)
            return function(*arguments, **options)

        def membership(count: int) -> Membership:
            return Everything(count) if world.alone else SimulatedMembership(world.group, self.member)

        def clock() -> datetime:
            return from_micros(world.scheduler.now_us)

        def open_log(number: int) -> FencedLog:
            port = SimulatedLog(world.broker, loop, BLOCKS, number)
            return FencedLog(None, CODEC, topic=BLOCKS, partition=number, owner=self.name, port=port, clock=clock)

        ports = Ports(
            names=TopicNames(), codec=CODEC, owner=self.name, tables=SimulatedTables(world.shelf, loop), open_feed=open_feed,
            open_log=open_log, membership=membership, in_thread=in_thread, alone=world.alone,
        )  # fmt: skip
        self.sink = Sinking(ports)
        await self.sink.run()


class World:
    """Runs one seed."""

    def __init__(self, seed: int, *, trace: Callable[[str], None] | None = None, change: Callable[[World], None] | None = None) -> None:
        """In a third of the runs the topic of events is deleted and made again, once or twice."""
        self.scheduler = Scheduler(seed, start_us=START_US)
        random = self.random = self.scheduler.random.random
        self.broker = SimulatedBroker(self.scheduler, stormy(random))
        self.traffic = Traffic(self.broker, rate_us=int(10 ** (5 + random())))
        self.traffic.cluster[BLOCKS] = UNITS
        away = START_US + int(random() * STORM_US)
        weather = TableWeather(
            slow_us=int(10 ** (4 + 2.5 * random())), failed=0.2 * random() ** 2, unknown=0.2 * random() ** 2, late=0.2 * random() ** 2,
            away=(away, away + int(random() * 30_000_000)) if random() < 0.4 else (0, 0),
        )  # fmt: skip
        self.shelf = Shelf(self.broker, weather, self.traffic.good, random_of(f"tables {seed}"))
        self.group = SimulatedGroup(self.broker, UNITS, doubles=0.2 if random() < 0.3 else 0.0)
        self.alone = random() < 0.25
        # Drawn by another hand, so that what the others are is the same as in runs without it.
        other = random_of(f"remade {seed}")
        self.remade = sorted(int(other.random() * STORM_US) for _ in range(other.choice((0, 0, 1, 2))))
        if self.remade and self.alone:
            weather.late = 0.0  # what an engine in the same process does is done before it answers
        self.processes: dict[str, Process] = {}
        self.outcome = Outcome(seed=seed)
        self.counts: Counter[str] = Counter()
        self._storm = True
        self._dead: list[Process] = []
        self._trace = trace
        self.broker.on_stored = self._stored
        if trace is not None:
            self.broker.trace = lambda who, what: self.tell(who, what)
        if change is not None:
            change(self)

    def tell(self, who: str, what: str) -> None:
        """A line of the trace."""
        if self._trace is not None:
            self._trace(f"{(self.scheduler.now_us - START_US) / 1e6:10.4f} {who}: {what}")

    def run(self) -> Outcome:
        """The storm, the calm, the count."""
        self.traffic.begin()
        for number in range(1 if self.alone else 2 + int(self.random() * 2)):
            self._start(f"sink-{number}")
        self._plan_troubles()
        self.scheduler.run_until(lambda: False, limit_us=START_US + STORM_US, steps_max=STEPS_MAX)
        self._calm()
        end = self.scheduler.now_us + CALM_US
        rested = self.scheduler.run_until(self._complete, limit_us=end, steps_max=STEPS_MAX)
        # What is on its way still arrives: nothing may come twice for it.
        self.scheduler.run_until(lambda: False, limit_us=self.scheduler.now_us + LATE_US, steps_max=STEPS_MAX)
        self._judge(rested)
        self.scheduler.put_away([process.loop for process in (*self.processes.values(), *self._dead)])
        outcome = self.outcome
        outcome.steps, outcome.virtual_s = self.scheduler.steps, (self.scheduler.now_us - START_US) / 1e6
        outcome.counts = dict(sorted((self.counts + self.shelf.totals).items()))
        return outcome

    # -- troubles

    def _start(self, name: str) -> None:
        process = self.processes[name] = Process(self, name)
        if self._storm and self.random() < 0.7:
            process.loop.steps_left = int(10 ** (1 + 3.2 * self.random()))
            process.loop.on_crash = partial(self._crashed, process)
        self.counts["starts"] += 1

    def _crashed(self, process: Process) -> None:
        if self.processes.get(process.name) is not process:
            return
        self.tell(process.name, "killed")
        if self.remade and self.alone:
            self.shelf.connections += 1  # what was under way in its engine died with it
        self.counts["kills"] += 1
        self._dead.append(process)
        self.group.heartbeat_lost(process.member)
        self.scheduler.at(int(self.random() * 8_000_000), partial(self._restart, process))

    def _restart(self, process: Process) -> None:
        if not self.scheduler.over and self.processes.get(process.name) is process:
            self._start(process.name)

    def _plan_troubles(self) -> None:
        for _ in range(int(self.random() * 6)):
            self.scheduler.at(int(self.random() * STORM_US), self._stop_one)
        for _ in range(int(self.random() * 8)):
            self.scheduler.at(int(self.random() * STORM_US), self._retain)
        if self.random() < 0.3:
            self.scheduler.at(int(self.random() * STORM_US), self._lose_blocks)
        for at in self.remade:
            self.scheduler.at(at, self._remake)

    def _remake(self) -> None:
        self.tell("broker", f"{SYSTEM_EVENTS} is deleted and made again")
        self.traffic.remake(SYSTEM_EVENTS)
        self.counts["remade"] += 1

    def _stop_one(self) -> None:
        running = [process for process in self.processes.values() if process.loop.life is Life.RUNNING]
        # A sink that has its folder to itself is alone in truth: nobody begins while it sleeps.
        if not running:
            return
        process = running[int(self.random() * len(running))]
        process.loop.stop_running()
        self.counts["stops"] += 1
        self.group.heartbeat_lost(process.member)

        def go_on() -> None:
            process.loop.go_on()
            if process.loop.life is Life.RUNNING:
                self.group.woke(process.member)

        self.scheduler.at(int(10 ** (5 + 2.8 * self.random())), go_on)

    def _retain(self) -> None:
        partition = int(self.random() * 2)
        end = self.broker.partition(COMPOSITES, partition).end
        self.broker.retain(COMPOSITES, partition, int(end * self.random()))
        self.counts["retained"] += 1

    def _lose_blocks(self) -> None:
        """The log of blocks is deleted and made anew, with every sink down and no insert under way."""
        self.shelf.connections += 1
        for process in list(self.processes.values()):
            if process.loop.life is not Life.DEAD:
                process.loop.kill()
                if process.loop.on_crash is None:
                    self._crashed(process)
        for number in range(UNITS):
            self.broker.partitions.pop((BLOCKS, number), None)
        self.traffic.all.update({(BLOCKS, number): [] for number in range(UNITS)})
        self.counts["blocks lost"] += 1

    def _calm(self) -> None:
        self._storm = self.traffic.on = False
        self.broker.weather = self.broker.weather.calm()
        self.shelf.weather = TableWeather(slow_us=10_000)
        self.group.doubles = 0.0
        self.group.rebalance()  # what was given to two of them is given to one
        for process in self.processes.values():
            process.loop.steps_left = None
            process.loop.on_crash = None

    # -- what must be true

    def _stored(self, topic: str, partition: int) -> None:
        if topic != BLOCKS:
            return
        stored = self.broker.partition(topic, partition).records[-1]
        self.traffic.all[topic, partition].append(stored)
        for stored in self.broker.partition(topic, partition).records[-20:]:
            if dict(stored.headers).get("ce_type") == BLOCK_INSERTED.encode():
                note = CODEC.decode(stored.value)
                assert isinstance(note, Inserted)
                place = (note.topic, note.partition)
                # Rows of an earlier topic of the name may have been set aside.
                places = [place, *(of for of in self.traffic.all if of[0].startswith(f"{place[0]}@") and of[1] == place[1])]
                offsets = range(note.first_offset, note.end_offset)
                missing = [at for at in offsets if not any(self.shelf.count[of, at] for of in places)]
                if missing:
                    self._violated("noted", f"{place} {note.first_offset}–{note.end_offset} is noted as inserted without {missing[:3]}")

    def _complete(self) -> bool:
        for place in [place for place in self.traffic.all if place[0] != BLOCKS and "@" not in place[0]]:
            partition = self.broker.partition(*place)
            if any(not self.shelf.count[place, offset] for offset in range(partition.first, partition.end)):
                return False
        return all(process.loop.life is Life.RUNNING for process in self.processes.values())

    def _judge(self, rested: bool) -> None:
        for process in (*self.processes.values(), *self._dead):
            for fault in process.loop.faults:
                self._violated("alive", f"{process.name}: {fault!r}")
        for name, process in self.processes.items():
            if process.main.done():
                self._violated("alive", f"{name} ended: {process.main.exception()!r}")
            elif rested and process.sink is not None and process.sink.status().behind:
                self._violated("told", f"{name} says that it is {process.sink.status().behind} behind")
        for (place, offset), count in self.shelf.count.items():
            if count > 1:
                self._violated("once", f"{place} {offset} has {count} rows")
        for (place, offset), table in self.traffic.expected().items():
            found = self.shelf.table_of.get((place, offset))
            if "@" in place[0]:
                if found is None:
                    continue  # its topic was deleted before it was read
            elif offset < self.broker.partition(*place).first:
                continue  # it may have been deleted before it was read
            if found is None:
                self._violated("whole", f"{place} {offset} has no row")
            elif found != table:
                self._violated("right", f"{place} {offset} is in {found}, not in {table}")
        self._judge_ids()
        self.counts["offsets"] = sum(self.shelf.count.values())

    def _judge_ids(self) -> None:
        """A row is of the record at its place, not of one of an earlier or later topic of the name."""
        for place, records in self.traffic.all.items():
            ids = self.shelf.ids.get(place, {})
            for stored in records:
                if stored.offset in ids and place[0] != DEAD and ids[stored.offset] != body_id(stored.value or b""):
                    self._violated("own", f"{place} {stored.offset} is a record of another topic")
        for place, ids in self.shelf.ids.items():
            if (strange := ids.keys() - {stored.offset for stored in self.traffic.all.get(place, ())}) and place[0] != BLOCKS:
                self._violated("own", f"{place} has rows of offsets that it never had: {sorted(strange)[:3]}")

    def _violated(self, invariant: str, message: str) -> None:
        if len(self.outcome.violations) < 20:
            self.outcome.violations.append((invariant, message))


def run_history(seed: int, **options: Any) -> Outcome:
    """Runs one seed; see `World`."""
    with (
        patch.object(block_log, "LEASE_S", SHORT["lease_s"]),
        patch.object(block_log, "INSERT_SECONDS_MAX", 0),  # an insert is done in no time when it reaches the tables
        patch.object(session, "AGE_S", SHORT["age_s"]),
        patch.object(session, "SHARED_AGE_S", SHORT["shared_age_s"]),
        patch.object(unit, "AGE_S", SHORT["age_s"]),
    ):
        world = World(seed, **options)
        with logs_to((lambda line: world.tell("sink", line)) if options.get("trace") else None):
            return world.run()
