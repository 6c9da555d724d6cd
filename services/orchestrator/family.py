"""What parents, children and forks say to each other: built from states alone, so that a new owner repeats the very same bytes.

**The protocol.** The parent's attempt is recorded, then `start` is sent to the child's home, its id derived from the attempt. When
the child has ended, its outcome goes to the parent as the answer to that request; the parent records it and acknowledges; the
child records that. Each side repeats what the other has not answered whenever its partition has a new owner, and recognises
repeats: a start of an execution that is there, an answer to an attempt that has one. A child that is given up is cancelled, and
that too is repeated until it has answered. So a kill between any two of these leaves no parent waiting and no child running by
mistake. A fork is started and acknowledges in the same way, also one that is refused, or whose id another execution has.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from services.orchestrator.effects import MODULE, SOURCE, request_id
from services.orchestrator.state import TERMINAL, Child, Error, Execution, Fork, Parent, StepState
from streams.errors import Refused
from streams.limits import ID_CHARACTERS_MAX
from streams.log.types import Send
from streams.records import Json, MessageError, ModuleMessage, WorkflowCommand, derived_id, from_micros, iso
from streams.topics import COMMANDS, RESPONSES, home_of

#: Operation of the notification by which a parent says that it has recorded its child's end, and a fork that it is known.
ACKNOWLEDGE = "acknowledge"


def child_id(parent: str, instance: str, attempt: int) -> str:
    """Id of the execution that an attempt of a `workflow` step starts (UUIDv5 of `execution/parent/step/attempt`)."""
    return derived_id("execution", parent, instance, attempt)


# --- what the parent sends --------------------------------------------------------------------------------------------


def awaited(step: StepState) -> Child | None:
    """The child whose outcome the step's attempt waits for."""
    if step.status != "running" or step.fallback is not None:
        return None
    return next((child for child in step.children if child.attempt == step.attempt), None)


def start_command(state: Execution, instance: str, step: StepState, child: Child) -> Send:
    """Starts the child of the running attempt."""
    data = {"definition_hash": child.definition_hash, "input": step.parameters, **_parent_data(state, instance, child)}
    return _command(state, instance, child, "start", request_id(state.id, instance, child.attempt), step.attempt_us, data)


def cancel_command(state: Execution, instance: str, child: Child) -> Send:
    """Cancels a child that the step does not wait for any more. Built alike however often it is repeated."""
    data = {
        "definition_hash": child.definition_hash,
        "by": f"workflow {state.id}",
        "why": f"the step {instance} has given it up",
        **_parent_data(state, instance, child),
    }
    return _command(state, instance, child, "cancel", derived_id("cancel", state.id, instance, child.attempt), state.started_us, data)


def _parent_data(state: Execution, instance: str, child: Child) -> dict[str, Json]:
    parent: Json = {"execution_id": state.id, "step_id": instance, "attempt": child.attempt, "depth": state.depth + 1}
    return {"parent": parent} | ({"trigger_depth": state.trigger_depth} if state.trigger_depth else {})


def _command(state: Execution, instance: str, child: Child, name: Any, id: str, time_us: int, data: dict[str, Json]) -> Send:
    execution_id = child_id(state.id, instance, child.attempt)
    command = WorkflowCommand(
        id=id,
        type=f"workflow.{name}",
        source=SOURCE,
        subject=execution_id,
        time=from_micros(time_us),
        tenant=state.tenant,
        correlation_id=state.correlation_id,
        data=data,
        execution_id=execution_id,
        command=name,
    )
    return Send(topic=COMMANDS, key=home_of(execution_id), record=command)


def acknowledge(parent: ModuleMessage) -> Send:
    """Tells a child that its outcome (`parent`: the answer as it came) has been recorded."""
    child = parent.subject
    message = ModuleMessage(
        id=derived_id(ACKNOWLEDGE, parent.execution_id, parent.step_id, parent.attempt),
        type="workflow.acknowledged",
        source=SOURCE,
        subject=child,
        time=parent.time,
        tenant=parent.tenant,
        correlation_id=parent.correlation_id,
        causation_id=parent.id,
        kind="notification",
        source_module=MODULE,
        target_module=MODULE,
        operation=ACKNOWLEDGE,
        execution_id=child,
    )
    return Send(topic=RESPONSES, key=home_of(child), record=message)


# --- what the child sends ---------------------------------------------------------------------------------------------


def parent_of(command: WorkflowCommand) -> Parent | None:
    """The parent that a command names; None unless it is the one from which the execution's id derives."""
    execution_id = command.execution_id
    given = command.data.get("parent") if isinstance(command.data, dict) else None
    if not isinstance(given, dict):
        return None
    parent, step, attempt, depth = (given.get(name) for name in ("execution_id", "step_id", "attempt", "depth"))
    if not (isinstance(parent, str) and isinstance(step, str) and isinstance(attempt, int) and isinstance(depth, int)):
        return None
    if execution_id != child_id(parent, step, attempt):
        return None
    return Parent(execution_id=parent, step_id=step, attempt=attempt, depth=depth)


def outcome(state: Execution) -> Send:
    """What a child that has ended tells its parent."""
    assert state.parent is not None, "only a child has somebody to tell"
    error = None
    if state.status != "completed":
        error = state.error or Error(code="cancelled", message=f"The workflow {state.workflow_id} was {state.status}.")
    return _answer(state.id, state.parent, state.ended_us, state.tenant, state.correlation_id, state.workflow_id, state.output, error)


