"""One run under a seed: a scenario is drawn, troubles happen for a while, then all is calm and everything must come to its end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from streams import limits, topics
from streams.codec.avro import Codec
from streams.log.fenced import FencedLog
from streams.log.lanes import Checkpointing
from streams.log.types import Send
from streams.records import Record
from streams.testing.simulation.broker import BrokerError, SimulatedBroker, Weather, stormy
from streams.testing.simulation.client import Client
from streams.testing.simulation.group import InstanceFenced, SimulatedGroup
from streams.testing.simulation.logs import logs_to
from streams.testing.simulation.loop import Life, Scheduler
from streams.testing.simulation.machines import answer
from streams.testing.simulation.oracle import Oracle
from streams.testing.simulation.ports import MemoryCodec
from streams.testing.simulation.process import LOG_TOPICS, Process, Watch
from streams.testing.simulation.quiet import differences, fold_differs, owners_of, unfinished

START_US = 1_767_225_600_000_000
#: How long everything may take to come to its end once all is calm: time-outs of appends, sessions, retries.
CALM_US = 300_000_000
STEPS_MAX = 400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What a seed makes of a run; times in microseconds."""

    partitions: int
    processes: int
    flows: int
    storm_us: int
    weather: Weather
    crashes: float  #: chance that a process gets a planned crash when it starts
    stops: float  #: mean stops per process and second
    terminations: float  #: mean orderly ends per process and second
    rebalances: float  #: mean needless rebalances per second
    doubles: float  #: chance that a partition is given to a second member as well
    retention: bool  #: inboxes lose what was handled
    prepares: bool
    checkpointing: Checkpointing
    resting: bool = False  #: some counters stay for ever, and leave memory
    codec: Callable[[], Codec] = MemoryCodec

    @classmethod
    def drawn(cls, random: Callable[[], float]) -> Scenario:
        """A random one: each trouble is there or not, so that runs differ in kind and not only in degree."""

        def rate(most: float, share: float = 0.5) -> float:
            return most * random() if random() < share else 0.0

        drawn = cls(
            partitions=1 + int(random() * random() * 4), processes=1 + int(random() * 3), flows=2 + int(random() * 5),
            storm_us=int(2_000_000 + random() * 14_000_000), weather=stormy(random),
            crashes=rate(0.9, 0.6), stops=rate(0.4), terminations=rate(0.2, 0.3), rebalances=rate(0.6, 0.4), doubles=rate(0.8, 0.3),
            retention=random() < 0.3, prepares=random() < 0.2,
            checkpointing=Checkpointing(records=int(2 + 60 * random() ** 2), interval_ms=int(100 + 6000 * random())),
        )  # fmt: skip
        drawn = drawn.with_some_at_rest() if drawn.checkpointing.interval_ms % 3 == 0 else drawn
        # With ever so few records most runs would wait for checkpoints most of the time, and little would happen beside them.
        behind_max = limits.CHECKPOINTS_BEHIND_MAX if drawn.flows == 3 else 10**6
        return replace(drawn, checkpointing=replace(drawn.checkpointing, behind_max=behind_max))

    def with_some_at_rest(self) -> Scenario:
        """The same, with counters that stay; there is room in memory for none of them, or a few, and it is made often."""
        often = replace(self.checkpointing, records=2, interval_ms=50 + self.checkpointing.interval_ms % 300)
        return replace(self, resting=True, checkpointing=replace(often, live_bytes=self.checkpointing.interval_ms % 200))


@dataclass(slots=True)
class Outcome:
    """How a run ended."""

    seed: int
    violations: list[tuple[str, str]] = field(default_factory=list)  #: (invariant, message)
    steps: int = 0
    virtual_s: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    digest: str = ""  #: of all records of all topics: equal for equal seeds

    @property
    def ok(self) -> bool:
        """Whether nothing was violated."""
        return not self.violations


