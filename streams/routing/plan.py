"""What a route does with one record: not its business, filtered, refused, or an event to deliver. Pure.

Everything derives from the record and the route: whoever plans it again plans the same bytes, ids included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from streams import limits
from streams.bus.validate import EventFields, fields_of, parse_time
from streams.errors import BackboneError, InvalidInput
from streams.matching.expressions import Expression, ExpressionFailed, compiled
from streams.matching.matchers import RecordView
from streams.records import Json, SystemEvent, derived_id, iso
from streams.routing.routes import ActiveRoute, Route, ToModule, ToTopic
from streams.routing.transform import Step, TransformFailed, step_of, value_of

_PAYLOAD = frozenset({"data"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """The record is not the route's business."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered:
    """A filter is false."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """There is nothing that could be delivered, and another attempt would not change that: a dead letter."""

    code: str
    message: str
    stage: str  #: filter, transform or deliver


@dataclass(frozen=True, slots=True)
class Ready:
    """What is delivered."""

    event: EventFields
    parameters: Mapping[str, Json] | None = None  #: of a module's operation


Outcome: TypeAlias = Unmatched | Filtered | Rejected | Ready


class Plan:
    """A route, ready for records."""

    __slots__ = ("_filters", "_parameters", "_steps", "active", "leaves", "route")

    def __init__(self, active: ActiveRoute) -> None:
        self.active = active
        self.route: Route = active.route
        self._filters = tuple(compiled(text, numbers_alike=True) for text in active.route.filters)
        self._steps: tuple[Step, ...] = tuple(step_of(transform) for transform in active.route.transforms)
        destination = active.route.destination
        self._parameters: tuple[tuple[str, Expression], ...] = ()
        if isinstance(destination, ToModule):
            self._parameters = tuple((name, compiled(text, numbers_alike=True)) for name, text in destination.parameters)
        #: Whether what it delivers leaves the product: then no loop goes through it.
        self.leaves = not isinstance(destination, ToTopic | ToModule)

    def outcome(self, topic: str | None, view: RecordView, depth: int = 0) -> Outcome:
        """What becomes of a record. `topic`: None if it is not known; `depth`: see `streams.causation`."""
        why = self.mismatch(topic, view)
        return self.outcome_of_match(view, depth) if why is None else Unmatched(why=why)

    def mismatch(self, topic: str | None, view: RecordView) -> str | None:
        """Why the record does not satisfy the matcher, a sentence; None: it does."""
        matcher, match = self.active.matcher, self.route.match
        if not matcher.concerns(topic, view.type):
            if topic is not None and topic not in self.route.topics:
                return f"the route reads {', '.join(self.route.topics)}, not {topic}"
            return f"its type {view.type} does not satisfy {', '.join(matcher.patterns or ('**',))}"
        try:
            if matcher.holds(view):
                return None
            if matcher.holds(view, where=False):
                return f"where is false: {match.where}"
        except ExpressionFailed as error:
            return f"where has no value: {error}"
        return "its source, subject or severity is another"

    def outcome_of_match(self, view: RecordView, depth: int = 0) -> Outcome:
        """What becomes of a record that satisfies the matcher."""
        for expression in self._filters:
            try:
                if not expression.holds({"data": view.data} if expression.variables <= _PAYLOAD else view.values):
                    return Filtered(why=f"a filter is false: {expression.text}")
            except ExpressionFailed as error:
                return Rejected(code="expression.failed", message=f"A filter has no value: {error}", stage="filter")
        if depth >= limits.TRIGGER_DEPTH_MAX and not self.leaves:
            message = f"{depth} routes, triggers and actions have each brought about what led to the next: this goes in circles."
            return Rejected(code="route.loop", message=message, stage="deliver")
        try:
            return self._made(view)
        except TransformFailed as error:
            return Rejected(code=error.code, message=error.message, stage="transform")
        except ExpressionFailed as error:
            return Rejected(code="record.unreadable", message=str(error), stage="transform")
        except BackboneError as error:
            return Rejected(code=error.code, message=error.message, stage="transform")

    def _made(self, view: RecordView) -> Ready:
        record: Mapping[str, Any] = view.values
        for step in self._steps:
            record = step(record)
        original: str = view.text("id")
        time = record["time"]
        event = SystemEvent(
            id=derived_id("route", self.route.id, original), type=record["type"], source=record["source"], subject=record["subject"],
            time=time if isinstance(time, datetime) else _time(time), tenant=record["tenant"],
            correlation_id=record["correlation_id"] or original, causation_id=original or None, data=record["data"],
            severity=record.get("severity") or "info",
        )  # fmt: skip
        fields = fields_of(event)
        if not isinstance(self.route.destination, ToModule):
            return Ready(fields)
        if not self._parameters:
            if not isinstance(record["data"], dict):
                raise TransformFailed("transform.not-object", "The parameters of an operation are an object, and so is the payload then.")
            return Ready(fields, record["data"])
        return Ready(fields, {name: value_of(expression, record) for name, expression in self._parameters})


def shown(event: EventFields) -> dict[str, Json]:
    """The event as people and programs get it."""
    return {
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "subject": event.subject,
        "time": iso(event.time),
        "tenant": event.tenant,
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "data": event.data,
        "severity": event.severity,
        **dict.fromkeys(("aggregate_id", "sequence", "epoch", "input")),
    }


def _time(value: Json) -> datetime:
    if not isinstance(value, str):
        raise TransformFailed("transform.type", "time is a timestamp, or a text such as 2026-01-31T12:00:00Z.")
    try:
        return parse_time(value)
    except InvalidInput as error:
        raise TransformFailed("transform.type", f"time: {error.message}") from error
