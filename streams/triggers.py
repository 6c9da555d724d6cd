"""What starts a workflow by itself: events with a filter, and schedules, as a published definition names them. Pure.

The documents read here were checked before they were published (`services.orchestrator.triggering`); the streams match events
with them and the module log keeps the schedules, so their shape is known where no definition is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from streams.errors import InvalidInput
from streams.records import Json, derived_id, from_micros, iso
from streams.schedules import Cron
from streams.topics import SYSTEM_EVENTS

#: Target of the messages about schedules.
SCHEDULE_MODULE = "schedule"

Missed: TypeAlias = Literal["latest", "all", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTrigger:
    """An execution for every event of a type (a glob) for which `where` (CEL) holds. `index`: place in `triggers`."""

    index: int
    event: str
    where: str | None = None
    topic: str = SYSTEM_EVENTS
    input: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CronTrigger:
    """An execution at each time of a schedule. `missed`: what becomes of times at which nothing ran."""

    index: int
    cron: Cron
    missed: Missed = "latest"
    input: Json = None


Trigger: TypeAlias = EventTrigger | CronTrigger


def read_triggers(workflow: Mapping[str, Any]) -> tuple[Trigger, ...]:
    """The triggers of a workflow (without its wrapper) that was found to be valid."""
    return tuple(_read(index, given) for index, given in enumerate(workflow.get("triggers", ())))


def _read(index: int, given: Mapping[str, Any]) -> Trigger:
    payload = given.get("input", {})
    if "event" in given:
        return EventTrigger(
            index=index, event=given["event"], where=given.get("where"), topic=given.get("topic", SYSTEM_EVENTS), input=payload
        )
    return CronTrigger(
        index=index, cron=Cron(given["cron"], given.get("timezone", "UTC")), missed=given.get("missed", "latest"), input=payload
    )


def triggers_shown(workflow: Mapping[str, Any], now_us: int) -> list[dict[str, Json]]:
    """What starts a published workflow, for people: `{event, topic, where?}` or `{cron, timezone, missed, next}`.

    `next` is the schedule's first time after `now_us` (RFC 3339); None where what was published is no schedule that ever comes.
    """
    given = workflow.get("triggers")
    return [_shown(trigger, now_us) for trigger in (given if isinstance(given, list) else ()) if isinstance(trigger, dict)]


def _shown(given: Mapping[str, Any], now_us: int) -> dict[str, Json]:
    if "event" in given:
        where = {"where": given["where"]} if "where" in given else {}
        return {"event": given["event"], "topic": given.get("topic", SYSTEM_EVENTS), **where}
    cron, timezone = str(given.get("cron")), str(given.get("timezone", "UTC"))
    try:
        following = iso(from_micros(Cron.checked(cron, timezone).next_after(now_us)))
    except InvalidInput:
        following = None
    return {"cron": cron, "timezone": timezone, "missed": given.get("missed", "latest"), "next": following}


def execution_for_event(workflow_id: str, index: int, event_id: str) -> str:
    """Id of the execution that an event starts: the same for whoever sees the event, however often."""
    return derived_id("trigger", workflow_id, index, event_id)


def execution_for_time(workflow_id: str, cron: Cron, time_us: int) -> str:
    """Id of the execution that a schedule starts at an instant, microseconds since the epoch."""
    return derived_id("schedule", workflow_id, cron.expression, cron.timezone, time_us)
