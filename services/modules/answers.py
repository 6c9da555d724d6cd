"""Answers of the machine: what the log keeps, what is remembered of it, and the record that the caller gets. Pure.

The record sent to a caller is always built from what is remembered, so that a repeat of a request gets the same id and bytes.
"""

from __future__ import annotations

from typing import Any

import orjson

from services.modules.operation import Refusal
from streams import limits
from streams.errors import Violation
from streams.records import Json, MessageError, ModuleMessage, derived_id, from_micros, to_micros

#: An answer is kept at most this long, whatever deadline the request names: that is how long inboxes keep requests.
KEPT_US_MAX = 7 * 24 * 3600 * 1_000_000
ANSWERS_KEPT_US = limits.ANSWERS_KEPT_MS * 1000


def memory_key(request_id: str) -> str:
    """The key under which the answer to a request is remembered."""
    return f"request/{request_id}"


def request_event(request: ModuleMessage, aggregate_id: str, time_us: int) -> ModuleMessage:
    """The request as the log keeps it: as received, with its own id as `causation_id` (an event of a log has an id of the log)."""
    return ModuleMessage(
        id="",
        type=f"{request.target_module}.requested",
        source=request.source or f"mplp/{request.source_module}",
        subject=aggregate_id,
        time=from_micros(time_us),
        tenant=request.tenant,
        correlation_id=request.correlation_id,
        causation_id=request.id,
        data=request.data,
        kind="request",
        source_module=request.source_module,
        target_module=request.target_module,
        operation=request.operation,
        execution_id=request.execution_id,
        step_id=request.step_id,
        attempt=request.attempt,
        reply_to=request.reply_to,
        deadline=request.deadline,
        aggregate_id=aggregate_id,
    )


def response_event(request: ModuleMessage, answer: Json | Refusal, aggregate_id: str | None, time_us: int) -> ModuleMessage:
    """The response as the log keeps it: `data` is the result itself; of a refusal the pointer and the faults, if it has any.

    A module that runs elsewhere has no aggregate; its response is about what the request was about.
    """
    refused = isinstance(answer, Refusal)
    return ModuleMessage(
        id="",
        type=f"{request.target_module}.{'refused' if refused else 'answered'}",
        source=f"mplp/modules/{request.target_module}",
        subject=aggregate_id or request.subject or request.id,
        time=from_micros(time_us),
        tenant=request.tenant,
        correlation_id=request.correlation_id,
        causation_id=request.id,
        data=_refusal_data(answer) if isinstance(answer, Refusal) else answer,
        kind="response",
        source_module=request.target_module or "",
        target_module=request.source_module,
        operation=request.operation,
        execution_id=request.execution_id,
        step_id=request.step_id,
        attempt=request.attempt,
        reply_to=request.reply_to,
        deadline=request.deadline,
        status="error" if refused else "success",
        error=MessageError(code=answer.code, message=answer.message, retryable=answer.retryable) if isinstance(answer, Refusal) else None,
        aggregate_id=aggregate_id,
    )


def _refusal_data(refusal: Refusal) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if refusal.pointer is not None:
        data["pointer"] = refusal.pointer
    if refusal.faults:
        data["faults"] = [fault.to_dict() for fault in refusal.faults]
    return data


def refusal_in(response: ModuleMessage) -> Refusal | None:
    """The refusal that a response of ours tells, as it was; None if it tells none."""
    if response.error is None:
        return None
    data = response.data if isinstance(response.data, dict) else {}
    return Refusal(
        code=response.error.code, message=response.error.message, retryable=response.error.retryable, pointer=data.get("pointer"),
        faults=tuple(Violation(**fault) for fault in data.get("faults", ())),
    )  # fmt: skip


def remembered_until(response: ModuleMessage) -> int:
    """How long the answer is kept, microseconds since the epoch: the request's deadline and an hour."""
    time_us = to_micros(response.time)
    deadline_us = time_us if response.deadline is None else to_micros(response.deadline)
    return min(max(deadline_us, time_us) + ANSWERS_KEPT_US, time_us + KEPT_US_MAX)


def essentials(response: ModuleMessage) -> str:
    """What is remembered of a response: JSON text, since very many are kept at a time."""
    error = response.error
    return orjson.dumps(
        [
            response.causation_id,
            response.type,
            response.source,
            response.subject,
            to_micros(response.time),
            response.tenant,
            response.correlation_id,
            response.data,
            response.source_module,
            response.target_module,
            response.operation,
            response.execution_id,
            response.step_id,
            response.attempt,
            response.reply_to,
            None if response.deadline is None else to_micros(response.deadline),
            None if error is None else [error.code, error.message, error.retryable],
        ]
    ).decode()


def response_to_caller(remembered: str) -> ModuleMessage:
    """The response as the caller gets it on the topic of responses; its id derives from the request's."""
    (
        request_id, type_, source, subject, time_us, tenant, correlation_id, data, source_module, target_module, operation,
        execution_id, step_id, attempt, reply_to, deadline_us, error,
    ) = orjson.loads(remembered)  # fmt: skip
    return ModuleMessage(
        id=response_id(request_id),
        type=type_,
        source=source,
        subject=subject,
        time=from_micros(time_us),
        tenant=tenant,
        correlation_id=correlation_id,
        causation_id=request_id,
        data=data,
        kind="response",
        source_module=source_module,
        target_module=target_module,
        operation=operation,
        execution_id=execution_id,
        step_id=step_id,
        attempt=attempt,
        reply_to=reply_to,
        deadline=None if deadline_us is None else from_micros(deadline_us),
        status="success" if error is None else "error",
        error=None if error is None else MessageError(code=error[0], message=error[1], retryable=error[2]),
    )


def response_id(request_id: str) -> str:
    """The id of the response to a request."""
    return derived_id("response", request_id)
