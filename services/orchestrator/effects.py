"""Effects of an execution: requests to modules, cancel messages, emitted events.

Built from the state alone, ids and times included, so a new owner of the partition repeats the very same bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, cast, get_args

from services.orchestrator.state import Emitted, Execution, StepState
from streams.causation import depth_headers
from streams.log.types import Send
from streams.records import ModuleMessage, Severity, SystemEvent, derived_id, from_micros
from streams.topics import REQUESTS, SYSTEM_EVENTS, home_of, module_requests

SOURCE = "mplp/orchestrator"
#: What messages name as their source module.
MODULE = "workflow"


def request_id(execution_id: str, instance: str, attempt: int) -> str:
    """Id of an attempt's request: the idempotency key that the module sees, and what its answer names as its cause."""
    return derived_id("request", execution_id, instance, attempt)


def request(state: Execution, instance: str, step: StepState, local_modules: Collection[str]) -> Send:
    """The request of a running attempt."""
    ends = [instant for instant in (step.timeout_us, step.attempt_timeout_us) if instant is not None]
    message = ModuleMessage(
        id=request_id(state.id, instance, step.attempt),
        type=f"{step.module}.requested",
        source=SOURCE,
        subject=state.id,
        time=from_micros(step.attempt_us),
        tenant=state.tenant,
        correlation_id=state.correlation_id,
        data=step.parameters,
        kind="request",
        source_module=MODULE,
        target_module=step.module,
        operation=step.operation,
        execution_id=state.id,
        step_id=instance,
        attempt=step.attempt,
        reply_to=home_of(state.id),
        deadline=from_micros(min(ends)) if ends else None,
    )
    return Send(topic=_inbox(step.module, local_modules), key=home_of(state.id), record=message, headers=depth_headers(state.trigger_depth))


def cancel_message(state: Execution, instance: str, step: StepState, now_us: int) -> Send:
    """Tells a module that runs elsewhere that nobody waits for its answer any more."""
    message = ModuleMessage(
        id=derived_id("cancel", state.id, instance, step.attempt),
        type=f"{step.module}.cancelled",
        source=SOURCE,
        subject=state.id,
        time=from_micros(now_us),
        tenant=state.tenant,
        correlation_id=state.correlation_id,
        causation_id=request_id(state.id, instance, step.attempt),
        data={"request_id": request_id(state.id, instance, step.attempt)},
        kind="notification",
        source_module=MODULE,
        target_module=step.module,
        operation=step.operation,
        execution_id=state.id,
        step_id=instance,
        attempt=step.attempt,
    )
    return Send(topic=module_requests(step.module), key=home_of(state.id), record=message)


def _inbox(module: str, local_modules: Collection[str]) -> str:
    return REQUESTS if module in local_modules else module_requests(module)


def emission(state: Execution, emitted: Emitted) -> Send:
    """The system event of an `emit` step."""
    event: dict[str, Any] = emitted.event
    severity = event.get("severity", "info")
    subject = event.get("subject", state.id)
    record = SystemEvent(
        id=derived_id("emit", state.id, emitted.instance, emitted.attempt),
        type=event["type"],
        source=SOURCE,
        subject=subject,
        time=from_micros(emitted.time_us),
        tenant=state.tenant,
        correlation_id=state.correlation_id,
        data=event.get("data", {}),
        severity=cast(Severity, severity),
    )
    return Send(topic=SYSTEM_EVENTS, key=subject, record=record, headers=depth_headers(state.trigger_depth))


def event_fault(event: dict[str, Any]) -> str | None:
    """What is wrong with the event of an `emit` step after its references were resolved; None: nothing."""
    if not isinstance(event.get("type"), str) or not event["type"]:
        return "The type of an event is a text."
    if not isinstance(event.get("subject", ""), str):
        return "The subject of an event is a text."
    if event.get("severity", "info") not in get_args(Severity):
        return f"The severity of an event is one of {', '.join(get_args(Severity))}."
    return None


def outstanding(state: Execution, local_modules: Collection[str]) -> Iterator[Send]:
    """What the log does not show as done by a module or the broker: requests of running attempts without an answer, emitted events."""
    for instance in state.live_in_order():
        step = state.step(instance)
        if is_asking(step):
            yield request(state, instance, step, local_modules)
    yield from (emission(state, emitted) for emitted in state.emitted)


def is_asking(step: StepState) -> bool:
    """Whether a module has been asked by the step's attempt and its answer would count."""
    return step.status == "running" and step.module != "" and step.fallback is None and step.attempt not in step.answered
