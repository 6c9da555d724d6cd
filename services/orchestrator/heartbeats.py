"""Heartbeats of long operations: what a module's process tells of a running attempt, and what it is told in return. Pure.

The process asks before it begins (so it learns what the latest heartbeat told, also after a crash, and whether the answer is still wanted),
and again whenever the operation has said that it lives. From the first one on silence counts: see `deadlines.Kind.HEARTBEAT`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.orchestrator import effects
from services.orchestrator.state import Execution, StepState, json_bytes, put_step, replace_step
from streams import limits
from streams.log.types import Send
from streams.records import Json, ModuleMessage, WorkflowTransition, derived_id, from_micros, to_micros
from streams.topics import RESPONSES

RECEIVED = "heartbeat.received"


def of_running(state: Execution | None, message: ModuleMessage) -> StepState | None:
    """The step whose running attempt a heartbeat is of; None: the attempt is over, or was never ours."""
    if state is None or message.step_id is None:
        return None
    step = state.step(message.step_id)
    asked = effects.request_id(state.id, message.step_id, message.attempt)
    return step if effects.is_asking(step) and message.attempt == step.attempt and message.causation_id == asked else None


def told(message: ModuleMessage) -> dict[str, Json]:
    """`data` of the transition: `timeout_ms` (how long it may be silent from now on; absent: for ever), `details`, `by` (the process).

    Heartbeats are written by whoever may publish: what does not fit is left out.
    """
    given: Mapping[str, Any] = message.data if isinstance(message.data, Mapping) else {}
    found: dict[str, Json] = {}
    timeout_ms = given.get("timeout_ms")
    if isinstance(timeout_ms, int) and not isinstance(timeout_ms, bool) and 0 < timeout_ms <= limits.HEARTBEAT_MS_MAX:
        found["timeout_ms"] = timeout_ms
    if isinstance(given.get("by"), str):
        found["by"] = given["by"][: limits.ID_CHARACTERS_MAX]
    if "details" in given and json_bytes(given["details"]) <= limits.HEARTBEAT_BYTES_MAX:
        found["details"] = given["details"]
    return found


def answer(message: ModuleMessage, step: StepState | None, time_us: int) -> Send:
    """What the process is told: whether the attempt is still `wanted`, and the `details` that the latest heartbeat before told."""
    response = ModuleMessage(
        id=derived_id("response", message.id),
        type="workflow.answered",
        source=effects.SOURCE,
        subject=message.subject,
        time=from_micros(time_us),
        tenant=message.tenant,
        correlation_id=message.correlation_id,
        causation_id=message.id,
        data={"wanted": step is not None, "details": None if step is None else step.details},
        kind="response",
        source_module=effects.MODULE,
        target_module=message.source_module,
        operation=message.operation,
        reply_to=message.reply_to,
        status="success",
    )
    return Send(topic=RESPONSES, key=message.reply_to or "", record=response, hand_over=False)


def received(state: Execution, event: WorkflowTransition) -> dict[str, Any]:
    """How a heartbeat changes an execution: its silence is counted anew, and what it tells is kept for the next attempt."""
    step, timeout_ms = state.step(event.step_id or ""), event.data.get("timeout_ms")
    after = replace_step(
        step,
        silent_us=None if timeout_ms is None else to_micros(event.time) + timeout_ms * 1000,
        heartbeat_ms=timeout_ms or 0,
        details=event.data.get("details", step.details),
    )
    change: dict[str, Any] = {}
    put_step(change, state, event.step_id or "", after)
    return change
