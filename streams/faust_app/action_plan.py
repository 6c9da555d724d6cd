"""What performing the actions of a composite means: records to write, calls to make, and what is not done and why. Pure.

Everything derives from the composite as it lies in its log, times included: whoever plans it again plans the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, assert_never

import orjson

from streams import limits
from streams.causation import depth_headers
from streams.correlation.actions import Intended, IntendedCall, IntendedEvent, IntendedSignal, IntendedStart, Unrendered
from streams.errors import InvalidInput
from streams.records import (
    CompositeEvent,
    Delivery,
    Json,
    Record,
    Severity,
    SystemEvent,
    WorkflowCommand,
    derived_id,
    from_micros,
)
from streams.topics import COMMANDS, DELIVERIES, SYSTEM_EVENTS, home_of
from streams.webhooks.addresses import Target, target_of
from streams.webhooks.outcomes import Failed

_SOURCE = "mplp/rules"
#: Events about actions that are not performed.
LOOP_STOPPED = "rule.loop-stopped"
ACTION_FAILED = "rule.action-failed"
#: Characters of an error in a report.
_ERROR_CHARACTERS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The composite, where it lies in its log, and how deep in a chain."""

    composite: CompositeEvent
    said_us: int  #: its Kafka timestamp: when it was said
    depth: int = 0

    @property
    def correlation_id(self) -> str:
        """The story of what follows: that of the records if they have one in common, else the composite begins it."""
        return self.composite.correlation_id or self.composite.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One action of one composite."""

    cause: Cause
    index: int  #: of the action in the rule
    action: str  #: its kind
    key: str  #: idempotency key
    destination: str  #: for reports

    @property
    def route(self) -> str:
        """What deliveries and dead letters name."""
        return f"{self.cause.composite.rule_id}/{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """To be written to a topic."""

    task: Task
    topic: str
    topic_key: str
    record: Record
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """To be called."""

    task: Task
    target: Target
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """Not to be done."""

    task: Task
    failed: Failed


Errand: TypeAlias = Write | Call | Undone


def lane_of(errand: Errand) -> str:
    """What it waits in line with: calls with those to the same server, all else in the line of what stays in Kafka ("")."""
    return errand.target.origin if isinstance(errand, Call) else ""


def plan(cause: Cause, intended: Sequence[Intended]) -> list[Errand]:
    """What is to be done for the composite, in the order of the rule's actions."""
    return [_errand(cause, each, index) for index, each in enumerate(intended)]


def unreadable(cause: Cause, error: InvalidInput) -> Undone:
    """Another version of this product has written actions that this one does not know."""
    task = Task(cause=cause, index=0, action="unknown", key=derived_id("action", cause.composite.id, 0), destination="")
    return Undone(task=task, failed=Failed(code=error.code, message=error.message, retryable=False))


def _errand(cause: Cause, intended: Intended, index: int) -> Errand:
    def task(action: str, destination: str) -> Task:
        return Task(cause=cause, index=index, action=action, key=intended.key, destination=destination)

    match intended:
        case IntendedEvent():
            return _bounded(_event(task("emit", SYSTEM_EVENTS), intended), intended.data)
        case IntendedStart():
            return _bounded(_start(task("start-workflow", f"workflow {intended.workflow_id}"), intended), intended.input)
        case IntendedSignal():
            return _bounded(_signal(task("signal-workflow", f"execution {intended.execution_id}"), intended), intended.data)
        case IntendedCall():
            return _call(task("webhook", intended.url.partition("?")[0]), intended)
        case Unrendered(action=action, code=code, message=message):
            return Undone(task=task(action, ""), failed=Failed(code=code, message=message, retryable=False))
        case _:
            assert_never(intended)


def _bounded(write: Write, content: Json) -> Errand:
    """A loop ends here, and so does what no topic would take."""
    task = write.task
    depth = task.cause.depth
    if depth >= limits.TRIGGER_DEPTH_MAX:
        message = f"{depth} triggers and actions have each brought about what led to the next: this goes in circles."
        return Undone(task=task, failed=Failed(code="rule.loop", message=message, retryable=False))
    if len(orjson.dumps(content)) > limits.PAYLOAD_BYTES_MAX - 4096:
        message = f"It leaves no room in a record of {limits.PAYLOAD_BYTES_MAX:,} bytes."
        return Undone(task=task, failed=Failed(code="payload.too-large", message=message, retryable=False))
    return write


def _event(task: Task, intended: IntendedEvent) -> Write:
    composite = task.cause.composite
    # It happens when the composite is said: at the composite's own time it would be late for every rule that reads it.
    event = SystemEvent(
        id=intended.key, type=intended.type, source=f"{_SOURCE}/{composite.rule_id}", subject=_subject(intended.subject),
        time=from_micros(task.cause.said_us), tenant=composite.tenant, correlation_id=task.cause.correlation_id,
        causation_id=composite.id, data=intended.data, severity=composite.severity,
    )  # fmt: skip
    return Write(
        task=task, topic=SYSTEM_EVENTS, topic_key=event.subject or event.id, record=event, headers=depth_headers(task.cause.depth + 1)
    )


