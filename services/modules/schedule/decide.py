"""What becomes of publications and of times: events, and starts of executions. Pure.

**Once.** The id of an execution derives from workflow, schedule and instant. A start is an effect that is awaited; only then the
machine tells itself that it is on its way (`schedule.started`). A new owner repeats the starts of which that is not on record, and
the orchestrator starts an execution once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from services.modules.built_in import Aggregate, BuiltIn
from services.modules.operation import Decided, Follow
from services.modules.schedule.evolve import evolve
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
from streams.errors import InvalidInput
from streams.log.types import Due, Send, View
from streams.records import ModuleMessage, WorkflowCommand, derived_id, from_micros, iso
from streams.schedules import Cron, zone_of
from streams.topics import COMMANDS, REQUESTS, home_of
from streams.triggers import SCHEDULE_MODULE, execution_for_time

#: A time that nothing ran at for so long is missed.
LATE_US = 60_000_000


def aggregate_of(workflow_id: str) -> str:
    """Id of the aggregate with the schedules of a workflow."""
    return f"{workflow_id}/schedule"


def due(state: Schedules) -> int | None:
    """When the next time comes."""
    return min((each.next_us for each in state.planned), default=None)


def take(state: Schedules | None, message: ModuleMessage, time_us: int) -> list[ScheduleEvent]:
    """What follows from a notification: of a revision (`set`), or that a start is on its way (`started`). A repeat changes nothing."""
    data = message.data if isinstance(message.data, dict) else {}
    if message.operation == "started":
        execution_id = data.get("execution_id")
        known = state is not None and any(each.execution_id == execution_id for each in state.starting)
        return [ScheduleStarted(execution_id=str(execution_id))] if known else []
    order, workflow_id, given = data.get("order"), data.get("workflow"), data.get("schedules")
    if message.operation != "set" or not isinstance(order, int) or not isinstance(workflow_id, str) or not isinstance(given, list):
        return []
    if (state is None and not given) or (state is not None and order <= state.order):
        return []
    before = {} if state is None else {(each.cron, each.timezone): each.next_us for each in state.planned}
    try:
        planned = tuple(_planned(each, before, time_us) for each in given)
    except (InvalidInput, KeyError, TypeError, AttributeError):
        return []  # not what a core of ours says of a definition that was checked
    return [ScheduleSet(workflow_id=workflow_id, order=order, planned=planned)]


def _planned(given: Any, before: dict[tuple[str, str], int], time_us: int) -> Planned:
    """A schedule with its next time: one that the former revision had too keeps its own, which may be overdue."""
    cron = Cron.checked(given["cron"], given["timezone"])
    next_us = before.get((cron.expression, cron.timezone)) or cron.next_after(time_us)
    missed = given["missed"]
    return Planned(cron=cron.expression, timezone=cron.timezone, missed=missed if missed in ("all", "skip") else "latest", next_us=next_us)


def fire(state: Schedules, timer: Due) -> list[ScheduleEvent]:
    """What follows from the times that have come. What counts as missed is told by the host's clock, not by the decision's time."""
    now_us = max(timer.time_us, timer.now_us)
    return [_fired(state.workflow_id, each, now_us) for each in state.planned if each.next_us <= now_us]


def _fired(workflow_id: str, planned: Planned, now_us: int) -> ScheduleEvent:
    cron = Cron(planned.cron, planned.timezone)
    at_us = planned.next_us
    if planned.missed != "all":
        at_us = cron.latest(planned.next_us - 1, now_us) or planned.next_us
    next_us = cron.next_after(at_us if planned.missed == "all" else now_us)
    if planned.missed == "skip" and now_us - at_us > LATE_US:
        return ScheduleSkipped(cron=planned.cron, timezone=planned.timezone, since_us=planned.next_us, next_us=next_us)
    return ScheduleFired(
        execution_id=execution_for_time(workflow_id, cron, at_us),
        cron=planned.cron,
        timezone=planned.timezone,
        at_us=at_us,
        next_us=next_us,
        missed_since_us=planned.next_us if at_us > planned.next_us else None,
    )


def starts(workflow_id: str, starting: Starting) -> Iterator[Send]:
    """The start, and when the broker has it, that it is on its way."""
    command = _command(workflow_id, starting)
    yield Send(topic=COMMANDS, key=starting.execution_id, record=command, hand_over=False, awaited=True)
    yield Send(
        topic=REQUESTS,
        key=home_of(workflow_id),
        record=ModuleMessage(
            id=derived_id("started", starting.execution_id),
            type="schedule.notified",
            source="mplp/schedules",
            subject=workflow_id,
            time=from_micros(starting.at_us),
            data={"execution_id": starting.execution_id, "workflow": workflow_id},
            kind="notification",
            source_module=SCHEDULE_MODULE,
            target_module=SCHEDULE_MODULE,
            operation="started",
        ),
    )


def outstanding(state: Schedules) -> Iterator[Send]:
    """Starts that are not known to be on their way."""
    for starting in state.starting:
        yield from starts(state.workflow_id, starting)


def _command(workflow_id: str, starting: Starting) -> WorkflowCommand:
    at, schedule = from_micros(starting.at_us), {"cron": starting.cron, "timezone": starting.timezone}
    missed = starting.missed_since_us
    data = {
        **schedule,
        "local_time": at.astimezone(zone_of(starting.timezone)).isoformat(),
        "missed_since": None if missed is None else iso(from_micros(missed)),
    }
    event_id = derived_id("scheduled", starting.execution_id)
    event = {
        "id": event_id, "type": ScheduleFired.TYPE, "source": "mplp/schedules", "subject": workflow_id, "severity": "info",
        "time": iso(at), "tenant": "default", "correlation_id": starting.execution_id, "causation_id": None, "data": data,
    }  # fmt: skip
    return WorkflowCommand(
        id=derived_id("start", starting.execution_id),
        type="workflow.start",
        source="mplp/schedules",
        subject=starting.execution_id,
        time=at,
        correlation_id=starting.execution_id,
        causation_id=event_id,
        data={"workflow": workflow_id, "trigger": schedule, "event": event},
        execution_id=starting.execution_id,
        command="start",
    )


def taken(view: View[Any], message: ModuleMessage, time_us: int) -> Follow | None:
    """What follows from a notification; None: it is none of ours."""
    workflow_id = message.data.get("workflow") if isinstance(message.data, dict) else None
    if message.kind != "notification" or not isinstance(workflow_id, str) or not view.is_local(home_of(workflow_id)):
        return None
    state = view.state(aggregate_of(workflow_id))
    known = state if isinstance(state, Schedules) else None
    return _follow(known or Schedules(workflow_id=workflow_id, order=-1), take(known, message, time_us), time_us)


def fired(view: View[Any], state: Schedules, timer: Due) -> Follow:
    """What follows from the times that have come, as it goes into the log."""
    return _follow(state, fire(state, timer), timer.time_us)


def _follow(state: Schedules, decided: Iterable[ScheduleEvent], time_us: int) -> Follow:
    events, effects = [], []
    after: Schedules | None = state
    aggregate_id, workflow_id = aggregate_of(state.workflow_id), state.workflow_id
    for event in decided:
        known = () if after is None else after.starting
        after = evolve(after, event, aggregate_id, time_us)
        begun = () if after is None else tuple(each for each in after.starting if each not in known)
        effects += [send for each in begun for send in starts(workflow_id, each)]
        events.append(Decided(aggregate_id=aggregate_id, event=event, subject=workflow_id, correlation_id=workflow_id))
    return Follow(events=tuple(events), effects=tuple(effects))


MODULE = BuiltIn(
    operations={},
    events=(ScheduleSet, ScheduleFired, ScheduleSkipped, ScheduleStarted),
    evolve=evolve,
    aggregates=(Aggregate(state=Schedules, due=due, fire=fired, outstanding=outstanding),),
    take=taken,
    source="mplp/schedules",
)
