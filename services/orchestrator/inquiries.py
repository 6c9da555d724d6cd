"""What built-in modules ask the orchestrator, and how it answers:

whether a definition has faults, how an execution is, what became of a command.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.orchestrator.definitions import validate
from services.orchestrator.effects import MODULE, SOURCE
from services.orchestrator.state import ENDED, Execution
from services.orchestrator.store import DefinitionStore
from streams.definitions import unwrap
from streams.log.types import Decision, Send
from streams.operations import CHECK, CONTRACT, STATUS
from streams.records import Json, MessageError, ModuleMessage, Record, WorkflowCommand, WorkflowTransition, derived_id, from_micros, iso
from streams.topics import REQUESTS


def is_for_modules(message: ModuleMessage) -> bool:
    """Whether a response in our inbox answers what a built-in module has asked: modules elsewhere all answer here."""
    return message.execution_id is None and message.target_module in CONTRACT and message.reply_to is not None


def forwarded(message: ModuleMessage) -> Send:
    """The response, on its way to the built-in module."""
    return Send(topic=REQUESTS, key=message.reply_to or "", record=message)


def answer(store: DefinitionStore, state: Execution | None, message: ModuleMessage, time_us: int) -> Send | None:
    """The answer to `CHECK` and `STATUS`; None: it is none of these."""
    data = message.data if isinstance(message.data, dict) else {}
    match message.operation:
        case _ if message.operation == CHECK:
            return _checked(store, message, data.get("definition"), time_us)
        case _ if message.operation == STATUS:
            if state is None:
                error = MessageError(code="not-found", message=f"There is no execution {data.get('execution_id')!r}.")
                return _response(message, {"pointer": "/executionId"}, error, time_us)
            return _response(message, _status(state), None, time_us)
        case _:
            return None


def _checked(store: DefinitionStore, message: ModuleMessage, document: Json, time_us: int) -> Send:
    faults = validate(document, store.operations)
    if faults:
        error = MessageError(code="definition.invalid", message=f"The definition has {len(faults)} faults; the first: {faults[0].message}")
        pointer = f"/definition{faults[0].pointer}"
        listed = [{**fault.to_dict(), "pointer": f"/definition{fault.pointer}"} for fault in faults]
        return _response(message, {"pointer": pointer, "faults": listed}, error, time_us)
    workflow, _ = unwrap(document)
    return _response(message, {"id": workflow["id"], "name": workflow["name"]}, None, time_us)


def _status(state: Execution) -> dict[str, Json]:
    steps = [{"stepId": name, "status": step.status, "attempts": step.attempt} for name, step in state.steps.items()]
    ended = sum(step.status in ENDED for step in state.steps.values())
    return {
        "executionId": state.id,
        "workflow": state.workflow_id,
        "status": state.status,
        "progress": 1.0 if state.ended_us else ended / len(steps) if steps else 0.0,
        "steps": steps,
        "output": state.output,
        "error": None if state.error is None else state.error.to_json(),
        "startedAt": iso(from_micros(state.started_us)),
        "endedAt": iso(from_micros(state.ended_us)) if state.ended_us else None,
    }


def of_command(command: WorkflowCommand, decision: Decision, state: Execution | None, time_us: int) -> Send | None:
    """What a module that sent a command is told about it; None: nobody asked to be told."""
    asked = command.data.get("answer_to") if isinstance(command.data, dict) else None
    if not isinstance(asked, dict) or asked.get("module") not in CONTRACT or not isinstance(asked.get("reply_to"), str):
        return None
    question = ModuleMessage(
        id=command.id,
        type="workflow.requested",
        tenant=command.tenant,
        correlation_id=command.correlation_id,
        kind="request",
        source_module=asked["module"],
        operation=command.command,
        step_id=str(asked.get("step_id", "")),
        reply_to=asked["reply_to"],
    )
    told: Sequence[Record] = [event for event in decision.events if isinstance(event, WorkflowTransition)]
    refusal = next((event for event in told if event.type == "command.refused"), None)
    if refusal is not None:
        kept: dict[str, Any] = {name: refusal.data[name] for name in ("pointer", "faults") if name in refusal.data}
        code = {"execution.unknown": "not-found", "execution.wrong-state": "conflict"}.get(refusal.data["code"], refusal.data["code"])
        return _response(question, kept, MessageError(code=code, message=refusal.data["message"]), time_us)
    latest = told[-1] if told else None
    status = latest.status if isinstance(latest, WorkflowTransition) else "running" if state is None else state.status
    return _response(question, {"executionId": command.execution_id, "status": status}, None, time_us)


def _response(message: ModuleMessage, data: Json, error: MessageError | None, time_us: int) -> Send:
    response = ModuleMessage(
        id=derived_id("response", message.id),
        type="workflow.answered" if error is None else "workflow.refused",
        source=SOURCE,
        subject=message.subject,
        time=from_micros(time_us),
        tenant=message.tenant,
        correlation_id=message.correlation_id,
        causation_id=message.id,
        data=data,
        kind="response",
        source_module=MODULE,
        target_module=message.source_module,
        operation=message.operation,
        step_id=message.step_id,
        reply_to=message.reply_to,
        status="success" if error is None else "error",
        error=error,
    )
    return Send(topic=REQUESTS, key=message.reply_to or "", record=response)
