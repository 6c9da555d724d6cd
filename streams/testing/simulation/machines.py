"""Two machines that use everything that the kernel offers, for the simulation. `oracle` says independently what they must do.

Flows: commands, refusals, steps that ask a counter here, a counter at another home (mostly another partition), somebody
outside (attempts with time-outs), waits; signals that must count exactly once, notes that may come twice or to the wrong
partition. Counters: requests that must count once, repeats answered from memory, timers, aggregates that vanish, and some that
stay for ever and rest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from streams import topics
from streams.log.freeze import StateFormat
from streams.log.types import NOTHING, Decision, Due, Entry, Input, Remembered, Send, View
from streams.records import ExecutionStatus, ModuleMessage, Record, WorkflowCommand, WorkflowTransition, derived_id, from_micros, to_micros

#: Inbox of whoever answers outside of the simulated processes.
OUTSIDE = topics.module_requests("outside")
OUTSIDE_TIMEOUT_US = 2_000_000
OUTSIDE_ATTEMPTS_MAX = 3
THERE_TIMEOUT_US = 3_000_000
FADES_AFTER_US = 4_000_000
REMEMBERED_US = 3_600_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A flow: its plan, which step runs (from 1), and sums of what it was told and answered."""

    flow_id: str
    plan: tuple[str, ...]
    step: int = 0
    attempt: int = 0
    since_us: int = 0
    told: int = 0
    answered: int = 0
    status: ExecutionStatus = "running"

    @property
    def kind(self) -> str:
        """What the running step does."""
        return self.plan[self.step - 1].partition("/")[0] if self.step else ""

    @property
    def argument(self) -> str:
        """Of the running step: a home, or milliseconds."""
        return self.plan[self.step - 1].partition("/")[2]


class FlowMachine:
    """`start` runs the plan step by step; see the module."""

    name = "workflow"
    log = topics.TRANSITIONS
    snapshots = topics.WORKFLOW_SNAPSHOTS
    inboxes = (topics.COMMANDS, topics.RESPONSES)
    source_logs = (topics.MESSAGES,)
    states = StateFormat(Flow)

    def decide(self, view: View[Flow], input: Input) -> Decision:
        """See `Machine.decide`."""
        if isinstance(input, Due):
            return _timer(view.state(input.aggregate_id), input.time_us)
        if isinstance(input.record, WorkflowCommand):
            return _command(view, input.record, input.time_us)
        assert isinstance(input.record, ModuleMessage)
        return _answer(view.state(input.record.execution_id or ""), input.record, input.time_us)

    def evolve(self, state: Flow | None, entry: Entry) -> Flow | None:
        """See `Machine.evolve`."""
        event = entry.event
        assert isinstance(event, WorkflowTransition)
        data, status = event.data, event.status
        if state is None:
            return Flow(flow_id=event.execution_id, plan=tuple(data["plan"]))
        match event.type:
            case "step.started" | "step.retried":
                return replace(state, step=int(event.step_id or 0), attempt=event.attempt, since_us=to_micros(event.time))
            case "signal.received" | "note.taken":
                return replace(state, told=state.told + data["amount"])
            case "step.completed":
                return replace(state, answered=state.answered + data["value"])
        return replace(state, status=status, since_us=to_micros(event.time))

    def due(self, state: Flow) -> int | None:
        """See `Machine.due`."""
        if state.status != "running":
            return None
        match state.kind:
            case "wait":
                return state.since_us + int(state.argument) * 1000
            case "out":
                return state.since_us + OUTSIDE_TIMEOUT_US
            case "there":
                return state.since_us + THERE_TIMEOUT_US
        return None

    def outstanding(self, state: Flow) -> Iterable[Send]:
        """See `Machine.outstanding`."""
        return () if state.status != "running" else _requests(state)

    def ended(self, state: Flow) -> int | None:
        """See `Machine.ended`."""
        return None if state.status == "running" else state.since_us

    def rests(self, state: Flow, time_us: int) -> bool:
        """See `Machine.rests`: it waits for something."""
        return False

    def remember(self, entry: Entry) -> Iterable[Remembered]:
        """See `Machine.remember`."""
        event = entry.event
        if event.type == "note.taken" and event.causation_id is not None:
            yield Remembered(key=event.causation_id, value=True, expires_us=to_micros(event.time) + REMEMBERED_US)

    def concerns(self, record: Record) -> bool:
        """See `Machine.concerns`."""
        return isinstance(record, ModuleMessage) and record.kind == "response"