def refused_outcome(command: WorkflowCommand, parent: Parent, refusal: Refused, now_us: int) -> Send:
    """What a parent is told whose child cannot start."""
    error = Error(code=refusal.code, message=refusal.message)
    return _answer(command.execution_id, parent, now_us, command.tenant, command.correlation_id, "", None, error)


def _answer(
    execution_id: str, parent: Parent, time_us: int, tenant: str, correlation_id: str, workflow_id: str, output: Json, error: Error | None
) -> Send:
    message = ModuleMessage(
        id=derived_id("outcome", execution_id, time_us),
        type="workflow.responded",
        source=SOURCE,
        subject=execution_id,
        time=from_micros(time_us),
        tenant=tenant,
        correlation_id=correlation_id,
        causation_id=request_id(parent.execution_id, parent.step_id, parent.attempt),
        data=output if error is None else {},
        kind="response",
        source_module=MODULE,
        target_module=MODULE,
        operation=workflow_id,
        execution_id=parent.execution_id,
        step_id=parent.step_id,
        attempt=parent.attempt,
        status="success" if error is None else "error",
        error=None if error is None else MessageError(code=error.code, message=error.message, retryable=error.retryable),
    )
    return Send(topic=RESPONSES, key=home_of(parent.execution_id), record=message)


# --- forks ------------------------------------------------------------------------------------------------------------


def fork_command(state: Execution, fork: Fork) -> Send:
    """Starts a fork, with the results that it takes over."""
    data = {
        "definition_hash": fork.definition_hash,
        "input": fork.input if fork.own_input else state.input,
        "forked_from": {"execution_id": state.id, "step": fork.step},
        "steps": {instance: _taken(state, instance) for instance in fork.steps},
    }
    command = WorkflowCommand(
        id=derived_id("fork", state.id, fork.id),
        type="workflow.start",
        source=SOURCE,
        subject=fork.id,
        time=from_micros(fork.time_us),
        tenant=state.tenant,
        correlation_id=state.correlation_id,
        data=data,
        execution_id=fork.id,
        command="start",
    )
    return Send(topic=COMMANDS, key=home_of(fork.id), record=command)


def _taken(state: Execution, instance: str) -> dict[str, Json]:
    """A step as a fork takes it over."""
    step = state.step(instance)
    kept: dict[str, Json] = {"status": step.status}
    kept |= {"result": step.result} if step.gathered is None else {"gathered": dict(step.gathered)}
    return kept if step.error is None else {**kept, "error": step.error.to_json()}


def source_of(command: WorkflowCommand) -> str | None:
    """Id of the execution from which a start forks; None: it starts from nothing."""
    given = command.data.get("forked_from") if isinstance(command.data, dict) and command.command == "start" else None
    source = given.get("execution_id") if isinstance(given, dict) else None
    return source if isinstance(source, str) and source else None


def fork_known(command: WorkflowCommand, source: str, time: datetime) -> Send:
    """Tells the execution from which `command` forks that nothing is to be started any more: the fork has begun, or was refused."""
    message = ModuleMessage(
        id=derived_id("begun", command.execution_id, source),
        type="workflow.acknowledged",
        source=SOURCE,
        subject=command.execution_id,
        time=time,
        tenant=command.tenant,
        correlation_id=command.correlation_id,
        data={"fork": command.execution_id},
        kind="notification",
        source_module=MODULE,
        target_module=MODULE,
        operation=ACKNOWLEDGE,
        execution_id=source,
    )
    return Send(topic=RESPONSES, key=home_of(source), record=message)


# --- whoever starts the same twice ------------------------------------------------------------------------------------


def here_already(command: WorkflowCommand, state: Execution, time: datetime) -> Send | None:
    """Tells who starts an execution that is there already since when it is; None if nobody asked to be told."""
    address = command.data.get("reply_to") if isinstance(command.data, dict) else None
    if not isinstance(address, str) or not 0 < len(address) <= ID_CHARACTERS_MAX:
        return None
    message = ModuleMessage(
        id=derived_id("here", command.id),
        type="workflow.here-already",
        source=SOURCE,
        subject=state.id,
        time=time,
        tenant=command.tenant,
        correlation_id=state.correlation_id,
        causation_id=command.id,
        data={"executionId": state.id, "startedAt": iso(from_micros(state.started_us)), "status": state.status},
        kind="response",
        source_module=MODULE,
        operation="start",
        execution_id=state.id,
        status="success",
    )
    return Send(topic=RESPONSES, key=address, record=message, hand_over=False)


# --- both -------------------------------------------------------------------------------------------------------------


def outstanding(state: Execution) -> Iterator[Send]:
    """What the log does not show as answered by a child or parent."""
    for instance, step in state.steps.items():
        if step.children:
            waiting = awaited(step)
            for child in step.children:
                yield start_command(state, instance, step, child) if child is waiting else cancel_command(state, instance, child)
    if state.parent is not None and state.status in TERMINAL and not state.acknowledged:
        yield outcome(state)
    for fork in state.forks:
        yield fork_command(state, fork)


def is_from_child(message: ModuleMessage) -> bool:
    """Whether a response is a child's outcome."""
    return message.source_module == MODULE and message.execution_id is not None and message.step_id is not None


def expects(state: Execution, fork: Json) -> bool:
    """Whether an acknowledgement, by a parent or by the fork with this id, is news."""
    if fork is not None:
        return any(each.id == fork for each in state.forks)
    return state.parent is not None and state.status in TERMINAL and not state.acknowledged


def is_settled(state: Execution) -> bool:
    """Whether an execution that has ended owes nothing to, and expects nothing from, another one."""
    return (state.parent is None or state.acknowledged) and not state.forks and not any(step.children for step in state.steps.values())
