"""Which published workflows an event starts. Pure; a new set of definitions is a new index.

An event belongs to the definition that was in force at its Kafka timestamp, so a worker that reads it later, or again, decides the
same. An id that derives from workflow, trigger and event makes the second start of it none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from streams import limits
from streams.definitions import definition_hash
from streams.matching.expressions import Expression, ExpressionFailed, compiled
from streams.matching.globs import compile_glob
from streams.matching.matchers import RecordView
from streams.records import Record, SystemEvent, WorkflowCommand, derived_id
from streams.triggers import EventTrigger, execution_for_event, read_triggers

_SOURCE = "mplp/triggers"
#: Tells that a trigger was not followed; starts nothing itself.
REFUSED = "trigger.refused"
#: Definitions of an id that are remembered: events read late belong to older ones.
_EDITIONS_MAX = 20
_TYPES_REMEMBERED_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """A published definition's event triggers, in force from `from_ms` until before `until_ms` (None: still), Kafka timestamps."""

    workflow_id: str
    hash: str
    triggers: tuple[EventTrigger, ...]
    from_ms: int
    until_ms: int | None = None


class Editions:
    """The definitions of all ids, in the order in which the control topic has them."""

    def __init__(self) -> None:
        self._by_id: dict[str, list[Edition]] = {}

    def publish(self, workflow: Mapping[str, Any], time_ms: int) -> bool:
        """A definition is the newest of its id; whether anything about triggers has changed."""
        workflow_id = workflow["id"]
        triggers = tuple(trigger for trigger in read_triggers(workflow) if isinstance(trigger, EventTrigger))
        changed = self.withdraw(workflow_id, time_ms) or bool(triggers)
        if triggers:
            edition = Edition(workflow_id=workflow_id, hash=definition_hash(dict(workflow)), triggers=triggers, from_ms=time_ms)
            self._by_id[workflow_id] = [*self._by_id.get(workflow_id, ()), edition][-_EDITIONS_MAX:]
        return changed

    def withdraw(self, workflow_id: str, time_ms: int) -> bool:
        """The id is no longer published; whether it had triggers."""
        editions = self._by_id.get(workflow_id)
        if not editions or editions[-1].until_ms is not None:
            return False
        last = editions[-1]
        ended = Edition(
            workflow_id=last.workflow_id, hash=last.hash, triggers=last.triggers, from_ms=last.from_ms, until_ms=max(time_ms, last.from_ms)
        )
        self._by_id[workflow_id] = [*editions[:-1], ended]
        return True

    def all(self) -> list[Edition]:
        """All of them, by id and time."""
        return [edition for workflow_id in sorted(self._by_id) for edition in self._by_id[workflow_id]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """An event starts a workflow."""

    workflow_id: str
    hash: str
    trigger: int
    execution_id: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    edition: Edition
    trigger: EventTrigger
    fits: Callable[[str], bool]
    where: Expression | None


class StartIndex:
    """Event triggers by topic and type: a record pays only for triggers whose glob its type satisfies."""

    def __init__(self, editions: Sequence[Edition] = ()) -> None:
        self._candidates = [
            _Candidate(
                edition,
                trigger,
                compile_glob(trigger.event),
                None if trigger.where is None else compiled(trigger.where, numbers_alike=True),
            )
            for edition in editions
            for trigger in edition.triggers
        ]
        self._by_type: dict[tuple[str, str], list[_Candidate]] = {}
        self.failed = 0  #: filters that had no value for a record
        self.topics = frozenset(trigger.topic for edition in editions if edition.until_ms is None for trigger in edition.triggers)

    def __bool__(self) -> bool:
        """Whether there is any trigger."""
        return bool(self._candidates)

    def concerns(self, topic: str, record_type: str) -> list[_Candidate]:
        """The triggers that records of this type in this topic may satisfy."""
        found = self._by_type.get((topic, record_type))
        if found is None:
            found = [each for each in self._candidates if each.trigger.topic == topic and record_type != REFUSED and each.fits(record_type)]
            if len(self._by_type) >= _TYPES_REMEMBERED_MAX:
                self._by_type.clear()
            self._by_type[topic, record_type] = found
        return found

    def hits(self, topic: str, view: RecordView, time_ms: int) -> list[Hit]:
        """What the record starts; a filter without a value for it does not hold."""
        found = []
        for each in self.concerns(topic, view.type):
            edition = each.edition
            if time_ms < edition.from_ms or (edition.until_ms is not None and time_ms >= edition.until_ms):
                continue
            try:
                if each.where is not None and not each.where.holds(view.values):
                    continue
            except ExpressionFailed:
                self.failed += 1
                continue
            execution_id = execution_for_event(edition.workflow_id, each.trigger.index, view.text("id"))
            found.append(Hit(workflow_id=edition.workflow_id, hash=edition.hash, trigger=each.trigger.index, execution_id=execution_id))
        return found


def outcome_of(hit: Hit, event: Mapping[str, Any], record: Record, depth: int) -> WorkflowCommand | SystemEvent:
    """The start of an execution, or why there is none: an event (`trigger.refused`) with the code `trigger.loop`, `payload.too-large`.

    `event` is the record as JSON. `depth` says how many executions, each started by what the one before it emitted, led to it.
    """
    data = {
        "workflow": hit.workflow_id,
        "definition_hash": hit.hash,
        "trigger": hit.trigger,
        "event": dict(event),
        "trigger_depth": depth + 1,
    }
    if depth >= limits.TRIGGER_DEPTH_MAX:
        return _refused(hit, record, "trigger.loop", f"{depth} executions have each started the next by an event: this goes in circles.")
    if len(orjson.dumps(data)) > limits.PAYLOAD_BYTES_MAX:
        return _refused(hit, record, "payload.too-large", f"The event leaves no room in a command of {limits.PAYLOAD_BYTES_MAX} bytes.")
    return WorkflowCommand(
        id=derived_id("start", hit.execution_id),
        type="workflow.start",
        source=_SOURCE,
        subject=hit.execution_id,
        time=record.time,
        tenant=record.tenant,
        correlation_id=record.correlation_id or record.id,
        causation_id=record.id,
        data=data,
        execution_id=hit.execution_id,
        command="start",
    )


def _refused(hit: Hit, record: Record, code: str, message: str) -> SystemEvent:
    return SystemEvent(
        id=derived_id("refused", hit.execution_id),
        type=REFUSED,
        source=_SOURCE,
        subject=hit.workflow_id,
        time=record.time,
        tenant=record.tenant,
        correlation_id=record.correlation_id or record.id,
        causation_id=record.id,
        severity="error",
        data={"code": code, "message": message, "workflow": hit.workflow_id, "trigger": hit.trigger, "event": record.id},
    )
