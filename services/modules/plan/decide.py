"""What the plan operations decide. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.modules.context.decide import open_context
from services.modules.lookup import find
from services.modules.operation import BuiltIn, Decided, Done, Operation, Outcome, Refusal, Request, conflict, invalid, not_found
from services.modules.plan.evolve import evolve
from services.modules.plan.graph import validate
from services.modules.plan.operations import (
    ActivatePlan,
    ApprovePlan,
    CancelPlan,
    CompletePlan,
    CreatePlan,
    FaultResult,
    GetPlan,
    PlanResult,
    UpdateTask,
    ValidatePlan,
    ValidationResult,
)
from services.modules.plan.state import (
    EVENTS,
    TASK_DONE,
    TASK_TRANSITIONS,
    TASKS_MAX,
    TRANSITIONS,
    Plan,
    PlanApproved,
    PlanCreated,
    PlanEvent,
    PlanTransitioned,
    Status,
    Task,
    TaskStatus,
    TaskUpdated,
)
from services.modules.transitions import refuse_transition
from streams.log.types import View


def create_plan(view: View[Any], parameters: CreatePlan, request: Request) -> Outcome:
    """Drafts a plan in an active context."""
    context = open_context(view, parameters.context_id)
    if isinstance(context, Refusal):
        return context
    plan_id = request.new_id("plan")
    if view.state(plan_id) is not None:
        return conflict(f"This request created {plan_id} before.")
    seen: set[str] = set()
    for index, task in enumerate(parameters.tasks):
        if task.task_id in seen:
            return invalid(f"There are two tasks with the id {task.task_id!r}.", f"/tasks/{index}/taskId")
        seen.add(task.task_id)
    event = PlanCreated(
        context_id=parameters.context_id,
        name=parameters.name,
        description=parameters.description,
        assigned_roles=tuple(parameters.assigned_roles),
        tasks=tuple(
            Task(task_id=task.task_id, name=task.name or task.task_id, dependencies=tuple(task.dependencies), assignee=task.assignee)
            for task in parameters.tasks
        ),
    )
    return _changed(None, plan_id, request, event)


def get_plan(view: View[Any], parameters: GetPlan, request: Request) -> Outcome:
    """A plan as it is now, with its tasks and progress."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    return plan if isinstance(plan, Refusal) else Done(aggregate_id=plan.plan_id, result=PlanResult.of(plan))


def validate_plan(view: View[Any], parameters: ValidatePlan, request: Request) -> Outcome:
    """Whether a plan can run: its tasks' dependencies exist and have no cycle; and in which order."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    found = validate(tuple(plan.tasks.values()))
    result = ValidationResult(
        plan_id=plan.plan_id,
        valid=not found.faults,
        faults=[FaultResult(code=fault.code, pointer=fault.pointer, message=fault.message) for fault in found.faults],
        order=list(found.order),
        stages=[list(stage) for stage in found.stages],
        longest_chain=list(found.longest_chain),
    )
    return Done(aggregate_id=plan.plan_id, result=result)


def approve_plan(view: View[Any], parameters: ApprovePlan, request: Request) -> Outcome:
    """Approves a draft that can run."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    refused = refuse_transition(TRANSITIONS, "plan", plan.status, "approved") or _refuse_faulty(plan)
    if refused is not None:
        return refused
    return _changed(plan, plan.plan_id, request, PlanApproved(by=parameters.by, comment=parameters.comment))


def activate_plan(view: View[Any], parameters: ActivatePlan, request: Request) -> Outcome:
    """Sets a plan to work, takes it up again, or holds it up; its context must be active."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    refused = refuse_transition(TRANSITIONS, "plan", plan.status, parameters.status)
    if refused is None and parameters.status == "active":
        context = open_context(view, plan.context_id, pointer="/planId")
        refused = context if isinstance(context, Refusal) else _refuse_faulty(plan)
    if refused is not None:
        return refused
    return _changed(plan, plan.plan_id, request, _transition(plan, parameters.status, parameters.reason))


def update_task(view: View[Any], parameters: UpdateTask, request: Request) -> Outcome:
    """Adds or changes a task of a draft (a failed plan becomes a draft again), or reports on a task of an active plan."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    if parameters.status is not None:
        return _report(plan, parameters, parameters.status, request)
    if plan.status not in ("draft", "failed"):
        return conflict(f"Tasks change in a draft; this plan is {plan.status}.", "/planId")
    before = plan.tasks.get(parameters.task_id)
    if before is None and len(plan.tasks) >= TASKS_MAX:
        return conflict(f"A plan has at most {TASKS_MAX} tasks.", "/taskId")
    task = before or Task(task_id=parameters.task_id, name=parameters.task_id)
    task = replace(
        task,
        name=parameters.name or task.name,
        dependencies=task.dependencies if parameters.dependencies is None else tuple(parameters.dependencies),
        assignee=parameters.assignee or task.assignee,
        status="pending" if task.status == "failed" else task.status,
    )
    reopened = [_transition(plan, "draft", "changed")] if plan.status == "failed" else []
    return _changed(plan, plan.plan_id, request, *reopened, TaskUpdated(task=task, before=before.status if before else None))


