"""What the core operations decide. Pure.

Executions belong to the orchestrator: whatever is asked about them is put to it (`streams.operations.CHECK`, `STATUS`,
or a command) and answered when it has answered. The question waits in an aggregate of its own, and a new owner puts it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from services.modules.built_in import Aggregate, BuiltIn
from services.modules.core.evolve import evolve
from services.modules.core.operations import (
    Command,
    CreateWorkflow,
    DeleteWorkflow,
    ExecuteWorkflow,
    ExecutionResult,
    GetWorkflow,
    GetWorkflowStatus,
    ListWorkflows,
    StatusResult,
    WorkflowGone,
    WorkflowList,
    WorkflowResult,
)
from services.modules.core.state import (
    EVENTS,
    WAIT_US,
    Inquiry,
    InquiryBegun,
    InquiryEnded,
    Workflow,
    WorkflowCreated,
    WorkflowDeleted,
    WorkflowExecuted,
)
from services.modules.lookup import find, gone, has_text, listing, states_of
from services.modules.operation import (
    NOTHING_FOLLOWS,
    Answered,
    Decided,
    Done,
    Follow,
    Operation,
    Outcome,
    Pending,
    Refusal,
    Request,
)
from services.modules.outgoing import ask_orchestrator, asked_by, command
from streams.errors import Violation
from streams.log.types import Due, Send, View
from streams.operations import CHECK, STATUS
from streams.records import CommandName, Json, ModuleMessage, derived_id

NAME = "core"


def create_workflow(view: View[Any], parameters: CreateWorkflow, request: Request) -> Outcome:
    """Keeps a definition that has no faults."""
    workflow_id = request.new_id("workflow")
    data = {"definition": parameters.definition}
    return _ask(view, request, CHECK, data, request.home, workflow_id=workflow_id, definition=parameters.definition)


def get_workflow(view: View[Any], parameters: GetWorkflow, request: Request) -> Outcome:
    """A definition that the module keeps."""
    state = find(view, Workflow, parameters.workflow_id, pointer="/workflowId")
    return state if isinstance(state, Refusal) else Done(aggregate_id=state.workflow_id, result=WorkflowResult.of(state))


def list_workflows(view: View[Any], parameters: ListWorkflows, request: Request) -> Outcome:
    """Definitions in order of their ids, by part of the name."""
    wanted = (state for state in states_of(view, Workflow) if has_text(parameters.text, state.name))
    return listing(view, parameters, WorkflowList, wanted, lambda state: state.workflow_id, WorkflowResult.of)


def delete_workflow(view: View[Any], parameters: DeleteWorkflow, request: Request) -> Outcome:
    """Keeps a definition no more; what runs goes on."""
    state = find(view, Workflow, parameters.workflow_id, pointer="/workflowId")
    if isinstance(state, Refusal):
        return state
    return gone(state.workflow_id, WorkflowGone(workflow_id=state.workflow_id, deleted=True), WorkflowDeleted(reason=parameters.reason))


def execute_workflow(view: View[Any], parameters: ExecuteWorkflow, request: Request) -> Outcome:
    """Begins an execution; answered when it has begun."""
    data: dict[str, Json] = {"input": parameters.input}
    if parameters.workflow_id is not None:
        state = find(view, Workflow, parameters.workflow_id, pointer="/workflowId")
        if isinstance(state, Refusal):
            return state
        data["definition"] = dict(state.definition)
    else:
        data |= {"workflow": parameters.published} if parameters.published is not None else {"definition": parameters.definition}
    execution_id = parameters.execution_id or derived_id("core-execution", request.id)
    return _command(view, execution_id, "start", data, request, workflow_id=parameters.workflow_id)


def get_workflow_status(view: View[Any], parameters: GetWorkflowStatus, request: Request) -> Outcome:
    """How an execution is, with its steps."""
    return _ask(view, request, STATUS, {"execution_id": parameters.execution_id}, parameters.execution_id)


def pause(view: View[Any], parameters: Command, request: Request) -> Outcome:
    """Has nothing new start in an execution."""
    return _command(view, parameters.execution_id, "pause", _why(parameters), request)


def resume(view: View[Any], parameters: Command, request: Request) -> Outcome:
    """Has a paused execution go on."""
    return _command(view, parameters.execution_id, "resume", _why(parameters), request)


def cancel(view: View[Any], parameters: Command, request: Request) -> Outcome:
    """Cancels an execution; what it did is compensated."""
    return _command(view, parameters.execution_id, "cancel", _why(parameters), request)


def _why(parameters: Command) -> dict[str, Json]:
    return {name: value for name, value in (("by", parameters.by), ("why", parameters.reason)) if value}


def _command(
    view: View[Any], execution_id: str, name: CommandName, data: dict[str, Json], request: Request, workflow_id: str | None = None
) -> Outcome:  # fmt: skip
    return _ask(view, request, name, data, execution_id, workflow_id=workflow_id)


def _ask(
    view: View[Any], request: Request, operation: str, data: Json, key: str, *, workflow_id: str | None = None, definition: Json = None
) -> Outcome:  # fmt: skip
    inquiry_id = request.new_id("inquiry")
    if view.state(inquiry_id) is not None:
        return Pending(aggregate_id=inquiry_id)
    due_us = request.time_us + WAIT_US
    if request.caller.deadline_us is not None:
        due_us = max(request.time_us, min(due_us, request.caller.deadline_us - 200_000))
    event = InquiryBegun(
        caller=request.caller, operation=operation, data=data, key=key, due_us=due_us, workflow_id=workflow_id, definition=definition
    )
    state = evolve(None, event, inquiry_id, request.time_us)
    assert isinstance(state, Inquiry)
    return Pending(
        aggregate_id=inquiry_id, events=(Decided(aggregate_id=inquiry_id, event=event),), effects=tuple(outstanding(state))
    )  # fmt: skip


def outstanding(state: Inquiry) -> Iterator[Send]:
    """The question, until it is answered."""
    id_ = derived_id("inquiry", state.inquiry_id)
    if state.operation not in (CHECK, STATUS):
        yield command(
            state.key, cast(CommandName, state.operation), state.data, id=id_, source=f"mplp/modules/{NAME}", time_us=state.asked_us,
            correlation_id=state.caller.correlation_id, tenant=state.caller.tenant, answer=(NAME, state.inquiry_id, "1"),
        )  # fmt: skip
        return
    yield ask_orchestrator(
        NAME, state.inquiry_id, "1", state.operation, state.data, key=state.key, id=id_,
        time_us=state.asked_us, correlation_id=state.caller.correlation_id, tenant=state.caller.tenant,
    )  # fmt: skip


def take(view: View[Any], message: ModuleMessage, time_us: int) -> Follow | None:
    """The orchestrator's answer."""
    if message.kind != "response":
        return None
    state = view.state(asked_by(message)[0])
    if not isinstance(state, Inquiry):
        return NOTHING_FOLLOWS
    ended = Decided(aggregate_id=state.inquiry_id, event=InquiryEnded(answered=True))
    if message.status != "success":
        return Follow(events=(ended,), answers=(_answered(state, _refusal(state, message)),))
    if state.definition is not None and state.workflow_id is not None:
        return _kept(state, message.data, ended, time_us)
    events = [ended]
    if state.workflow_id is not None and isinstance(view.state(state.workflow_id), Workflow):
        executed = WorkflowExecuted(execution_id=str(message.data.get("executionId", "")))
        events.append(Decided(aggregate_id=state.workflow_id, event=executed))
    return Follow(events=tuple(events), answers=(_answered(state, message.data),))