class World(Watch):
    """Runs one seed."""

    def __init__(
        self, seed: int, *, trace: Callable[[str], None] | None = None, change: Callable[[Scenario], Scenario] | None = None
    ) -> None:
        self.scheduler = Scheduler(seed, start_us=START_US)
        self.random = self.scheduler.random.random
        scenario = Scenario.drawn(self.random)
        self.scenario = change(scenario) if change is not None else scenario
        self.outcome = Outcome(seed)
        self.codec = self.scenario.codec()
        self.calm = False
        self._trace = trace
        self.broker = SimulatedBroker(
            self.scheduler, self.scenario.weather, append_time=(topics.COMMANDS, topics.REQUESTS, topics.RESPONSES)
        )
        self.oracle = Oracle(self.codec, self.scenario.partitions, self.violate, resting=self.scenario.resting)
        self.broker.on_stored = self._stored
        if trace is not None:
            self.broker.trace = self.tell
        self._ends: dict[tuple[str, int], int] = {}
        self.group = SimulatedGroup(self.broker, self.scenario.partitions, doubles=self.scenario.doubles)
        self.processes: dict[str, Process] = {}
        self.all: list[Process] = []
        self.client = Client(self.scheduler, self.broker, self.codec, self.scenario.partitions, self.scenario.flows)
        self.silent: dict[str, int] = {}  #: requests to somebody outside who never answers

    def tell(self, who: str, what: str) -> None:
        """A line of the trace."""
        if self._trace is not None:
            self._trace(f"{(self.scheduler.now_us - START_US) / 1e6:11.6f} {who:12} {what}")

    def violate(self, invariant: str, message: str) -> None:
        """Something is wrong: the run ends."""
        self.tell("VIOLATION", f"{invariant}: {message}")
        self.outcome.violations.append((invariant, message))

    def run(self) -> Outcome:
        """Runs to the end."""
        scenario, outcome, scheduler = self.scenario, self.outcome, self.scheduler
        self.tell("world", str(scenario))
        for number in range(scenario.processes):
            self._start(f"host-{number}")
        self.client.begin(scenario.storm_us)
        self._trouble(scenario)
        try:
            storm_end = START_US + scenario.storm_us
            scheduler.run_until(lambda: bool(outcome.violations), limit_us=storm_end, steps_max=STEPS_MAX)
            if outcome.ok:
                scheduler.now_us = storm_end
                self._heal()
                self._await_rest(storm_end + CALM_US)
        except RuntimeError as error:
            self.violate("comes-to-rest", str(error))
        outcome.steps = scheduler.steps
        outcome.virtual_s = (scheduler.now_us - START_US) / 1e6
        outcome.digest = self._digest()
        outcome.counts = self._counts()
        scheduler.put_away([process.loop for process in self.all])
        return outcome

    def _await_rest(self, limit_us: int) -> None:
        scheduler, outcome = self.scheduler, self.outcome
        look = {"at": scheduler.now_us}

        def done() -> bool:
            if outcome.violations:
                return True
            if scheduler.now_us < look["at"]:
                return False
            look["at"] = scheduler.now_us + 1_000_000
            return not unfinished(self)

        if not scheduler.run_until(done, limit_us=limit_us, steps_max=STEPS_MAX):
            self.violate("comes-to-rest", "; ".join(unfinished(self)) or "nothing is left to happen")
        elif outcome.ok:
            for invariant, message in differences(self):
                self.violate(invariant, message)

    # --- troubles ---------------------------------------------------------------------------------------------------

    def _start(self, name: str) -> None:
        scenario = self.scenario
        process = Process(
            name, broker=self.broker, group=self.group, codec=self.codec, partitions=scenario.partitions, watch=self,
            skew_us=int((self.random() - 0.5) * 100_000), prepares=scenario.prepares,
            checkpointing=scenario.checkpointing, resting=scenario.resting,
        )  # fmt: skip
        self.processes[name] = process
        self.all.append(process)
        self.tell(name, f"starts as process {process.loop.number}")
        process.loop.on_crash = lambda: self._crashed(process)
        if not self.calm and self.random() < scenario.crashes:
            process.loop.steps_left = int(10 ** (0.5 + 3.2 * self.random()))

    def _crashed(self, process: Process) -> None:
        self.tell(process.name, f"process {process.loop.number} is killed")
        self._after_end(process)

    def _after_end(self, process: Process) -> None:
        self.group.heartbeat_lost(process.member)
        if self.processes.get(process.name) is process:
            delay = self.random() ** 2 * (8_000_000 if not self.calm else 1_000_000)
            self.scheduler.at(int(delay), lambda: self._start(process.name))

    def ended(self, process: Process, error: BaseException | None) -> None:
        """See `Watch.ended`."""
        self.tell(process.name, f"process {process.loop.number} ends: {error!r}")
        if error is not None and not isinstance(error, (BrokerError, InstanceFenced)):
            self.violate("no-defect", repr(error))
        process.loop.life = Life.DEAD
        self._after_end(process)

    def _trouble(self, scenario: Scenario) -> None:
        """Plans what happens at moments drawn beforehand."""
        seconds = scenario.storm_us / 1e6

        def often(rate: float, what: Callable[[], None]) -> None:
            for _ in range(int(rate * seconds + self.random())):
                self.scheduler.at(int(self.random() * scenario.storm_us), what)

        often(scenario.stops * scenario.processes, self._stop_one)
        often(scenario.terminations * scenario.processes, self._terminate_one)
        often(scenario.rebalances, self.group.rebalance)
        if scenario.retention:
            often(0.5, self._retain)
        often(0.3, self._compact)

    def _one(self) -> Process | None:
        running = [process for process in self.processes.values() if process.loop.life is Life.RUNNING]
        return running[int(self.random() * len(running))] if running else None

    def _stop_one(self) -> None:
        process = self._one()
        if process is None or self.calm:
            return
        length = int(10 ** (3 + 4.2 * self.random()))
        self.tell(process.name, f"process {process.loop.number} is stopped for {length / 1e6:.3f} s")
        process.loop.stop_running()
        self.group.heartbeat_lost(process.member)
        self.scheduler.at(length, lambda: self._continue(process))

    def _continue(self, process: Process) -> None:
        if process.loop.life is Life.STOPPED:
            self.tell(process.name, f"process {process.loop.number} goes on")
            process.loop.go_on()
            self.group.woke(process.member)

    def _terminate_one(self) -> None:
        process = self._one()
        if process is not None and not self.calm:
            self.tell(process.name, f"process {process.loop.number} is asked to end")
            process.terminate()

    def _retain(self) -> None:
        for (_, partition), lane in self.oracle.lanes.items():
            for topic, offset in lane.handled.items():
                if topic not in LOG_TOPICS:
                    self.broker.retain(topic, partition, offset + 1)

    def _compact(self) -> None:
        for partition in range(self.scenario.partitions):
            for topic in (topics.WORKFLOW_SNAPSHOTS, topics.MODULE_SNAPSHOTS):
                self.broker.compact(topic, partition)

    def _heal(self) -> None:
        self.tell("world", "all is calm")
        self.calm = True
        self.broker.weather = self.broker.weather.calm()
        self.group.doubles = 0.0
        for process in list(self.processes.values()):
            process.loop.steps_left = None
            self._continue(process)
        for process in self.all:
            process.loop.steps_left = None
        self.group.rebalance()

    # --- watching ---------------------------------------------------------------------------------------------------

    def _stored(self, topic: str, number: int) -> None:
        partition = self.broker.partition(topic, number)
        known = self._ends.get((topic, number), 0)
        self._ends[topic, number] = partition.end
        self.oracle.stored(topic, number, partition.records[-(partition.end - known) :])

    def took_over(self, process: Process, partition: int, logs: Mapping[str, FencedLog], ends: Mapping[str, int]) -> None:
        """See `Watch.took_over`."""
        self.tell(process.name, f"has taken over {partition}: " + ", ".join(f"{topic}#{log.epoch}" for topic, log in logs.items()))
        epochs = {topic: log.epoch for topic, log in logs.items()}
        self.oracle.took_over(partition, epochs, ends, logs[topics.MESSAGES].next_offset)
        for lane in process.runners[partition]._owned.lanes.values():
            # Nobody has appended since: what it knows is what the log says, whether it began with a checkpoint or not.
            if lane.log.next_offset == self.broker.partition(lane.log.topic, partition).end:
                for invariant, message in (*fold_differs(self, lane.fold), *self.oracle.positions_differ(lane.fold)):
                    self.violate(invariant, f"after a takeover: {message}")

    def acknowledged(self, log: FencedLog, offset: int, count: int) -> None:
        """See `Watch.acknowledged`."""
        self.oracle.acknowledged(log.topic, log.partition, offset, count)

    def effect(self, process: Process, effect: Send) -> None:
        """See `Watch.effect`."""
        self.tell(process.name, f"performs {effect.record.type} {effect.record.id[:8]} for {effect.key}")
        self.oracle.effect(effect.key, effect.topic, effect.record)

    def outside(self, record: Record) -> None:
        """See `Watch.outside`: answers late, twice, or not at all."""
        asked: Any = record
        self.silent[record.id] = self.silent.get(record.id, 0) + 1
        if asked.operation == "silent" or self.random() < 0.2:
            return
        response = answer(asked, 0, "success", asked.attempt)
        for _ in range(1 + (self.random() < 0.2)):
            delay = int(10 ** (3 + 3.7 * self.random()))
            self.scheduler.at(delay, lambda: self.client.put(topics.RESPONSES, asked.reply_to, response))

    # --- the end ----------------------------------------------------------------------------------------------------

    def _digest(self) -> str:
        text = hashlib.sha256()
        for (topic, number), records in sorted(self.oracle.records.items()):
            for record in records:
                headers = dict(record.headers)
                kept = (topic, number, record.offset, record.timestamp_ms, record.key, headers.get("ce_type"), headers.get("mplp_epoch"))
                text.update(repr(kept).encode())
        text.update(f"{self.scheduler.steps} {self.scheduler.now_us}".encode())
        return text.hexdigest()[:16]

    def _counts(self) -> dict[str, int]:
        lanes = self.oracle.lanes.values()
        verdicts = [verdict for lane in lanes for verdict in lane.verdicts]
        found = {verdict: verdicts.count(verdict) for verdict in ("valid", "void", "fence", "ignored", "repeat", "position")}
        owners = [owner for partition in range(self.scenario.partitions) for owner in owners_of(self, partition)]
        resting = sum(len(lane.fold.view.resting) for owner in owners for lane in owner._owned.lanes.values())
        return found | {"processes": len(self.all), "effects": self.oracle.performances, "resting": resting}


def run_seed(seed: int, **options: Any) -> Outcome:
    """Runs one seed; see `World`."""
    world = World(seed, **options)
    with logs_to((lambda line: world.tell("kernel", line)) if options.get("trace") else None):
        return world.run()


__all__ = ["Outcome", "Scenario", "World", "run_seed"]