def _subject(group: str) -> str:
    """The composite's subject as an event may have it: values of a group are any texts."""
    return "".join(each if each.isprintable() else " " for each in group[: limits.NAME_CHARACTERS_MAX])


def _start(task: Task, intended: IntendedStart) -> Write:
    data = {"workflow": intended.workflow_id, "input": intended.input}
    return _command(task, "start", intended.key, derived_id("start", intended.key), data)


def _signal(task: Task, intended: IntendedSignal) -> Write:
    return _command(task, "signal", intended.execution_id, intended.key, {"name": intended.name, "data": intended.data})


def _command(task: Task, command: str, execution_id: str, command_id: str, data: dict[str, Json]) -> Write:
    cause = task.cause
    depth = cause.depth + 1
    record = WorkflowCommand(
        id=command_id, type=f"workflow.{command}", source=f"{_SOURCE}/{cause.composite.rule_id}", subject=execution_id,
        time=from_micros(cause.said_us), tenant=cause.composite.tenant, correlation_id=cause.correlation_id,
        causation_id=cause.composite.id, data={**data, "by": f"rule {cause.composite.rule_id}", "trigger_depth": depth},
        execution_id=execution_id, command=command,  # type: ignore[arg-type]  # one of two literals
    )  # fmt: skip
    return Write(task=task, topic=COMMANDS, topic_key=home_of(execution_id), record=record, headers=depth_headers(depth))


def _call(task: Task, intended: IntendedCall) -> Call | Undone:
    try:
        target = target_of(intended.url)
        headers = tuple((name, _checked(name, value)) for name, value in intended.headers.items())
    except InvalidInput as error:
        return Undone(task=task, failed=Failed(code=error.code, message=error.message, retryable=False))
    # A call leaves the product: it brings about nothing here by itself, so no loop ends at it.
    return Call(task=task, target=target, headers=headers, body=orjson.dumps(intended.body))


def _checked(name: str, value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise InvalidInput("webhook.header-invalid", f"The header {name} has printable ASCII characters only.")
    return value


# --- reports ---


def delivery(task: Task, attempt: int, outcome: Failed | None, *, retries: bool, latency_ms: float, at: datetime) -> Write:
    """What became of an attempt: `delivered`, `retrying`, or `dead`. A repeat of the same news has the same id."""
    status = "delivered" if outcome is None else "retrying" if retries else "dead"
    composite = task.cause.composite
    data: dict[str, Json] = {"rule": composite.rule_id, "rule_version": composite.rule_version, "action": task.action, "key": task.key}
    if outcome is not None:
        data["code"] = outcome.code
    record = Delivery(
        id=derived_id("delivery", task.key, attempt, status), type=f"delivery.{status}", source=f"{_SOURCE}/{composite.rule_id}", time=at,
        subject=composite.rule_id, tenant=composite.tenant, correlation_id=task.cause.correlation_id, causation_id=composite.id, data=data,
        event_id=composite.id, route_id=task.route, destination=task.destination[:limits.NAME_CHARACTERS_MAX], attempt=attempt,
        status=status, error=None if outcome is None else _said(outcome), latency_ms=round(latency_ms, 3),  # type: ignore[arg-type]
    )  # fmt: skip
    return Write(task=task, topic=DELIVERIES, topic_key=composite.id, record=record, headers=())


def report(task: Task, failed: Failed, attempts: int, at: datetime) -> Write | None:
    """The event about an action that was given up: `rule.loop-stopped`, `rule.action-failed`.

    None at the end of a chain of such events: a rule about failing actions may have one that fails.
    """
    cause, composite = task.cause, task.cause.composite
    if cause.depth > limits.TRIGGER_DEPTH_MAX:
        return None
    looped = failed.code == "rule.loop"
    severity: Severity = "warning" if looped else "error"
    data = {
        "rule": composite.rule_id, "rule_version": composite.rule_version, "composite": composite.id, "action": task.action,
        "index": task.index, "destination": task.destination[:limits.NAME_CHARACTERS_MAX], "code": failed.code,
        "message": failed.message[:_ERROR_CHARACTERS_MAX],
        "attempts": attempts, "depth": cause.depth,
    }  # fmt: skip
    event = SystemEvent(
        id=derived_id("action-report", task.key, failed.code), type=LOOP_STOPPED if looped else ACTION_FAILED,
        source=f"{_SOURCE}/{composite.rule_id}", time=at, subject=composite.rule_id, tenant=composite.tenant,
        correlation_id=cause.correlation_id, causation_id=composite.id, data=data, severity=severity,
    )  # fmt: skip
    return Write(task=task, topic=SYSTEM_EVENTS, topic_key=event.subject, record=event, headers=depth_headers(cause.depth + 1))


def _said(failed: Failed) -> str:
    return f"{failed.code}: {failed.message}"[:_ERROR_CHARACTERS_MAX]
