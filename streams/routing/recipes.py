"""What the filters and transforms of a route make of a record, whoever it is delivered to. Pure.

Routes that filter and transform alike have one recipe, and what it makes of a record is made once for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeAlias

from streams.bus.validate import EventFields, check_micros, check_payload, check_severity, check_texts, check_time, parse_time
from streams.errors import BackboneError, InvalidInput
from streams.matching.expressions import ExpressionFailed, compiled
from streams.matching.matchers import RecordView
from streams.records import Json, from_micros, to_micros
from streams.routing.routes import DropFields, MapFields, RenameFields, Route, SetFields, Transform
from streams.routing.transform import Step, TransformFailed, steps_of

_PAYLOAD = frozenset({"data"})


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


@dataclass(slots=True)
class Made:
    """An event to deliver, checked, but for its id: that is the route's. Its causation is the record that it was made of."""

    original: str  #: id of the record
    type: str
    source: str
    subject: str
    time_us: int  #: microseconds since the epoch
    tenant: str
    correlation_id: str
    data: Json
    severity: str
    text: bytes  #: `data` as JSON
    view: RecordView = field(repr=False)  #: the record that it was made of
    changed: Mapping[str, Any] = field(repr=False)  #: what transforms may have changed of its fields
    written: Any = field(default=None, repr=False)  #: what all who write it write alike
    together: Any = field(default=None, repr=False, compare=False)  #: and what is written of it with those behind it

    @property
    def fields(self) -> Mapping[str, Any]:
        """The record as the last transform left it."""
        return {**self.view.values, **self.changed}

    def event(self, id: str) -> EventFields:
        """The event of a route."""
        return EventFields(
            id, self.type, self.source, self.subject, from_micros(self.time_us), self.tenant, self.correlation_id, self.original or None,
            self.data, self.severity, self.text,
        )  # fmt: skip


Outcome: TypeAlias = Filtered | Rejected | Made


class Recipe:
    """See the module. Equal ones are the same object: `recipe_of`."""

    __slots__ = ("_filters", "_of_payload", "_roots", "_steps")

    def __init__(self, filters: tuple[str, ...], transforms: tuple[Transform, ...]) -> None:
        self._filters = tuple(compiled(text, numbers_alike=True) for text in filters)
        self._steps: tuple[Step, ...] = steps_of(transforms)
        self._roots = frozenset(root for transform in transforms for root in _roots(transform))
        self._of_payload = self._roots <= _PAYLOAD

    def outcome(self, view: RecordView) -> Outcome:
        """What becomes of a record."""
        return self.withheld(view) or self.made(view)

    def withheld(self, view: RecordView) -> Filtered | Rejected | None:
        """Why a filter does not let it through; None: all do."""
        for expression in self._filters:
            try:
                if not expression.holds({"data": view.data} if expression.variables <= _PAYLOAD else view.draft(expression.variables)):
                    return Filtered(why=f"a filter is false: {expression.text}")
            except ExpressionFailed as error:
                return Rejected(code="expression.failed", message=f"A filter has no value: {error}", stage="filter")
        return None

    def made(self, view: RecordView) -> Made | Rejected:
        """What the transforms make of it."""
        try:
            return self._with_payload(view) if self._of_payload else self._with_all(view)
        except TransformFailed as error:
            return Rejected(code=error.code, message=error.message, stage="transform")
        except ExpressionFailed as error:
            return Rejected(code="record.unreadable", message=str(error), stage="transform")
        except BackboneError as error:
            return Rejected(code=error.code, message=error.message, stage="transform")

    def _with_payload(self, view: RecordView) -> Made:
        """Nothing but the payload is read or changed. If it is not changed either, it stays as it is written."""
        record: Mapping[str, Any] = {"data": view.data}
        for step in self._steps:
            record = step(record)
        data = record["data"]
        text = check_payload(data) if self._steps else view.payload
        original, type, source, tenant, correlation_id, _, _ = view.essentials()
        subject, severity = view.text("subject"), view.severity
        check_texts("-", type, source, subject, tenant, correlation_id, original or None)
        check_severity(severity)
        check_micros(view.time_us)
        return Made(
            original, type, source, subject, view.time_us, tenant, correlation_id or original, data, severity, text, view, record
        )  # fmt: skip

    def _with_all(self, view: RecordView) -> Made:
        record = view.draft(self._roots)
        for step in self._steps:
            record = step(record)
        original, time, severity = view.text("id"), record["time"], record.get("severity") or "info"
        type, source, subject, tenant = record["type"], record["source"], record["subject"], record["tenant"]
        correlation_id = record["correlation_id"] or original
        if not isinstance(time, datetime):
            time = _time(time)
        check_texts("-", type, source, subject, tenant, correlation_id, original or None)
        check_severity(severity)
        check_time(time)
        text = check_payload(record["data"])
        return Made(
            original, type, source, subject, to_micros(time), tenant, correlation_id, record["data"], severity, text, view, record
        )  # fmt: skip


def recipe_of(route: Route) -> Recipe:
    """The recipe of a route. Raises as `compiled`."""
    return _recipe(route.filters, route.transforms)


_recipe = lru_cache(maxsize=4096)(Recipe)


def _roots(transform: Transform) -> frozenset[str]:
    """The fields that a transform reads or changes."""
    match transform:
        case SetFields(values=values):
            return frozenset(name for path, text in values for name in (path.root, *_read(text)))
        case RenameFields(pairs=pairs):
            return frozenset(path.root for pair in pairs for path in pair)
        case DropFields(paths=paths):
            return frozenset(path.root for path in paths)
        case MapFields(expression=text):
            # It may change any field that can be set.
            return frozenset({"type", *_read(text)})


def _read(text: str) -> frozenset[str]:
    return compiled(text, numbers_alike=True).variables


def _time(value: Json) -> datetime:
    if not isinstance(value, str):
        raise TransformFailed("transform.type", "time is a timestamp, or a text such as 2026-01-31T12:00:00Z.")
    try:
        return parse_time(value)
    except InvalidInput as error:
        raise TransformFailed("transform.type", f"time: {error.message}") from error
