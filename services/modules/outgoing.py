"""What built-in modules send: requests to other modules, whose answers come back to the inbox of requests, and workflow commands. Pure.

The answer to a request of ours carries its `step_id`: the aggregate that asked, and what it asked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from streams.log.types import Send
from streams.operations import CONTRACT
from streams.records import CommandName, Json, ModuleMessage, WorkflowCommand, from_micros
from streams.topics import COMMANDS, REQUESTS, RESPONSES, home_of, module_requests

#: Between the aggregate and what it asked for, in a `step_id`.
MARK = "#"


def place_of(aggregate_id: str, part: str) -> str:
    """The `step_id` of what an aggregate asks for."""
    return f"{aggregate_id}{MARK}{part}"


def asked_by(message: ModuleMessage) -> tuple[str, str]:
    """The aggregate that asked for what this message answers, and what it asked for; empty texts: none of ours did."""
    aggregate_id, mark, part = (message.step_id or "").rpartition(MARK)
    return (aggregate_id, part) if mark else ("", "")


def ask(
    asker: str, aggregate_id: str, part: str, module: str, operation: str, parameters: Json, *, id: str, time_us: int,
    deadline_us: int | None = None, attempt: int = 1, correlation_id: str = "", tenant: str = "default", key: str | None = None,
) -> Send:  # fmt: skip
    """A request of the module `asker` for one of its aggregates. `key`: where it begins, by default with the aggregate."""
    home = home_of(aggregate_id)
    message = ModuleMessage(
        id=id,
        type=f"{module}.requested",
        source=f"mplp/modules/{asker}",
        subject=home if key is None else key,
        time=from_micros(time_us),
        tenant=tenant,
        correlation_id=correlation_id or home,
        data=parameters,
        kind="request",
        source_module=asker,
        target_module=module,
        operation=operation,
        step_id=place_of(aggregate_id, part),
        attempt=attempt,
        reply_to=home,
        deadline=None if deadline_us is None else from_micros(deadline_us),
    )
    topic = REQUESTS if module in CONTRACT else module_requests(module)
    return Send(topic=topic, key=home if key is None else key, record=message)


def command(
    execution_id: str, name: CommandName, data: dict[str, Any], *, id: str, source: str, time_us: int, correlation_id: str = "",
    causation_id: str | None = None, tenant: str = "default", answer: tuple[str, str, str] | None = None,
) -> Send:  # fmt: skip
    """A command to an execution. `answer`: the module, the aggregate and the part to which its answer comes."""
    if answer is not None:
        asker, aggregate_id, part = answer
        data = {**data, "answer_to": {"module": asker, "step_id": place_of(aggregate_id, part), "reply_to": home_of(aggregate_id)}}
    record = WorkflowCommand(
        id=id,
        type=f"workflow.{name}",
        source=source,
        subject=execution_id,
        time=from_micros(time_us),
        tenant=tenant,
        correlation_id=correlation_id,
        causation_id=causation_id,
        data=data,
        execution_id=execution_id,
        command=name,
    )
    # By the topic: a definition that a start brings along is put on record before it is decided.
    return Send(topic=COMMANDS, key=home_of(execution_id), record=record, hand_over=False)


def ask_orchestrator(
    asker: str, aggregate_id: str, part: str, operation: str, data: dict[str, Any], *, key: str, id: str, time_us: int,
    correlation_id: str = "", tenant: str = "default",
) -> Send:  # fmt: skip
    """A question to the orchestrator (`CHECK`, `STATUS`), at the execution or wherever `key` belongs; it answers as modules do."""
    sent = ask(
        asker, aggregate_id, part, "workflow", operation, data, id=id, time_us=time_us, correlation_id=correlation_id, tenant=tenant
    )  # fmt: skip
    return replace(sent, topic=RESPONSES, key=home_of(key))
