"""What is said to workflows and modules, and what their answers mean. Pure, but for the id of a new execution."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from streams.errors import (
    BackboneError,
    Denied,
    InvalidDocument,
    InvalidInput,
    ModuleFailed,
    NotFound,
    Refused,
    TooLarge,
    Unavailable,
    Violation,
)
from streams.limits import ID_CHARACTERS_MAX
from streams.records import Json, ModuleMessage, WorkflowCommand, WorkflowTransition, derived_id, from_micros, new_id
from streams.topics import home_of

#: Types of the last record of an execution. A retried one goes on after it.
TERMINAL = frozenset({"execution.completed", "execution.failed", "execution.timed_out", "execution.cancelled"})
#: Statuses of an execution that has ended.
ENDED_STATUSES = frozenset({"completed", "failed", "timed_out", "cancelled"})
REFUSED = "command.refused"
STARTED = "execution.started"

#: How far the clocks of two machines may be apart before a reader begins at the beginning instead, milliseconds.
CLOCK_SKEW_MS = 60_000

SOURCE = "mplp/bus"

_FAULT_FIELDS = ("code", "pointer", "message")


def start_command(
    definition: Mapping[str, Any] | str, input: Json, *, execution_id: str | None, idempotency_key: str | None, by: str, reply_to: str = ""
) -> WorkflowCommand:
    """The command that starts a workflow. With an idempotency key the id derives from tenant, workflow and key.

    `reply_to`: the key in `mplp.module.responses` under which the core answers when the execution is there already.
    """
    data: dict[str, Any] = {"input": {} if input is None else input}
    if isinstance(definition, str):
        data["workflow"] = workflow_id = definition
    else:
        data["definition"] = dict(definition)
        inner = definition.get("workflow", definition)
        workflow_id = str(inner.get("id", "")) if isinstance(inner, Mapping) else ""
    if by:
        data["by"] = by
    if reply_to and (execution_id is not None or idempotency_key is not None):
        data["reply_to"] = reply_to
    if execution_id is not None and not 0 < len(execution_id) <= ID_CHARACTERS_MAX:
        raise InvalidInput("execution.invalid-id", f"An execution's id has 1 to {ID_CHARACTERS_MAX} characters.")
    if idempotency_key is not None:
        data["idempotency_key"] = idempotency_key
    if execution_id is None:
        execution_id = new_id() if idempotency_key is None else derived_id("default", workflow_id, idempotency_key)
    return command_of(execution_id, "start", data)


def command_of(execution_id: str, command: str, data: Json, command_id: str | None = None) -> WorkflowCommand:
    """A command addressed to an execution. `command_id`: the same for a repeat of the same command."""
    return WorkflowCommand(
        id=new_id() if command_id is None else command_id,
        type=f"workflow.{command}",
        source=SOURCE,
        subject=execution_id,
        correlation_id=home_of(execution_id),
        data=data,
        execution_id=execution_id,
        command=command,  # type: ignore[arg-type]  # an unknown one is refused by the codec
    )


def time_of_id(text: str) -> datetime | None:
    """The time in a generated id (UUIDv7), less the clocks' skew; None for other ids."""
    try:
        value = uuid.UUID(text)
    except ValueError:
        return None
    if value.version != 7 or str(value) != text:
        return None
    return from_micros(max(0, (value.int >> 80) - CLOCK_SKEW_MS) * 1000)


def outcome(last: WorkflowTransition) -> dict[str, Any]:
    """What `run_workflow` returns, from an execution's latest transition."""
    data = last.data if isinstance(last.data, Mapping) else {}
    found = {"execution_id": last.execution_id, "status": last.status, "output": data.get("output"), "duration_ms": data.get("duration_ms")}
    for name in ("error", "compensated"):
        if name in data:
            found[name] = data[name]
    return found


#: Refusals that say that what was named does not exist.
_NAMES_NOTHING = frozenset({"execution.unknown", "workflow.unknown"})


def refusal_of(transition: WorkflowTransition) -> BackboneError:
    """The error that a `command.refused` stands for; with all faults of a document, if it names them."""
    data = transition.data if isinstance(transition.data, Mapping) else {}
    error = data.get("error")
    detail = error if isinstance(error, Mapping) else data
    code, message = str(detail.get("code", REFUSED)), str(detail.get("message", "The command was refused."))
    faults = violations_of(detail.get("faults"))
    if faults:
        return InvalidDocument(code, message, faults)
    return (NotFound if code in _NAMES_NOTHING else Refused)(code, message, pointer=detail.get("pointer"))


def result_of(response: ModuleMessage) -> Json:
    """The result in a module's response. Raises the error that it stands for."""
    if response.status != "error" and response.error is None:
        return response.data
    code = response.error.code if response.error is not None else "module.failed"
    message = response.error.message if response.error is not None else "The module failed."
    told = response.data if isinstance(response.data, Mapping) else {}
    raise _error_class(code)(code, message, pointer=told.get("pointer"), faults=violations_of(told.get("faults")))


def violations_of(faults: Any) -> list[Violation]:
    """The faults that an answer lists; none if it lists none."""
    listed = [fault for fault in faults if isinstance(fault, Mapping)] if isinstance(faults, list) else []
    return [Violation(**{name: str(fault.get(name, "")) for name in _FAULT_FIELDS}) for fault in listed]


def _error_class(code: str) -> type[BackboneError]:
    """The family of a module's code: its last words say what kind of refusal it is."""
    word = code.rpartition(".")[2]
    families: Mapping[str, type[BackboneError]] = {
        "invalid": InvalidInput,
        "not-found": NotFound,
        "unknown": NotFound,
        "denied": Denied,
        "unavailable": Unavailable,
        "silent": Unavailable,
        "internal": ModuleFailed,
        "failed": ModuleFailed,
        "hangs": ModuleFailed,
        "ended": ModuleFailed,
        "memory": ModuleFailed,
        "too-large": TooLarge,
    }
    return families.get(word, Refused)
