"""One run of the stages under a seed: workers, troubles for a while, then calm, in which everything that is due must be said."""

from __future__ import annotations

import hashlib
from asyncio import events
from collections import Counter
from collections.abc import Callable
from typing import Any

from streams.codec.avro import SchemaIds
from streams.log.fenced import UnknownOutcome
from streams.settings import Settings
from streams.testing.simulation.broker import BrokerError, SimulatedBroker
from streams.testing.simulation.group import InstanceFenced
from streams.testing.simulation.logs import logs_to
from streams.testing.simulation.loop import Life, ProcessLoop, Scheduler, clock_of
from streams.testing.simulation.stages.clients import RememberingCodec
from streams.testing.simulation.stages.group import StageGroup
from streams.testing.simulation.stages.process import StageProcess, Surroundings
from streams.testing.simulation.stages.scenario import StageScenario
from streams.testing.simulation.stages.sources import Sources
from streams.testing.simulation.stages.verdict import closing_us, differences, unmatched, unsaid
from streams.testing.simulation.stages.watch import StageWatch
from streams.testing.simulation.world import CALM_US, START_US, Outcome
from streams.topics import (
    CATALOGUE,
    COMMANDS,
    COMPOSITES,
    CONTROL_RULES,
    CONTROL_WORKFLOWS,
    DEAD_LETTER_SUFFIX,
    DELIVERIES,
    INTERNAL_SNAPSHOTS,
    MATCHES,
    SYSTEM_EVENTS,
    TRANSITIONS,
    WORKFLOW_SNAPSHOTS,
)

STEPS_MAX = 2_000_000
#: The schemas do not change during a run, and compiling them costs more than one.
_CODEC = RememberingCodec(SchemaIds.local())
_SETTINGS = Settings(webhook_attempts=3, webhook_retry_ms=100)


