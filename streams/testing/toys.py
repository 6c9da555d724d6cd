"""Two small machines for tests of the kernel: a flow that asks a module and completes, and a module that answers.

They use everything that the kernel offers: commands, requests handed over locally or sent, answers through a source log,
timers, repeats answered from memory, refusals, effects that are performed again after a takeover.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from streams import topics
from streams.log.freeze import StateFormat
from streams.log.types import NOTHING, Decision, Due, Entry, Input, Remembered, Send, View
from streams.records import (
    CommandName,
    ExecutionStatus,
    Json,
    ModuleMessage,
    Record,
    WorkflowCommand,
    WorkflowTransition,
    derived_id,
    from_micros,
    to_micros,
)  # fmt: skip

TIMEOUT_US = 60_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowState:
    """A flow: which step runs (1 to `steps`), or 0 when it has ended."""

    flow_id: str
    step: int
    steps: int
    since_us: int
    ended: bool = False


class FlowMachine:
    """start → a request per step → completed; a step that takes longer than `TIMEOUT_US` fails the flow."""

    name = "workflow"
    log = topics.TRANSITIONS
    snapshots = topics.WORKFLOW_SNAPSHOTS
    inboxes = (topics.COMMANDS, topics.RESPONSES)
    source_logs = (topics.MESSAGES,)
    states = StateFormat(FlowState)

    def decide(self, view: View[FlowState], input: Input) -> Decision:
        """See `Machine.decide`."""
        if isinstance(input, Due):
            state = view.state(input.aggregate_id)
            if state is None or state.ended:
                return NOTHING
            return Decision(events=(transition(state.flow_id, "step.timed_out", "failed", input.time_us, state.step),))
        record = input.record
        if isinstance(record, WorkflowCommand):
            return self._command(view, record, input.time_us)
        assert isinstance(record, ModuleMessage)
        state = view.state(record.execution_id or "")
        if state is None or state.ended or record.attempt != state.step:
            return NOTHING
        done = transition(state.flow_id, "step.completed", "running", input.time_us, state.step)
        if state.step == state.steps:
            return Decision(events=(done, transition(state.flow_id, "execution.completed", "completed", input.time_us)))
        started = transition(state.flow_id, "step.started", "running", input.time_us, state.step + 1)
        return Decision(events=(done, started), effects=(request(state.flow_id, state.step + 1, input.time_us),))

    def _command(self, view: View[FlowState], record: WorkflowCommand, time_us: int) -> Decision:
        state = view.state(record.execution_id)
        if state is not None and state.ended and record.command == "retry":
            # The last step once more: the module has answered this request already, and answers it again from the log.
            again = transition(state.flow_id, "execution.retried", "running", time_us, state.step)
            return Decision(events=(again,), effects=(request(state.flow_id, state.step, time_us),))
        if state is not None:
            return NOTHING
        if record.command != "start":
            refusal = transition(record.execution_id, "command.refused", "pending", time_us, aggregate=False)
            return Decision(events=(refusal,))
        started = transition(record.execution_id, "execution.started", "running", time_us, steps=record.data["steps"])
        first = transition(record.execution_id, "step.started", "running", time_us, 1)
        return Decision(events=(started, first), effects=(request(record.execution_id, 1, time_us),))

    def evolve(self, state: FlowState | None, entry: Entry) -> FlowState | None:
        """See `Machine.evolve`."""
        event = entry.event
        assert isinstance(event, WorkflowTransition)
        time_us = to_micros(event.time)
        ended = event.status in ("completed", "failed")
        if state is None:
            return FlowState(flow_id=event.execution_id, step=0, steps=event.data["steps"], since_us=time_us, ended=ended)
        return FlowState(flow_id=state.flow_id, step=event.attempt or state.step, steps=state.steps, since_us=time_us, ended=ended)

    def due(self, state: FlowState) -> int | None:
        """See `Machine.due`."""
        return None if state.ended else state.since_us + TIMEOUT_US

    def outstanding(self, state: FlowState) -> Iterable[Send]:
        """See `Machine.outstanding`."""
        return () if state.ended else (request(state.flow_id, state.step, state.since_us),)

    def ended(self, state: FlowState) -> int | None:
        """See `Machine.ended`."""
        return state.since_us if state.ended else None

    def rests(self, state: FlowState, time_us: int) -> bool:
        """See `Machine.rests`: a flow that lives waits for something."""
        return False

    def remember(self, entry: Entry) -> Iterable[Remembered]:
        """See `Machine.remember`."""
        return ()

    def concerns(self, record: Record) -> bool:
        """See `Machine.concerns`."""
        return isinstance(record, ModuleMessage) and record.kind == "response"


class EchoMachine:
    """Answers every request once; repeats get the recorded answer. Its state counts the answers per home."""

    name = "modules"
    log = topics.MESSAGES
    snapshots = topics.MODULE_SNAPSHOTS
    inboxes = (topics.REQUESTS,)
    source_logs = ()
    states = StateFormat(int)

    def decide(self, view: View[int], input: Input) -> Decision:
        """See `Machine.decide`."""
        if isinstance(input, Due) or not isinstance(input.record, ModuleMessage):
            return NOTHING
        asked = input.record
        repeated = view.recall(asked.id)
        if repeated is not None:
            return Decision(effects=(Send(topic=topics.RESPONSES, key=asked.reply_to or "", record=repeated),))
        answer = ModuleMessage(
            type="echo.answered", source="mplp/echo", subject=asked.id, time=from_micros(input.time_us), kind="response",
            source_module="echo", operation="echo", execution_id=asked.execution_id, attempt=asked.attempt, status="success",
            aggregate_id=f"{asked.execution_id}/echo",
        )  # fmt: skip
        return Decision(events=(answer,))

    def evolve(self, state: int | None, entry: Entry) -> int | None:
        """See `Machine.evolve`."""
        return (state or 0) + 1

    def due(self, state: int) -> int | None:
        """See `Machine.due`."""
        return None

    def outstanding(self, state: int) -> Iterable[Send]:
        """See `Machine.outstanding`."""
        return ()

    def ended(self, state: int) -> int | None:
        """See `Machine.ended`: a count never ends."""
        return None

    def rests(self, state: int, time_us: int) -> bool:
        """See `Machine.rests`: nobody waits for a count."""
        return True

    def remember(self, entry: Entry) -> Iterable[Remembered]:
        """See `Machine.remember`."""
        event = entry.event
        return (Remembered(key=event.subject, value=event, expires_us=to_micros(event.time) + 3_600_000_000),)

    def concerns(self, record: Record) -> bool:
        """See `Machine.concerns`."""
        return False


def transition(
    flow_id: str, type_: str, status: ExecutionStatus, time_us: int, step: int = 0, *, steps: int | None = None, aggregate: bool = True
) -> WorkflowTransition:  # fmt: skip
    """An event of a flow."""
    return WorkflowTransition(
        type=type_, source="mplp/flow", subject=flow_id, time=from_micros(time_us), execution_id=flow_id, workflow_id="flow", attempt=step,
        status=status, data={} if steps is None else {"steps": steps},
        aggregate_id=flow_id if aggregate else None, sequence=None if aggregate else 0,
    )  # fmt: skip


def request(flow_id: str, step: int, time_us: int) -> Send:
    """The request of a step: the same id however often it is made."""
    record = ModuleMessage(
        id=derived_id(flow_id, step), type="echo.requested", source="mplp/flow", subject=flow_id, time=from_micros(time_us), kind="request",
        source_module="flow", target_module="echo", operation="echo", execution_id=flow_id, attempt=step, reply_to=flow_id,
    )  # fmt: skip
    return Send(topic=topics.REQUESTS, key=flow_id, record=record)


def start(flow_id: str, steps: int = 1) -> WorkflowCommand:
    """The command that starts a flow."""
    return command(flow_id, "start", {"steps": steps})


def command(flow_id: str, name: CommandName, data: Json = None) -> WorkflowCommand:
    """A command to a flow."""
    return WorkflowCommand(
        id=derived_id(name, flow_id), type=f"workflow.{name}", source="test", subject=flow_id, time=from_micros(0), execution_id=flow_id,
        command=name, data=data or {},
    )  # fmt: skip
