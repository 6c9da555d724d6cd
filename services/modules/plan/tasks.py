"""What the operations on the tasks of a plan decide. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.modules.lookup import changed, find, refuse_version
from services.modules.operation import Outcome, Refusal, Request, conflict, invalid, not_found
from services.modules.plan.evolve import evolve
from services.modules.plan.graph import END, START, holding_back
from services.modules.plan.operations import REACHED, WHOLE, PlanResult, RemoveTask, UpdateTask, is_whole
from services.modules.plan.state import (
    TASK_LIFECYCLE,
    TASKS_MAX,
    Plan,
    PlanEvent,
    PlanTransitioned,
    Task,
    TaskRemoved,
    TaskStatus,
    TaskUpdated,
)
from streams.log.types import View


def update_task(view: View[Any], parameters: UpdateTask, request: Request) -> Outcome:
    """Adds or changes a task of a draft (a failed plan becomes a draft again), or reports on a task of an active plan."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    refused = refuse_version(parameters.expected_version, plan.version, "plan")
    if refused is not None:
        return refused
    if parameters.status is not None:
        return _report(plan, parameters, parameters.status, request)
    if plan.status not in ("draft", "failed"):
        return conflict(f"Tasks change in a draft; this plan is {plan.status}.", "/planId")
    before = plan.tasks.get(parameters.task_id)
    if before is None and len(plan.tasks) >= TASKS_MAX:
        return conflict(f"A plan has at most {TASKS_MAX} tasks.", "/taskId")
    task = _with(before or Task(task_id=parameters.task_id, name=parameters.task_id), parameters)
    if not is_whole(task.module, task.operation, task.parameters):
        given = next(name for name in ("parameters", "operation", "module") if getattr(parameters, name) is not None)
        return invalid(f"The task calls no operation: {WHOLE}.", f"/{given}")
    event = TaskUpdated(task=task, before=before.status if before else None)
    return changed(evolve, plan, plan.plan_id, request, PlanResult.of, *_reopened(plan), event)


def _with(task: Task, parameters: UpdateTask) -> Task:
    given = parameters.dependencies is not None
    return replace(
        task,
        name=parameters.name or task.name,
        dependencies=parameters.names() if given else task.dependencies,
        types=parameters.types() if given else task.types,
        assignee=parameters.assignee or task.assignee,
        duration_ms=task.duration_ms if parameters.duration_ms is None else parameters.duration_ms,
        module=parameters.module or task.module,
        operation=parameters.operation or task.operation,
        parameters=task.parameters if parameters.parameters is None else parameters.parameters,
        status="pending" if task.status == "failed" else task.status,
        result=None if task.status == "failed" else task.result,
    )


def _reopened(plan: Plan) -> tuple[PlanEvent, ...]:
    return (PlanTransitioned(before=plan.status, after="draft", reason="changed"),) if plan.status == "failed" else ()


def _report(plan: Plan, parameters: UpdateTask, status: TaskStatus, request: Request) -> Outcome:
    if plan.status != "active":
        return conflict(f"Tasks make progress in an active plan; this one is {plan.status}.", "/planId")
    task = plan.tasks.get(parameters.task_id)
    if task is None:
        return not_found("task", parameters.task_id, "/taskId")
    refused = TASK_LIFECYCLE.refusal(task.status, status, "/status")
    if refused is not None:
        return refused
    waiting = holding_back(task, plan.tasks, START, REACHED) if status in ("running", "completed") else []
    if status == "completed":
        waiting += [each for each in holding_back(task, plan.tasks, END, REACHED) if each not in waiting]
    if waiting:
        return conflict(f"Task {task.task_id!r} waits for {', '.join(waiting)}.", "/status")
    event = TaskUpdated(task=replace(task, status=status, result=parameters.result), before=task.status)
    return changed(evolve, plan, plan.plan_id, request, PlanResult.of, event)


def remove_task(view: View[Any], parameters: RemoveTask, request: Request) -> Outcome:
    """Takes a task out of a draft (a failed plan becomes a draft again), and out of what depends on it."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    refused = refuse_version(parameters.expected_version, plan.version, "plan")
    if refused is not None:
        return refused
    if plan.status not in ("draft", "failed"):
        return conflict(f"Tasks change in a draft; this plan is {plan.status}.", "/planId")
    if parameters.task_id not in plan.tasks:
        return not_found("task", parameters.task_id, "/taskId")
    return changed(evolve, plan, plan.plan_id, request, PlanResult.of, *_reopened(plan), TaskRemoved(task_id=parameters.task_id))
