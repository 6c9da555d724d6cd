"""Commands to an execution: what each does, and in which states. A refusal is a `command.refused` record, and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from services.orchestrator import attempts, endings, progress, retrying, signals
from services.orchestrator.attempts import inside_of
from services.orchestrator.definition import Definition
from services.orchestrator.draft import Draft
from services.orchestrator.effects import SOURCE
from services.orchestrator.evolve import evolve
from services.orchestrator.state import Execution, Parent
from streams.errors import Refused, Violation
from streams.records import CommandName, ExecutionStatus, Json, WorkflowCommand, WorkflowTransition, from_micros


class RefusedDocument(Refused):
    """A refusal for what a document (a definition, an input) contains; `violations` has all its faults."""

    def __init__(self, code: str, message: str, violations: Sequence[Violation]) -> None:
        super().__init__(code, message, pointer=violations[0].pointer if violations else None)
        self.violations = tuple(violations)

    def to_dict(self) -> dict[str, object]:
        """As `Refused.to_dict`, with `faults`."""
        return {**super().to_dict(), "faults": [violation.to_dict() for violation in self.violations]}


#: Statuses in which a command is allowed; the others are refused by `execution.wrong-state`. `start` begins an execution.
ALLOWED: dict[CommandName, frozenset[ExecutionStatus]] = {
    "pause": frozenset({"running"}),
    "resume": frozenset({"paused"}),
    "cancel": frozenset({"pending", "running", "paused"}),
    "answer": frozenset({"pending", "running", "paused"}),
    "signal": frozenset({"pending", "running", "paused"}),
    "retry": frozenset({"failed"}),
    "fork": frozenset(get_args(ExecutionStatus)),
}


def apply(draft: Draft, command: WorkflowCommand) -> None:
    """Does what a command to a living execution asks for, and all that follows. Raises `Refused`, then nothing was recorded."""
    data = command.data if isinstance(command.data, dict) else {}
    if command.command == "answer":
        _check_answer(draft.state, data)
    allowed = ALLOWED[command.command]
    _check_state(draft.state, command.command, allowed)
    match command.command:
        case "pause":
            draft.record("execution.paused", who_of(data), status="paused")
        case "resume":
            draft.record("execution.resumed", who_of(data), status="running")
            progress.settle_all(draft)
            endings.continue_ending(draft)
        case "cancel":
            endings.begin_ending(draft, "cancelled", None, who_of(data))
        case "retry":
            retrying.retry(draft, who_of(data))
        case "signal":
            signals.receive(draft, data, who_of(data), depth_of(command.data))
        case "answer":
            _answer(draft, data)
        case _:
            raise Refused("command.unsupported", f"The command {command.command!r} is not one to an execution that is there.")
    progress.settle(draft)


def _check_state(state: Execution, command: CommandName, allowed: frozenset[ExecutionStatus]) -> None:
    if state.status not in allowed:
        raise Refused("execution.wrong-state", f"{command} is not possible: the execution is {state.status}.")
    if command == "cancel" and state.ending is not None:
        raise Refused("execution.wrong-state", "The execution is ending already: only its compensations still run.")


def who_of(data: dict[str, Any]) -> dict[str, Json]:
    """Who wanted it and why, if they said so."""
    return {name: data[name] for name in ("by", "why") if data.get(name)}


def depth_of(data: Json) -> int:
    """How far the command with this data is from what was not started by itself (`streams.causation`)."""
    depth = data.get("trigger_depth") if isinstance(data, dict) else None
    return depth if isinstance(depth, int) else 0


def _check_answer(state: Execution, data: dict[str, Any]) -> None:
    """Refuses an answer that no open question of the execution allows."""
    instance, choice, by = data.get("step"), data.get("choice"), data.get("by")
    if not isinstance(instance, str) or not isinstance(choice, str):
        raise Refused(
            "command.invalid", "An answer names a `step` and a `choice`.", pointer="/step" if not isinstance(instance, str) else "/choice"
        )
    step = state.step(instance)
    if step.approval is None:
        if step.approval_answered:
            raise Refused("approval.already-answered", f"The question of {instance} has been answered already.")
        raise Refused("approval.unknown", f"The step {instance} does not wait for an answer.")
    if not isinstance(by, str) or not by:
        raise Refused("command.invalid", "An answer says who gives it.", pointer="/by")
    if choice not in step.approval.choices:
        raise Refused(
            "approval.choice", f"{choice!r} is not offered; the choices are {', '.join(step.approval.choices)}.", pointer="/choice"
        )
    if step.approval.escalated and choice == "use-value" and "value" not in data:
        raise Refused("command.invalid", "The choice use-value needs a `value`.", pointer="/value")


def _answer(draft: Draft, data: dict[str, Any]) -> None:
    instance, choice = data["step"], data["choice"]
    step = draft.state.step(instance)
    approval, error = step.approval, step.error
    assert approval is not None, "checked before"
    answer: dict[str, Any] = {name: data[name] for name in ("choice", "by", "value", "why") if name in data}
    place, suffix = draft.place(instance)
    if not approval.escalated:
        draft.record_step("approval.answered", instance, answer)
        attempts.complete(draft, instance, answer)
        return
    inside = inside_of(draft, place.step, suffix) if choice == "retry" else []
    draft.record_step("approval.answered", instance, {**answer, "escalated": True, **({"reset": inside} if inside else {})})
    match choice:
        case "retry":
            draft.touch(instance)
        case "skip":
            attempts.skip(draft, instance, "answer")
        case "use-value":
            attempts.complete(draft, instance, data["value"])
        case _:
            assert error is not None, "an escalated step has failed"
            attempts.fail(draft, instance, error, timed_out=approval.timed_out)


def refusal(command: WorkflowCommand, state: Execution | None, error: Refused, now_us: int) -> WorkflowTransition:
    """The record of a refusal; of an execution that does not exist it belongs to no aggregate."""
    data: dict[str, Any] = {**error.to_dict(), "command": command.command}
    return WorkflowTransition(
        id="",
        type="command.refused",
        source=SOURCE,
        subject=command.execution_id,
        time=from_micros(now_us),
        tenant=command.tenant if state is None else state.tenant,
        correlation_id=(command.correlation_id or command.execution_id) if state is None else state.correlation_id,
        causation_id=command.id,
        data=data,
        execution_id=command.execution_id,
        workflow_id="" if state is None else state.workflow_id,
        workflow_version="" if state is None else state.workflow_version,
        status="pending" if state is None else state.status,
        aggregate_id=None if state is None else state.id,
        sequence=0 if state is None else None,
    )


def started(command: WorkflowCommand, definition: Definition, now_us: int, parent: Parent | None) -> tuple[WorkflowTransition, Execution]:
    """The first record of an execution, and its state after it."""
    data: dict[str, Any] = {"definition_hash": definition.hash, "input": command.data.get("input", {})}
    if definition.timeout_ms is not None:
        data["timeout_ms"] = definition.timeout_ms
    if definition.resources is not None:
        data["resources"] = definition.resources
    if command.data.get("idempotency_key"):
        data["idempotency_key"] = command.data["idempotency_key"]
    if parent is not None:
        data["parent"] = parent.to_json()
    data |= {name: command.data[name] for name in ("trigger", "event", "trigger_depth", "monitors") if name in command.data}
    if isinstance(command.data.get("forked_from"), dict):
        data["forked_from"] = command.data["forked_from"]
    event = WorkflowTransition(
        id="",
        type="execution.started",
        source=SOURCE,
        subject=command.execution_id,
        time=from_micros(now_us),
        tenant=command.tenant,
        correlation_id=command.correlation_id or command.execution_id,
        causation_id=command.id,
        data={**data, **who_of(command.data)},
        execution_id=command.execution_id,
        workflow_id=definition.id,
        workflow_version=definition.version,
        status="running",
        aggregate_id=command.execution_id,
    )
    state = evolve(None, event)
    assert state is not None, "a start begins an execution"
    return event, state
