"""Triggers of a definition: what may be wrong with them, and the input of an execution that one has started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any

from services.orchestrator.definition import Definition
from services.orchestrator.effects import MODULE, SOURCE
from services.orchestrator.names import expression_faults
from services.orchestrator.references import Reference, ReferenceMissing, ReferenceSyntax, references_in, resolve, walk
from services.orchestrator.schema import pointer_of
from services.orchestrator.sight import NOWHERE, Sight
from services.orchestrator.tree import Path
from streams.errors import InvalidInput, Refused, Violation
from streams.records import CompositeEvent, ControlRecord, Json, ModuleMessage, SystemEvent, WorkflowCommand, WorkflowTransition, derived_id
from streams.schedules import check_expression, zone_of
from streams.topics import BY_NAME, COMPOSITES, SYSTEM_EVENTS
from streams.triggers import SCHEDULE_MODULE, CronTrigger, Trigger, read_triggers

#: What the CEL of `where` may read: fields of records, by name.
_FIELDS = frozenset(field.name for record in (SystemEvent, CompositeEvent, WorkflowTransition, ModuleMessage) for field in fields(record))
#: Topics of ours that may start something; not the engine's logs, inboxes and controls. Topics of others may.
_SOURCES = frozenset({SYSTEM_EVENTS, COMPOSITES})


def trigger_faults(workflow: dict[str, Any], path: Path) -> Iterator[Violation]:
    """What the schema cannot say about triggers."""
    given = workflow.get("triggers")
    yield from _twice(given if isinstance(given, list) else [], path)
    for place, trigger in enumerate(given if isinstance(given, list) else ()):
        if isinstance(trigger, dict):
            yield from _faults(trigger, (*path, "triggers", place))


def _twice(triggers: list[Json], path: Path) -> Iterator[Violation]:
    """A schedule that is given twice: its executions would have the same ids."""
    met: set[tuple[str, str]] = set()
    for place, trigger in enumerate(triggers):
        cron, timezone = (trigger.get("cron"), trigger.get("timezone", "UTC")) if isinstance(trigger, dict) else (None, None)
        if isinstance(cron, str) and isinstance(timezone, str):
            if (cron, timezone) in met:
                yield Violation(
                    code="trigger.duplicate", pointer=pointer_of((*path, "triggers", place)), message="Another trigger has this schedule."
                )
            met.add((cron, timezone))


def _faults(trigger: dict[str, Any], path: Path) -> Iterator[Violation]:
    where, topic = trigger.get("where"), trigger.get("topic")
    if isinstance(where, str):
        yield from expression_faults(where, pointer_of((*path, "where")), Sight([]), NOWHERE, _FIELDS)
    if isinstance(topic, str) and topic in BY_NAME and topic not in _SOURCES:
        yield Violation(
            code="trigger.topic", pointer=pointer_of((*path, "topic")),
            message=f"Records of {topic} start nothing: what a workflow does would start the next without end. Let a rule read it.",
        )  # fmt: skip
    for key, check in (("cron", check_expression), ("timezone", zone_of)):
        if isinstance(trigger.get(key), str):
            try:
                check(trigger[key])
            except InvalidInput as error:
                yield Violation(code="schema.format", pointer=pointer_of((*path, key)), message=error.message)
    yield from _input_faults(trigger.get("input"), (*path, "input"))


def _input_faults(value: Json, path: Path) -> Iterator[Violation]:
    """References in the mapping: nothing is there yet but the event."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _input_faults(item, (*path, key))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _input_faults(item, (*path, place))
    elif isinstance(value, str) and "${" in value:
        try:
            unknown = [reference for reference in references_in(value) if reference.root != "event"]
        except ReferenceSyntax as error:
            yield Violation(code="reference.syntax", pointer=pointer_of(path), message=str(error))
            return
        for reference in unknown:
            yield Violation(
                code="reference.unknown", pointer=pointer_of(path), message=f"{reference}: before the start there is only ${{event.…}}."
            )


def schedules_message(record: ControlRecord, workflow: Mapping[str, Any], order: int) -> ModuleMessage | None:
    """What the keeper of schedules is told of a published revision (or, without a workflow, of its end) at `order` of the control topic.

    None: it never heard of this id and has nothing to hear.
    """
    found = [trigger for trigger in read_triggers(workflow) if isinstance(trigger, CronTrigger)]
    if not found and record.version <= 1:
        return None
    given = [{"cron": each.cron.expression, "timezone": each.cron.timezone, "missed": each.missed} for each in found]
    return ModuleMessage(
        id=derived_id("schedules", record.id, order),
        type="schedule.notified",
        source=SOURCE,
        subject=record.id,
        time=record.time,
        correlation_id=record.id,
        causation_id=record.id,
        data={"workflow": record.id, "order": order, "schedules": given},
        kind="notification",
        source_module=MODULE,
        target_module=SCHEDULE_MODULE,
        operation="set",
    )


def triggered(command: WorkflowCommand, definition: Definition) -> WorkflowCommand:
    """A start by a trigger with its input made from the event; other starts as they are.

    Raises `Refused`: `trigger.unknown`, `reference.missing`.
    """
    data = command.data
    if "trigger" not in data:
        return command
    trigger = _wanted(data, definition)
    try:
        payload = input_of(trigger, data.get("event"))
    except ReferenceMissing as error:
        raise Refused("reference.missing", f"The input of trigger {trigger.index} cannot be made: {error}") from error
    return replace(command, data={**data, "input": payload})


def _wanted(data: dict[str, Any], definition: Definition) -> Trigger:
    """The trigger that a start names: by its place, or by the schedule that another revision of the definition may have elsewhere."""
    named = data["trigger"]
    for trigger in definition.triggers:
        if isinstance(trigger, CronTrigger):
            if named == {"cron": trigger.cron.expression, "timezone": trigger.cron.timezone}:
                return trigger
        elif named == trigger.index:
            return trigger
    raise Refused("trigger.unknown", f"The workflow {definition.id} has no such trigger (any more): {str(named)[:100]}.")


def input_of(trigger: Trigger, event: Json) -> Json:
    """The input of an execution that `event` starts. Raises `ReferenceMissing`."""

    def lookup(reference: Reference) -> Json:
        return walk(event, reference.path, reference)

    return resolve(trigger.input, lookup)


__all__ = ["input_of", "schedules_message", "trigger_faults", "triggered"]