def _command(view: View[Flow], record: WorkflowCommand, time_us: int) -> Decision:
    state = view.state(record.execution_id)
    if record.command == "start":
        if state is not None:
            return NOTHING
        plan = record.data["plan"]
        started = _event(record.execution_id, "execution.started", "running", time_us, data={"plan": plan})
        return _next(Flow(flow_id=record.execution_id, plan=tuple(plan)), (started,), time_us)
    if record.command == "answer" and view.recall(record.id) is not None:
        return NOTHING
    if state is None or state.status != "running":
        return Decision(events=(_event(record.execution_id, "command.refused", "pending", time_us, refusal=True),))
    if record.command == "cancel":
        return Decision(events=(_event(state.flow_id, "execution.cancelled", "cancelled", time_us),))
    kind = "note.taken" if record.command == "answer" else "signal.received"
    return Decision(events=(_event(state.flow_id, kind, "running", time_us, data={"amount": record.data["amount"]}),))


def _answer(state: Flow | None, record: ModuleMessage, time_us: int) -> Decision:
    if state is None or state.status != "running" or record.step_id != str(state.step) or state.kind == "wait":
        return NOTHING
    if state.kind == "out" and record.attempt != state.attempt:
        return NOTHING
    if record.status == "error":
        return Decision(events=(_event(state.flow_id, "execution.failed", "failed", time_us),))
    return _done(state, record.data["value"], time_us)


def _timer(state: Flow | None, time_us: int) -> Decision:
    if state is None or state.status != "running":
        return NOTHING
    if state.kind == "wait":
        return _done(state, 0, time_us)
    if state.kind == "out" and state.attempt == OUTSIDE_ATTEMPTS_MAX:
        return Decision(events=(_event(state.flow_id, "execution.timed_out", "timed_out", time_us),))
    again = replace(state, attempt=state.attempt + 1, since_us=time_us)
    event = _event(state.flow_id, "step.retried", "running", time_us, step=state.step, attempt=again.attempt)
    return Decision(events=(event,), effects=tuple(_requests(again)))


def _done(state: Flow, value: int, time_us: int) -> Decision:
    completed = _event(state.flow_id, "step.completed", "running", time_us, step=state.step, attempt=state.attempt, data={"value": value})
    return _next(state, (completed,), time_us)


def _next(state: Flow, before: tuple[WorkflowTransition, ...], time_us: int) -> Decision:
    if state.step == len(state.plan):
        return Decision(events=(*before, _event(state.flow_id, "execution.completed", "completed", time_us)))
    started = replace(state, step=state.step + 1, attempt=1, since_us=time_us)
    event = _event(state.flow_id, "step.started", "running", time_us, step=started.step, attempt=1)
    return Decision(events=(*before, event), effects=tuple(_requests(started)))


def _requests(state: Flow) -> Iterable[Send]:
    """The request of the running step: the same record however often it is made."""
    match state.kind:
        case "here":
            return (_request(state, topics.REQUESTS, state.flow_id, derived_id("ask", state.flow_id, state.step)),)
        case "there":
            # A repeat of the same request: the counter must answer it without counting again.
            return (_request(state, topics.REQUESTS, state.argument, derived_id("ask", state.flow_id, state.step)),)
        case "out" | "silent":
            return (_request(state, OUTSIDE, state.flow_id, derived_id("ask", state.flow_id, state.step, state.attempt)),)
    return ()


def _request(state: Flow, topic: str, key: str, request_id: str) -> Send:
    repeats = state.kind == "there"
    record = ModuleMessage(
        id=request_id, type="counter.requested", source="mplp/flow", subject=key, time=from_micros(0 if repeats else state.since_us),
        correlation_id=state.flow_id, kind="request", source_module="flow", operation=state.kind, execution_id=state.flow_id,
        step_id=str(state.step), attempt=0 if repeats else state.attempt, reply_to=state.flow_id,
        data={"amount": -1 if state.argument == "refuse" else state.step},
    )  # fmt: skip
    return Send(topic=topic, key=key, record=record)


def _event(
    flow_id: str, kind: str, status: ExecutionStatus, time_us: int, *, step: int = 0, attempt: int = 0,
    data: Any = None, refusal: bool = False,
) -> WorkflowTransition:  # fmt: skip
    return WorkflowTransition(
        id="", type=kind, source="mplp/flow", subject=flow_id, time=from_micros(time_us), execution_id=flow_id, workflow_id="flow",
        step_id=str(step) if step else None, attempt=attempt, status=status, data=data or {},
        aggregate_id=None if refusal else flow_id, sequence=0 if refusal else None,
    )  # fmt: skip


def stays_for_ever(aggregate_id: str) -> bool:
    """Whether a counter is one of those that do not vanish, where some do not."""
    return sum(aggregate_id.encode()) % 2 == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """A counter: its total, when it was last added to, and whether it stays."""

    total: int
    since_us: int
    stays: bool = False