def _report(plan: Plan, parameters: UpdateTask, status: TaskStatus, request: Request) -> Outcome:
    if plan.status != "active":
        return conflict(f"Tasks make progress in an active plan; this one is {plan.status}.", "/planId")
    task = plan.tasks.get(parameters.task_id)
    if task is None:
        return not_found("task", parameters.task_id, "/taskId")
    refused = refuse_transition(TASK_TRANSITIONS, "task", task.status, status)
    if refused is not None:
        return refused
    waiting = [each for each in task.dependencies if plan.tasks[each].status not in TASK_DONE]
    if waiting and status in ("running", "completed"):
        return conflict(f"Task {task.task_id!r} waits for {', '.join(waiting)}.", "/status")
    return _changed(
        plan, plan.plan_id, request, TaskUpdated(task=replace(task, status=status, result=parameters.result), before=task.status)
    )


def complete_plan(view: View[Any], parameters: CompletePlan, request: Request) -> Outcome:
    """Ends an active plan: completed, when all tasks are done, or failed."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    refused = refuse_transition(TRANSITIONS, "plan", plan.status, parameters.status)
    if refused is not None:
        return refused
    unfinished = [task.task_id for task in plan.tasks.values() if task.status not in TASK_DONE]
    if unfinished and parameters.status == "completed":
        return conflict(f"Tasks are not done: {', '.join(unfinished[:10])}{' …' if len(unfinished) > 10 else ''}.", "/planId")
    return _changed(plan, plan.plan_id, request, _transition(plan, parameters.status, parameters.reason))


def cancel_plan(view: View[Any], parameters: CancelPlan, request: Request) -> Outcome:
    """Cancels a plan that has not ended, or puts an ended one away."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    refused = refuse_transition(TRANSITIONS, "plan", plan.status, parameters.status)
    if refused is not None:
        return refused
    return _changed(plan, plan.plan_id, request, _transition(plan, parameters.status, parameters.reason))


def _transition(plan: Plan, after: Status, reason: str) -> PlanTransitioned:
    return PlanTransitioned(before=plan.status, after=after, reason=reason)


def _refuse_faulty(plan: Plan) -> Refusal | None:
    faults = validate(tuple(plan.tasks.values())).faults
    if not faults:
        return None
    return conflict(f"The plan cannot run: {faults[0].message}", "/planId", faults)


def _changed(before: Plan | None, plan_id: str, request: Request, *events: PlanEvent) -> Outcome:
    after = before
    for event in events:
        after = evolve(after, event, plan_id, request.time_us)
    assert after is not None
    decided = tuple(Decided(aggregate_id=plan_id, event=event) for event in events)
    return Done(aggregate_id=plan_id, result=PlanResult.of(after), events=decided)


MODULE = BuiltIn(
    operations={
        "create-plan": Operation(parameters=CreatePlan, result=PlanResult, decide=create_plan),
        "get-plan": Operation(parameters=GetPlan, result=PlanResult, decide=get_plan),
        "validate-plan": Operation(parameters=ValidatePlan, result=ValidationResult, decide=validate_plan),
        "approve-plan": Operation(parameters=ApprovePlan, result=PlanResult, decide=approve_plan),
        "activate-plan": Operation(parameters=ActivatePlan, result=PlanResult, decide=activate_plan),
        "update-task": Operation(parameters=UpdateTask, result=PlanResult, decide=update_task),
        "complete-plan": Operation(parameters=CompletePlan, result=PlanResult, decide=complete_plan),
        "cancel-plan": Operation(parameters=CancelPlan, result=PlanResult, decide=cancel_plan),
    },
    events=EVENTS,
    evolve=evolve,
)
