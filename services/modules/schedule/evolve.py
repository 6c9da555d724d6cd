"""The fold of the events of a workflow's schedules. Pure and total."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.schedule.state import (
    Planned,
    ScheduleEvent,
    ScheduleFired,
    Schedules,
    ScheduleSet,
    ScheduleSkipped,
    ScheduleStarted,
    Starting,
)


def evolve(state: Schedules | None, event: ScheduleEvent, aggregate_id: str, time_us: int) -> Schedules | None:
    """The schedules after `event`."""
    if isinstance(event, ScheduleSet):
        starting = () if state is None else state.starting
        return Schedules(workflow_id=event.workflow_id, order=event.order, planned=event.planned, starting=starting)
    if state is None:
        return None
    match event:
        case ScheduleFired():
            begun = Starting(
                execution_id=event.execution_id,
                cron=event.cron,
                timezone=event.timezone,
                at_us=event.at_us,
                missed_since_us=event.missed_since_us,
            )
            return replace(state, planned=_moved(state, event), starting=(*state.starting, begun))
        case ScheduleSkipped():
            return replace(state, planned=_moved(state, event))
        case ScheduleStarted():
            return replace(state, starting=tuple(each for each in state.starting if each.execution_id != event.execution_id))
        case _:
            assert_never(event)


def _moved(state: Schedules, event: ScheduleFired | ScheduleSkipped) -> tuple[Planned, ...]:
    return tuple(
        replace(each, next_us=event.next_us) if (each.cron, each.timezone) == (event.cron, event.timezone) else each
        for each in state.planned
    )
