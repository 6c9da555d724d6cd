"""The fold of a plan's events. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.plan.state import Plan, PlanApproved, PlanCreated, PlanEvent, PlanTransitioned, TaskUpdated


def evolve(state: Plan | None, event: PlanEvent, aggregate_id: str, time_us: int) -> Plan | None:
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
    if state is None:
        return None
    changed = replace(state, version=state.version + 1, updated_us=time_us)
    match event:
        case TaskUpdated():
            return replace(changed, tasks={**state.tasks, event.task.task_id: event.task})
        case PlanApproved():
            return replace(changed, status="approved", approved_by=event.by)
        case PlanTransitioned():
            return replace(changed, status=event.after, approved_by=None if event.after == "draft" else state.approved_by)
        case _:
            assert_never(event)
