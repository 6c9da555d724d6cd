"""What an execution is at a moment: the fold of its transitions. Times are microseconds since the epoch.

A step's state is kept under its *instance id*: the step's id, and for each turn around it the turn's number in brackets
(`review[2]`, `line[0][3]`). Steps that nothing has happened to have no state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from operator import attrgetter
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import orjson

from services.orchestrator.deadlines import Entry, step_timers
from streams.log.persistent import PersistentMap, SortedSet
from streams.records import ExecutionStatus, Json

T = TypeVar("T")

StepStatus: TypeAlias = Literal["pending", "scheduled", "running", "waiting", "completed", "failed", "timed_out", "skipped", "cancelled"]

#: Statuses after which a step changes only by a `retry` command.
ENDED: frozenset[StepStatus] = frozenset({"completed", "failed", "timed_out", "skipped", "cancelled"})
#: Statuses that let what depends on the step start.
ENDED_WELL: frozenset[StepStatus] = frozenset({"completed", "skipped"})
#: Statuses of a step that has begun, or is about to, and has not ended.
LIVE: frozenset[StepStatus] = frozenset({"scheduled", "running", "waiting"})
#: Statuses of a step that fails its list.
ENDED_BADLY: frozenset[StepStatus] = frozenset({"failed", "timed_out"})
#: Statuses after which an execution changes only by `retry` and `fork`.
TERMINAL: frozenset[ExecutionStatus] = frozenset({"completed", "failed", "cancelled", "timed_out"})

#: How an execution that cannot complete will end.
Ending: TypeAlias = Literal["failed", "cancelled", "timed_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """Why something failed: a stable code, a sentence, and whether another attempt may succeed."""

    code: str
    message: str
    retryable: bool = False

    def to_json(self) -> dict[str, Json]:
        """The error as it stands in records."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Error:
        """The error as `to_json` wrote it."""
        return cls(code=str(value.get("code", "")), message=str(value.get("message", "")), retryable=value.get("retryable") is True)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApproval:
    """A question to people: of an `approval` step, or of an escalated failure."""

    choices: tuple[str, ...]
    escalated: bool = False
    timed_out: bool = False  #: the escalated failure is a time-out
    deadline_us: int | None = None
    title: str = ""
    assignees: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """An aggregate of a module that is told what happens in an execution."""

    module: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """The turns of a `foreach` or `loop`, as far as its latest attempt has come."""

    items: Json = None  #: of a `foreach`: the list, also after its end, since compensations may refer to an item
    total: int | None = None  #: how many turns there will be; None: it is not known (`loop`)
    begun: int = 0
    most: int = 0  #: turns that had begun in an earlier attempt, if that were more: their steps may have a state
    running: PersistentMap[int, bool] = field(default_factory=PersistentMap)  #: numbers of the turns that have begun and not ended
    failed: str | None = None  #: the first step (instance) that failed a turn
    cut: bool = False  #: a turn ended with steps that were cancelled

    @property
    def ever(self) -> int:
        """How many turns may have left steps with a state."""
        return max(self.begun, self.most)

    def over(self) -> Turns:
        """What is left of them when the container is to begin anew."""
        return Turns(items=self.items, total=self.total, most=self.ever)


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """The child workflow of an attempt that has not told its outcome yet."""

    attempt: int
    definition_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The attempt of a `workflow` step that an execution is the child of."""

    execution_id: str
    step_id: str
    attempt: int
    depth: int  #: workflows around the child

    def to_json(self) -> dict[str, Json]:
        """The parent as it stands in records."""
        return {"execution_id": self.execution_id, "step_id": self.step_id, "attempt": self.attempt, "depth": self.depth}


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A signal that came before a step waited for it."""

    name: str
    data: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """An execution that was forked off, and of which nobody has said that it is known where it belongs."""

    id: str
    definition_hash: str
    step: str
    steps: tuple[str, ...]  #: instances whose results it takes over
    time_us: int
    own_input: bool = False  #: it has an input of its own, else ours
    input: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepState:
    """One step (instance) of an execution."""

    status: StepStatus = "pending"
    attempt: int = 0  #: attempts begun; never goes back
    attempts_before: int = 0  #: attempts that belong to an earlier life (before a human's or a command's retry)
    begun_us: int | None = None  #: when this life began; the time-out counts from here
    attempt_us: int = 0  #: when the attempt began
    timeout_us: int | None = None  #: end of all attempts and delays
    attempt_timeout_us: int | None = None
    silent_us: int | None = None  #: when the running attempt has been silent for too long; None: it does not tell that it lives
    heartbeat_ms: int = 0  #: how long it may be silent
    details: Json = None  #: what its latest heartbeat told; the next attempt gets it
    wake_us: int | None = None  #: next attempt, or end of a `wait`
    timer_set_us: int = 0  #: when `wake_us` was set
    movable: bool = True  #: whether a pause moves `wake_us` (`until` does not move)
    module: str = ""
    operation: str = ""
    parameters: Json = None  #: as resolved for the attempt; kept while it runs
    branch: str = ""  #: of a conditional: `then` or `else`, empty: none
    fallback: int | None = None  #: index of the `run-step` fallback that runs
    approval: OpenApproval | None = None
    approval_answered: bool = False
    answered: tuple[int, ...] = ()  #: attempts whose answer is in the log
    children: tuple[Child, ...] = ()  #: of a `workflow` step: attempts whose child has not told its outcome
    signal: str = ""  #: of a `signal` step: the name that it waits for
    taken_over: bool = False  #: it ended in another execution, from which this one was forked: it is not undone here
    result: Json = None
    turns: Turns | None = None  #: of a `foreach` or `loop` that has begun
    gathered: Mapping[str, Any] | None = None  #: of a container: how its result is made of its children's (`results.gather`)
    error: Error | None = None
    ended_us: int = 0
    ended_sequence: int = 0  #: sequence of the event that ended it: the order of completion
    compensation: Literal["", "running", "completed", "failed"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """A system event that an `emit` step published: a new owner publishes it again, under the same id."""

    instance: str
    attempt: int
    event: Json
    time_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One workflow execution."""

    id: str
    workflow_id: str
    workflow_version: str
    definition_hash: str
    tenant: str
    correlation_id: str
    status: ExecutionStatus
    started_us: int
    sequence: int  #: of its last event
    told: int = 0  #: how many of its events monitors are told of, see `QUIET`
    input: Json = None
    event: Json = None  #: the record that a trigger started it with
    trigger_depth: int = 0  #: triggers and actions of rules, each brought about by what the one before it did, up to this one
    timeout_us: int | None = None
    paused_us: int | None = None
    steps: PersistentMap[str, StepState] = field(default_factory=PersistentMap)
    #: Instances that are scheduled, running or waiting, each with the sequence of the event that made it so.
    live: PersistentMap[str, int] = field(default_factory=PersistentMap)
    #: Instances that failed or timed out and were not begun anew, each with the sequence of the event that told it.
    failed: PersistentMap[str, int] = field(default_factory=PersistentMap)
    #: Timers of the live steps that run: (due, kind, place among the live, instance), see `deadlines.Timer`.
    timers: SortedSet[Entry] = field(default_factory=SortedSet)
    continuing: Json = None  #: what is still to be done before any other input; see `continuation`
    doomed: Error | None = None  #: a `compensate` fallback failed the whole execution
    ending: Ending | None = None  #: set when the end is certain and only compensations may still run
    ending_error: Error | None = None
    #: For each retry of a container: what had ended in it, as it was then. Completed steps of it may still have to be undone.
    earlier: tuple[Mapping[str, StepState], ...] = ()
    undone: frozenset[tuple[int, str]] = frozenset()  #: completed steps in `earlier` (place, instance) whose compensation has begun
    compensating: str | None = None  #: the step whose compensation runs
    #: Once compensations run: what had completed before the step that was undone last, as `completions` gives it.
    left: SortedSet[tuple[int, int, str]] | None = None
    undoing: int | None = None  #: place in `earlier` of the step whose compensation runs; None: it is one of `steps`
    undone_badly: bool = False  #: a compensation has failed
    emitted: tuple[Emitted, ...] = ()
    parent: Parent | None = None
    acknowledged: bool = False  #: the parent has recorded how we ended
    signals: tuple[Signal, ...] = ()  #: kept, in the order in which they came
    commands: tuple[str, ...] = ()  #: ids of the latest commands that were carried out: repeats change nothing
    forks: tuple[Fork, ...] = ()
    forked_from: str | None = None  #: the execution from which this one was forked
    monitors: tuple[Monitor, ...] = ()
    results_bytes: int = 0  #: size of input and results as JSON
    ended_us: int = 0
    output: Json = None
    error: Error | None = None

    @property
    def depth(self) -> int:
        """Workflows around this one."""
        return 0 if self.parent is None else self.parent.depth

    def step(self, instance: str) -> StepState:
        """The state of a step, also of one that nothing has happened to."""
        return self.steps.get(instance, UNTOUCHED)

    def live_in_order(self) -> list[str]:
        """Instances that are scheduled, running or waiting, in the order in which they became so: outer ones first."""
        return sorted(self.live, key=self.live.__getitem__)

    def seen(self, instance: str) -> StepState:
        """The state of a step as references see it: the compensation of an earlier life's step sees the states of that life."""
        if self.undoing is not None:
            for states in self.earlier[self.undoing :]:
                if instance in states:
                    return states[instance]
        return self.step(instance)


UNTOUCHED = StepState()

#: Types of transitions that are of no interest to a monitor.
QUIET = frozenset({"continuation", "execution.acknowledged", "execution.monitored", "heartbeat.received", "timer.set"})


def completions(state: Execution) -> SortedSet[tuple[int, int, str]]:
    """Steps that completed and are not undone, in order: sequence of the event, place in `earlier` (-1: as they ended), instance."""
    found = [
        (step.ended_sequence, -1, instance)
        for instance, step in state.steps.items()
        if step.status == "completed" and not step.compensation and not step.taken_over
    ]
    for place, steps in enumerate(state.earlier):
        found += [
            (step.ended_sequence, place, instance)
            for instance, step in steps.items()
            if step.status == "completed" and (place, instance) not in state.undone
        ]
    return SortedSet(found)


def put_step(change: dict[str, Any], state: Execution, instance: str, step: StepState) -> None:
    """Puts a step in place in `change`, a change of `state` in the making, and keeps the books of live and failed steps and timers."""
    steps: PersistentMap[str, StepState] = change.get("steps", state.steps)
    live: PersistentMap[str, int] = change.get("live", state.live)
    before = steps.get(instance, UNTOUCHED)
    change["steps"] = steps.set(instance, step)
    rank_before, rank = live.get(instance), None
    if step.status in LIVE:
        rank = state.sequence + 1 if rank_before is None else rank_before
        if rank_before is None:
            change["live"] = live.set(instance, rank)
    elif rank_before is not None:
        change["live"] = live.remove(instance)
    is_bad = step.status in ENDED_BADLY
    if is_bad != (before.status in ENDED_BADLY):
        failed: PersistentMap[str, int] = change.get("failed", state.failed)
        change["failed"] = failed.set(instance, state.sequence + 1) if is_bad else failed.remove(instance)
    paused = state.paused_us is not None
    old = () if rank_before is None else step_timers(before, rank_before, instance, paused=paused)
    new = () if rank is None else step_timers(step, rank, instance, paused=paused)
    if old != new:
        timers: SortedSet[Entry] = change.get("timers", state.timers)
        for timer in old:
            timers = timers.remove(timer)
        for timer in new:
            timers = timers.add(timer)
        change["timers"] = timers


def all_timers(steps: Mapping[str, StepState], live: Mapping[str, int], *, paused: bool) -> SortedSet[Entry]:
    """The timers of all live steps, from nothing: what a pause and its end change."""
    return SortedSet(timer for instance, rank in live.items() for timer in step_timers(steps[instance], rank, instance, paused=paused))


class Replacer(Generic[T]):
    """`dataclasses.replace` for one frozen, slotted class at a third of its cost.

    Every event makes at least two new states, so this is where an orchestrator's time goes. A frozen class sets its fields one by one
    through `object`; so the copy is made as an object of a class with the same slots that is not frozen, and then becomes one of ours.
    """

    def __init__(self, cls: type[T]) -> None:
        names = [field.name for field in fields(cls)]  # type: ignore[arg-type]  # T is a dataclass
        self._cls = cls
        self._get = attrgetter(*names)
        self._open = make_dataclass(cls.__name__, [(name, Any) for name in names], slots=True)

    def __call__(self, old: T, **changes: Any) -> T:
        """`old` with some fields changed. Raises `AttributeError` for a field that does not exist."""
        new: Any = self._open(*self._get(old))
        for name, value in changes.items():
            setattr(new, name, value)
        new.__class__ = self._cls
        copied: T = new
        return copied


replace_step = Replacer(StepState)
replace_execution = Replacer(Execution)


def json_bytes(value: Any) -> int:
    """Size of a value as compact JSON, bytes."""
    return len(orjson.dumps(value))


def anew(step: StepState) -> StepState:
    """A step that begins a new life: pending, with fresh time-outs and retries; attempts go on."""
    turns = None if step.turns is None else step.turns.over()
    return StepState(attempt=step.attempt, attempts_before=step.attempt, answered=step.answered, children=step.children, turns=turns)


def split_instance(instance: str) -> tuple[str, str]:
    """Step id and turn suffix of an instance id: `line[0][3]` → `line`, `[0][3]`."""
    at = instance.find("[")
    return (instance, "") if at < 0 else (instance[:at], instance[at:])
