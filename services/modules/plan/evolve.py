"""The fold of a plan's events. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.plan.state import (
    OVER,
    DeletedPlan,
    Plan,
    PlanApproved,
    PlanCreated,
    PlanDeleted,
    PlanEvent,
    PlanTransitioned,
    PlanUpdated,
    Run,
    RunEnded,
    RunFollowed,
    RunRequested,
    RunStarted,
    Status,
    Task,
    TaskRemoved,
    TaskUpdated,
)


def evolve(state: Plan | DeletedPlan | None, event: PlanEvent, aggregate_id: str, time_us: int) -> Plan | DeletedPlan | None:
    """The plan after `event`, or what is left of it; None: nothing."""
    if isinstance(state, DeletedPlan):
        return None if isinstance(event, RunEnded) else state
    if isinstance(event, PlanDeleted) and event.run is not None and state is not None and state.run is not None:
        return DeletedPlan(plan_id=aggregate_id, run=state.run, status=state.status, updated_us=state.updated_us)
    return evolve_plan(state, event, aggregate_id, time_us)


def evolve_plan(state: Plan | None, event: PlanEvent, aggregate_id: str, time_us: int) -> Plan | None:
    """The plan after `event`; None: there is none."""
    if isinstance(event, PlanCreated):
        return Plan(
            plan_id=aggregate_id,
            context_id=event.context_id,
            name=event.name,
            description=event.description,
            assigned_roles=event.assigned_roles,
            tasks={task.task_id: task for task in event.tasks},
            status="draft",
            version=1,
            created_us=time_us,
            updated_us=time_us,
        )
    if state is None or isinstance(event, PlanDeleted):
        return None
    if isinstance(event, RunRequested | RunStarted | RunEnded | RunFollowed):
        return _run(state, event, time_us)
    changed = replace(state, version=state.version + 1, updated_us=time_us)
    match event:
        case PlanUpdated():
            return replace(
                changed,
                name=state.name if event.name is None else event.name,
                description=state.description if event.description is None else event.description,
                assigned_roles=state.assigned_roles if event.assigned_roles is None else event.assigned_roles,
            )
        case TaskUpdated():
            return replace(changed, tasks={**state.tasks, event.task.task_id: event.task})
        case TaskRemoved():
            rest = {name: _without(task, event.task_id) for name, task in state.tasks.items() if name != event.task_id}
            return replace(changed, tasks=rest)
        case PlanApproved():
            return replace(changed, status="approved", approved_by=event.by)
        case PlanTransitioned():
            approved_by = None if event.after == "draft" else state.approved_by
            return replace(changed, status=event.after, approved_by=approved_by, ending=_is_ending(state, event.after))
        case _:
            assert_never(event)


def _without(task: Task, gone: str) -> Task:
    if gone not in task.dependencies:
        return task
    types = {name: kind for name, kind in task.types.items() if name != gone}
    return replace(task, dependencies=tuple(each for each in task.dependencies if each != gone), types=types)


def _is_ending(state: Plan, after: Status) -> bool:
    return state.ending or (after in OVER and state.run is not None and state.run.status == "running")


def _run(state: Plan, event: RunRequested | RunStarted | RunEnded | RunFollowed, time_us: int) -> Plan:
    """A run is no change of the plan itself: its version stays."""
    if isinstance(event, RunRequested):
        before = None if state.run is None else state.run.execution_id
        run = Run(execution_id=event.execution_id, status="requested", requested_us=time_us, caller=event.caller, before=before)
        return replace(state, run=run, runs=state.runs + 1)
    if state.run is None:
        return state
    match event:
        case RunStarted():
            return replace(state, run=replace(state.run, status="running", caller=None), ending=state.status in OVER)
        case RunEnded(status="refused"):
            before = state.run.before
            ended = None if before is None else Run(execution_id=before, status="ended", requested_us=state.run.requested_us)
            return replace(state, run=ended, ending=False)
        case RunEnded():
            return replace(state, run=replace(state.run, status="ended", caller=None), ending=False)
        case RunFollowed():
            return replace(state, run=replace(state.run, sequence=event.sequence))
        case _:
            assert_never(event)
