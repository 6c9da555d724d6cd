"""What a rule does besides saying a composite: actions as the rule has them, and as they are intended for one composite. Pure.

Who performs an intended action does so at least once, with `Intended.key` as idempotency key. Only the first saying of a composite
(revision 0) intends anything: a revision corrects what is known, it does not act again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never

from streams import limits
from streams.correlation.templates import Template
from streams.correlation.templates import render as rendered
from streams.matching.expressions import ExpressionFailed
from streams.records import CompositeEvent, Json, derived_id, iso

if TYPE_CHECKING:
    from streams.correlation.rules import Rule

# --- as a rule has them ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Emit:
    """A `SystemEvent` of this type, caused by the composite; its `data` is the composite's."""

    type: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWorkflow:
    """An execution of a workflow."""

    id: Template
    input: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalWorkflow:
    """A signal to an execution."""

    execution: Template
    name: Template
    data: Template


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A POST of a JSON body; without one of the composite itself."""

    url: Template
    headers: Template
    body: Template


Action: TypeAlias = Emit | StartWorkflow | SignalWorkflow | Webhook

#: What each kind is called in rules.
KINDS: Mapping[type[Action], str] = {
    Emit: "emit", StartWorkflow: "start-workflow", SignalWorkflow: "signal-workflow", Webhook: "webhook",
}  # fmt: skip

# --- as they are intended ---


@dataclass(frozen=True, slots=True, kw_only=True)
class IntendedEvent:
    """To publish on `mplp.system.events`."""

    key: str
    type: str
    subject: str
    data: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class IntendedStart:
    """To start an execution."""

    key: str
    workflow_id: str
    input: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class IntendedSignal:
    """To signal an execution."""

    key: str
    execution_id: str
    name: str
    data: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class IntendedCall:
    """To POST."""

    key: str
    url: str
    headers: Mapping[str, str]
    body: Json
    whole: bool = False  #: the body is the composite itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrendered:
    """An action that cannot be performed: a template has no value, or not the kind of value that is needed."""

    key: str
    index: int  #: of the action in the rule
    action: str  #: its kind
    code: str
    message: str


Intended: TypeAlias = IntendedEvent | IntendedStart | IntendedSignal | IntendedCall | Unrendered


def render(rule: Rule, composite: CompositeEvent, events: Sequence[Mapping[str, Any]]) -> list[Intended]:
    """What the rule intends for the composite, in the order of its actions.

    `events` are the composite's records as CEL sees them (`streams.correlation.explain.event_values`).
    """
    if composite.revision or composite.retracted:
        return []
    values = values_of(rule, composite, events)
    return [
        _intended(action, derived_id("action", composite.id, index), index, values, composite) for index, action in enumerate(rule.actions)
    ]


def values_of(rule: Rule, composite: CompositeEvent, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What templates read."""
    document = rule.document if isinstance(rule.document, dict) else {}
    return {
        "rule": {
            "id": rule.id, "title": rule.title, "severity": rule.severity, "type": rule.type, "version": composite.rule_version,
            "description": document.get("description", ""), "tags": document.get("tags", []),
        },
        "group": dict(composite.group_key),
        "composite": as_json(composite),
        "events": list(events),
    }  # fmt: skip


def as_json(composite: CompositeEvent) -> dict[str, Any]:
    """The composite's own fields as JSON, as they are on the topic."""
    return {
        "id": composite.id, "type": composite.type, "subject": composite.subject, "time": iso(composite.time), "tenant": composite.tenant,
        "correlation_id": composite.correlation_id, "causation_id": composite.causation_id, "data": composite.data,
        "rule_id": composite.rule_id, "rule_version": composite.rule_version, "correlation_type": composite.correlation_type,
        "group_key": dict(composite.group_key), "window_start": iso(composite.window_start), "window_end": iso(composite.window_end),
        "event_ids": list(composite.event_ids), "event_count": composite.event_count, "confidence": composite.confidence,
        "severity": composite.severity, "explanation": composite.explanation, "revision": composite.revision,
        "retracted": composite.retracted, "suppressed_count": composite.suppressed_count,
        "insights": [{"type": insight.type, "summary": insight.summary, "data": insight.data} for insight in composite.insights],
    }  # fmt: skip


def _intended(action: Action, key: str, index: int, values: Mapping[str, Any], composite: CompositeEvent) -> Intended:
    try:
        match action:
            case Emit(type=type_):
                return IntendedEvent(key=key, type=_text(rendered(type_, values), "emit"), subject=composite.subject, data=composite.data)
            case StartWorkflow(id=workflow, input=input_):
                return IntendedStart(key=key, workflow_id=_text(rendered(workflow, values), "id"), input=rendered(input_, values))
            case SignalWorkflow(execution=execution, name=name, data=data):
                return IntendedSignal(
                    key=key, execution_id=_text(rendered(execution, values), "execution"), name=_text(rendered(name, values), "name"),
                    data=rendered(data, values),
                )  # fmt: skip
            case Webhook(url=url, headers=headers, body=body):
                said = {name: _text(value, f"headers/{name}") for name, value in rendered(headers, values).items()}
                content = as_json(composite) if body is None else rendered(body, values)
                return IntendedCall(key=key, url=_text(rendered(url, values), "url"), headers=said, body=content, whole=body is None)
            case _:
                assert_never(action)
    except ExpressionFailed as error:
        return Unrendered(key=key, index=index, action=KINDS[type(action)], code="action.unrendered", message=str(error))


def _text(value: Json, name: str) -> str:
    if not isinstance(value, str) or not value or len(value) > limits.NAME_CHARACTERS_MAX:
        raise ExpressionFailed(f"{name} must be a text of 1 to {limits.NAME_CHARACTERS_MAX} characters, not {str(value)[:60]!r}")
    return value