class CounterMachine:
    """Adds what is asked and answers with the total; a counter to which nothing is added for `FADES_AFTER_US` vanishes.

    With `resting` that holds for every second counter; the others stay, and may leave memory at any time.
    """

    name = "modules"
    log = topics.MESSAGES
    snapshots = topics.MODULE_SNAPSHOTS
    inboxes = (topics.REQUESTS,)
    source_logs = ()
    states = StateFormat(Counter)

    def __init__(self, *, resting: bool = False) -> None:
        self._resting = resting

    def decide(self, view: View[Counter], input: Input) -> Decision:
        """See `Machine.decide`."""
        if isinstance(input, Due):
            if view.state(input.aggregate_id) is None:
                return NOTHING
            home = input.aggregate_id.partition("/")[0]
            return Decision(events=(_message(home, "counter.faded", "notification", input.time_us, aggregate=input.aggregate_id),))
        asked = input.record
        assert isinstance(asked, ModuleMessage)
        answered = view.recall(asked.id)
        if answered is not None:
            return Decision(effects=(_response(asked, answered["time_us"], answered["status"], answered["value"]),))
        home = asked.subject
        amount = asked.data["amount"]
        aggregate = f"{home}/counter"
        state = view.state(aggregate)
        status: Literal["success", "error"] = "success" if amount > 0 else "error"
        value = (state.total if state is not None else 0) + amount if amount > 0 else 0
        event = replace(
            _message(home, "counter.added" if amount > 0 else "counter.refused", "response", input.time_us, aggregate=aggregate),
            execution_id=asked.execution_id, step_id=asked.step_id, attempt=asked.attempt, reply_to=asked.reply_to, status=status,
            data={"value": value, "request": asked.id}, aggregate_id=aggregate if amount > 0 else None, sequence=None if amount > 0 else 0,
        )  # fmt: skip
        remote = not view.is_local(asked.reply_to or "")
        return Decision(events=(event,), effects=(_response(asked, input.time_us, status, value),) if remote else ())

    def evolve(self, state: Counter | None, entry: Entry) -> Counter | None:
        """See `Machine.evolve`."""
        event = entry.event
        if event.type == "counter.faded":
            return None
        stays = self._resting and stays_for_ever(event.aggregate_id or "")
        return Counter(total=event.data["value"], since_us=to_micros(event.time), stays=stays)

    def due(self, state: Counter) -> int | None:
        """See `Machine.due`."""
        return None if state.stays else state.since_us + FADES_AFTER_US

    def outstanding(self, state: Counter) -> Iterable[Send]:
        """See `Machine.outstanding`: who got no answer asks again."""
        return ()

    def ended(self, state: Counter) -> int | None:
        """See `Machine.ended`: a counter vanishes instead."""
        return None

    def rests(self, state: Counter, time_us: int) -> bool:
        """See `Machine.rests`: the others have a timer."""
        return state.stays

    def remember(self, entry: Entry) -> Iterable[Remembered]:
        """See `Machine.remember`."""
        event = entry.event
        if isinstance(event, ModuleMessage) and event.kind == "response":
            time_us = to_micros(event.time)
            value = {"time_us": time_us, "status": event.status, "value": event.data["value"]}
            yield Remembered(key=event.data["request"], value=value, expires_us=time_us + REMEMBERED_US)

    def concerns(self, record: Record) -> bool:
        """See `Machine.concerns`."""
        return False


def _message(home: str, kind: str, message: Any, time_us: int, *, aggregate: str) -> ModuleMessage:
    return ModuleMessage(
        id="", type=kind, source="mplp/counter", subject=home, time=from_micros(time_us), kind=message, source_module="counter",
        operation="add", aggregate_id=aggregate,
    )  # fmt: skip


def _response(asked: ModuleMessage, time_us: int, status: Any, value: int) -> Send:
    """The answer to a caller elsewhere: the same record however often it is sent."""
    return Send(topic=topics.RESPONSES, key=asked.reply_to or "", record=answer(asked, time_us, status, value))


def answer(asked: ModuleMessage, time_us: int, status: Any, value: int) -> ModuleMessage:
    """A response to `asked`; its id derives from the request's."""
    return ModuleMessage(
        id=derived_id("answer", asked.id), type="counter.answered", source="mplp/counter", subject=asked.subject, time=from_micros(time_us),
        correlation_id=asked.correlation_id, causation_id=asked.id, kind="response", source_module="counter", operation="add",
        execution_id=asked.execution_id, step_id=asked.step_id, attempt=asked.attempt, reply_to=asked.reply_to, status=status,
        data={"value": value},
    )  # fmt: skip