def _kept(state: Inquiry, checked: Json, ended: Decided, time_us: int) -> Follow:
    assert state.workflow_id is not None
    name = checked.get("name", "") if isinstance(checked, dict) else ""
    created = WorkflowCreated(name=str(name), definition=state.definition)
    workflow = evolve(None, created, state.workflow_id, time_us)
    assert isinstance(workflow, Workflow)
    answer = WorkflowResult.of(workflow).model_dump(mode="json", by_alias=True)
    return Follow(events=(ended, Decided(aggregate_id=state.workflow_id, event=created)), answers=(_answered(state, answer),))


def _refusal(state: Inquiry, message: ModuleMessage) -> Refusal:
    error, data = message.error, message.data if isinstance(message.data, dict) else {}
    code, text = ("failed", "") if error is None else (error.code, error.message)
    place = _place(state, code)
    faults = tuple(
        Violation(code=str(each.get("code")), pointer=f"{place}{each.get('pointer')}", message=str(each.get("message")))
        for each in data.get("faults", ())
        if isinstance(each, dict)
    )
    pointer = f"{place}{data.get('pointer') or ''}" or None
    return Refusal(code=code, message=text, pointer=pointer, faults=faults, retryable=error is not None and error.retryable)


def _place(state: Inquiry, code: str) -> str:
    """The parameter that the orchestrator's pointer leads into: it knows a command, not what the operation was given."""
    if state.operation in (CHECK, STATUS):
        return ""  # these name the parameter themselves
    if state.operation != "start":
        return "/executionId"
    given = "/workflowId" if state.workflow_id is not None else "/published" if "workflow" in state.data else "/definition"
    return "/input" if code == "input.invalid" else given if code in ("definition.invalid", "workflow.unknown") else ""


def fire(view: View[Any], state: Inquiry, timer: Due) -> Follow:
    """The orchestrator did not answer in time."""
    refusal = Refusal(code="unavailable", message="The orchestrator did not answer in time.", retryable=True)
    ended = Decided(aggregate_id=state.inquiry_id, event=InquiryEnded(answered=False))
    return Follow(events=(ended,), answers=(_answered(state, refusal),))


def _answered(state: Inquiry, answer: Json | Refusal) -> Answered:
    return Answered(caller=state.caller, aggregate_id=state.inquiry_id, answer=answer)


MODULE = BuiltIn(
    operations={
        "create-workflow": Operation(parameters=CreateWorkflow, result=WorkflowResult, decide=create_workflow),
        "get-workflow": Operation(parameters=GetWorkflow, result=WorkflowResult, decide=get_workflow),
        "list-workflows": Operation(parameters=ListWorkflows, result=WorkflowList, decide=list_workflows, gathers=True),
        "delete-workflow": Operation(parameters=DeleteWorkflow, result=WorkflowGone, decide=delete_workflow),
        "execute-workflow": Operation(parameters=ExecuteWorkflow, result=ExecutionResult, decide=execute_workflow),
        "get-workflow-status": Operation(parameters=GetWorkflowStatus, result=StatusResult, decide=get_workflow_status),
        "pause": Operation(parameters=Command, result=ExecutionResult, decide=pause),
        "resume": Operation(parameters=Command, result=ExecutionResult, decide=resume),
        "cancel": Operation(parameters=Command, result=ExecutionResult, decide=cancel),
    },
    events=EVENTS,
    evolve=evolve,
    aggregates=(Aggregate(state=Workflow), Aggregate(state=Inquiry, due=lambda state: state.due_us, fire=fire, outstanding=outstanding)),
    take=take,
)