class StageWorld:
    """Runs one seed."""

    def __init__(
        self, seed: int, *, trace: Callable[[str], None] | None = None, change: Callable[[StageScenario], StageScenario] | None = None
    ) -> None:
        self.scheduler = Scheduler(seed, start_us=START_US)
        self.random = self.scheduler.random.random
        scenario = StageScenario.drawn(self.random)
        self.scenario = scenario = change(scenario) if change is not None else scenario
        self.outcome = Outcome(seed)
        self.calm = False
        self._trace = trace
        by_broker = [topic.name for topic in CATALOGUE if topic.log_append_time]
        self.broker = SimulatedBroker(self.scheduler, scenario.weather, append_time=by_broker)
        self.broker.on_stored = self._stored
        if trace is not None:
            self.broker.trace = self.tell
        self._ends: dict[tuple[str, int], int] = {}
        self.partitions = {
            SYSTEM_EVENTS: scenario.sources, SYSTEM_EVENTS + DEAD_LETTER_SUFFIX: scenario.sources, TRANSITIONS: 1, WORKFLOW_SNAPSHOTS: 1,
            MATCHES: scenario.partitions, COMPOSITES: scenario.partitions, INTERNAL_SNAPSHOTS: scenario.partitions,
            CONTROL_RULES: 1, CONTROL_WORKFLOWS: 1, COMMANDS: 1, DELIVERIES: 1, COMPOSITES + DEAD_LETTER_SUFFIX: 1,
        }  # fmt: skip
        self.group = StageGroup(
            self.broker,
            [(topic, number) for topic in (SYSTEM_EVENTS, TRANSITIONS, MATCHES, COMPOSITES) for number in range(self.partitions[topic])],
            doubles=scenario.doubles,
        )
        self.watch = StageWatch(_CODEC, scenario.partitions, self.violate)
        changed = {rule_id for _, rule_id, _ in scenario.changes}
        self.watch.fixed = self.watch.chain.fixed = frozenset(document["id"] for document in scenario.rules) - changed
        self.watch.changing = bool(changed)
        self.sources = Sources(self.broker, _CODEC, scenario, START_US)
        self._around = Surroundings(
            broker=self.broker, group=self.group, codec=_CODEC, settings=_SETTINGS, partitions=self.partitions, scenario=scenario,
            trouble=lambda: 0.0 if self.calm else scenario.calls, called=self.watch.acts.called,
        )  # fmt: skip
        self.processes: dict[str, StageProcess] = {}
        self.all: list[StageProcess] = []

    def tell(self, who: str, what: str) -> None:
        """A line of the trace."""
        if self._trace is not None:
            self._trace(f"{(self.scheduler.now_us - START_US) / 1e6:11.6f} {who:12} {what}")

    def violate(self, invariant: str, message: str) -> None:
        """Something is wrong: the run ends."""
        self.tell("VIOLATION", f"{invariant}: {message}")
        self.outcome.violations.append((invariant, message))

    # --- the run ----------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Runs to the end."""
        scenario, outcome, scheduler = self.scenario, self.outcome, self.scheduler
        self.tell("world", str(scenario))
        self.sources.begin()
        for number in range(scenario.workers):
            self._start(f"worker-{number}")
        self._trouble()
        try:
            storm_end = START_US + scenario.storm_us
            scheduler.run_until(lambda: bool(outcome.violations), limit_us=storm_end, steps_max=STEPS_MAX)
            scheduler.now_us = max(scheduler.now_us, storm_end)
            if outcome.ok:
                self._heal()
                self._finish()
        except RuntimeError as error:
            self.violate("comes-to-rest", str(error))
        outcome.steps = scheduler.steps
        outcome.virtual_s = (scheduler.now_us - START_US) / 1e6
        outcome.digest = self._digest()
        outcome.counts = self._counts()
        scheduler.put_away([process.loop for process in self.all])
        _CODEC.forget()
        return outcome

    def _finish(self) -> None:
        """All records are matched; then time moves on; then all that is due must be said."""
        self._await(lambda: unmatched(self))
        if self.outcome.ok:
            end_us = closing_us(self)
            self.tell("world", f"closes at {end_us}")
            self.sources.close(end_us)
            self._await(lambda: unmatched(self) or unsaid(self, end_us))
        if self.outcome.ok:
            for invariant, message in differences(self, end_us):
                self.violate(invariant, message)

    def _await(self, unfinished: Callable[[], list[str]]) -> None:
        scheduler, outcome = self.scheduler, self.outcome
        look_us = scheduler.now_us

        def done() -> bool:
            nonlocal look_us
            if outcome.violations:
                return True
            if scheduler.now_us < look_us:
                return False
            look_us = scheduler.now_us + 200_000
            return not unfinished()

        if not scheduler.run_until(done, limit_us=scheduler.now_us + CALM_US, steps_max=STEPS_MAX):
            self.violate("comes-to-rest", "; ".join(unfinished()) or "nothing is left to happen")

    # --- troubles ---------------------------------------------------------------------------------------------------

    def _start(self, name: str) -> None:
        process = StageProcess(name, self._around, self._ended)
        self.processes[name] = process
        self.all.append(process)
        self.tell(name, f"starts as process {process.loop.number}")
        process.loop.on_crash = lambda: self._crashed(process)
        if not self.calm and self.random() < self.scenario.crashes:
            process.loop.steps_left = int(10 ** (1 + 3.3 * self.random()))

    def _crashed(self, process: StageProcess) -> None:
        self.tell(process.name, f"process {process.loop.number} is killed")
        self._after_end(process)

    def _ended(self, process: StageProcess, error: BaseException | None) -> None:
        self.tell(process.name, f"process {process.loop.number} ends: {error!r}")
        if error is not None and not _is_trouble(error):
            self.violate("no-defect", repr(error))
        process.loop.life = Life.DEAD
        self._after_end(process)

    def _after_end(self, process: StageProcess) -> None:
        for feed in process.feeds:
            self.group.heartbeat_lost(feed.member)
        if self.processes.get(process.name) is process:
            delay = self.random() ** 2 * (5_000_000 if not self.calm else 1_000_000)
            self.scheduler.at(int(delay), lambda: self._start(process.name))

    def _trouble(self) -> None:
        """Plans what happens at moments drawn beforehand."""
        scenario = self.scenario
        seconds = scenario.storm_us / 1e6

        def often(rate: float, what: Callable[[], None]) -> None:
            for _ in range(int(rate * seconds + self.random())):
                self.scheduler.at(int(self.random() * scenario.storm_us), what)

        often(scenario.stops * scenario.workers, self._stop_one)
        often(scenario.terminations * scenario.workers, self._terminate_one)
        often(scenario.rebalances, self.group.rebalance)
        often(0.5, self._compact)

    def _one(self) -> StageProcess | None:
        running = [process for process in self.processes.values() if process.loop.life is Life.RUNNING]
        return running[int(self.random() * len(running))] if running else None

    def _stop_one(self) -> None:
        process = self._one()
        if process is None or self.calm:
            return
        length = int(10 ** (3 + 4.2 * self.random()))
        self.tell(process.name, f"process {process.loop.number} is stopped for {length / 1e6:.3f} s")
        process.loop.stop_running()
        for feed in process.feeds:
            self.group.heartbeat_lost(feed.member)
        self.scheduler.at(length, lambda: self._continue(process))

    def _continue(self, process: StageProcess) -> None:
        if process.loop.life is Life.STOPPED:
            self.tell(process.name, f"process {process.loop.number} goes on")
            process.loop.go_on()
            for feed in process.feeds:
                self.group.woke(feed.member)

    def _terminate_one(self) -> None:
        process = self._one()
        if process is not None and not self.calm:
            self.tell(process.name, f"process {process.loop.number} is asked to end")
            process.terminate()

    def _compact(self) -> None:
        for topic in (INTERNAL_SNAPSHOTS, CONTROL_RULES):
            for number in range(self.partitions[topic]):
                self.broker.compact(topic, number)

    def _heal(self) -> None:
        self.tell("world", "all is calm")
        self.calm = True
        self.broker.weather = self.broker.weather.calm()
        self.group.doubles = 0.0
        for process in self.all:
            process.loop.steps_left = None
            self._continue(process)
        self.group.rebalance()

    # --- what came of it --------------------------------------------------------------------------------------------

    def _stored(self, topic: str, number: int) -> None:
        partition = self.broker.partition(topic, number)
        known = self._ends.get((topic, number), 0)
        self._ends[topic, number] = partition.end
        self.watch.stored(topic, number, partition.records[-(partition.end - known) :])

    def _digest(self) -> str:
        text = hashlib.sha256()
        for (topic, number), partition in sorted(self.broker.partitions.items()):
            for record in partition.records:
                headers: dict[str, Any] = dict(record.headers)
                text.update(repr((topic, number, record.offset, record.key, headers.get("ce_type"), headers.get("mplp_epoch"))).encode())
        text.update(f"{self.scheduler.steps} {self.scheduler.now_us}".encode())
        return text.hexdigest()[:16]

    def _counts(self) -> dict[str, int]:
        outcomes = Counter(outcome for fed in self.watch.fed.values() for outcome in fed.values())
        truths = self.watch.truths
        said = [composite for truth in truths for composite in truth.said]
        return {
            "processes": len(self.all), "matches": sum(truth.fold.counters.matches for truth in truths),
            "repeated": sum(truth.fold.counters.repeated for truth in truths), "used": outcomes["used"], "late": outcomes["late"],
            "composites": len(said), "revisions": sum(composite.revision > 0 for composite in said),
            "void": sum(truth.void for truth in truths), "takeovers": sum(truth.fences for truth in truths),
            "read": sum(map(len, self.watch.chain.read.values())), **self.watch.acts.counts,
        }  # fmt: skip


def _is_trouble(error: BaseException) -> bool:
    """Whether the world, not the code, has ended a worker."""
    while error is not None:
        if isinstance(error, (BrokerError, InstanceFenced, ConnectionError, TimeoutError)):
            return True
        if isinstance(error, UnknownOutcome) and error.code == "log.contended":
            return True  # two owners met again and again
        error = error.__cause__  # type: ignore[assignment]  # the chain ends with None
    return False


def run_stages(seed: int, **options: Any) -> Outcome:
    """Runs one seed; see `StageWorld`."""
    world = StageWorld(seed, **options)
    with clock_of(world.scheduler), logs_to((lambda line: world.tell(_who(), line)) if options.get("trace") else None):
        return world.run()


def _who() -> str:
    """The process that runs just now."""
    loop = events._get_running_loop()
    return loop.name if isinstance(loop, ProcessLoop) else "world"
