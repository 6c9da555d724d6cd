"""What the operations on whole plans decide. Pure."""

from __future__ import annotations

from typing import Any

from services.modules.built_in import Aggregate, BuiltIn
from services.modules.context.decide import open_context
from services.modules.lookup import changed, find, gone, has_text, listing, refuse_version, states_of
from services.modules.operation import Done, Operation, Outcome, Refusal, Request, conflict, invalid
from services.modules.plan.evolve import evolve
from services.modules.plan.graph import validate
from services.modules.plan.operations import (
    ActivatePlan,
    ApprovePlan,
    CancelPlan,
    CompletePlan,
    CreatePlan,
    DeletePlan,
    FaultResult,
    GetPlan,
    ListPlans,
    PlanGone,
    PlanList,
    PlanResult,
    RemoveTask,
    RunPlan,
    RunResult,
    SlotResult,
    UpdatePlan,
    UpdateTask,
    ValidatePlan,
    ValidationResult,
)
from services.modules.plan.running import command_to_run, outstanding, owed, run_plan, take
from services.modules.plan.state import (
    EVENTS,
    LIFECYCLE,
    TASK_DONE,
    TASK_LIFECYCLE,
    DeletedPlan,
    Plan,
    PlanApproved,
    PlanCreated,
    PlanDeleted,
    PlanTransitioned,
    PlanUpdated,
    Status,
    Task,
)
from services.modules.plan.tasks import remove_task, update_task
from streams.log.types import View


def create_plan(view: View[Any], parameters: CreatePlan, request: Request) -> Outcome:
    """Drafts a plan, in an active context if it names one."""
    context = None if parameters.context_id is None else open_context(view, parameters.context_id)
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
            Task(
                task_id=task.task_id,
                name=task.name or task.task_id,
                dependencies=task.names(),
                types=task.types(),
                assignee=task.assignee,
                duration_ms=task.duration_ms,
                module=task.module,
                operation=task.operation,
                parameters=task.parameters,
            )
            for task in parameters.tasks
        ),
    )
    return changed(evolve, None, plan_id, request, PlanResult.of, event)


def get_plan(view: View[Any], parameters: GetPlan, request: Request) -> Outcome:
    """A plan as it is, with its tasks and progress."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    return plan if isinstance(plan, Refusal) else Done(aggregate_id=plan.plan_id, result=PlanResult.of(plan))


def list_plans(view: View[Any], parameters: ListPlans, request: Request) -> Outcome:
    """Plans in order of their ids, by context, state, or part of the name."""
    wanted = (
        plan
        for plan in states_of(view, Plan)
        if parameters.context_id in (None, plan.context_id)
        and parameters.status in (None, plan.status)
        and has_text(parameters.text, plan.name, plan.description)
    )
    return listing(view, parameters, PlanList, wanted, lambda plan: plan.plan_id, PlanResult.of)


def update_plan(view: View[Any], parameters: UpdatePlan, request: Request) -> Outcome:
    """Changes attributes of a plan that has not ended."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    if plan.status in ("completed", "cancelled", "archived"):
        return conflict(f"A plan that is {plan.status} takes no changes.", "/planId")
    refused = refuse_version(parameters.expected_version, plan.version, "plan")
    if refused is not None:
        return refused
    roles = None if parameters.assigned_roles is None else tuple(parameters.assigned_roles)
    event = PlanUpdated(name=parameters.name, description=parameters.description, assigned_roles=roles)
    return changed(evolve, plan, plan.plan_id, request, PlanResult.of, event)


def validate_plan(view: View[Any], parameters: ValidatePlan, request: Request) -> Outcome:
    """Whether a plan can run: its tasks' dependencies exist and have no cycle; in which order, and what decides when it ends."""
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
        critical_path=list(found.critical_path),
        duration_ms=found.duration_ms,
        schedule=[
            SlotResult(task_id=slot.task_id, earliest_start_ms=slot.start_ms, earliest_end_ms=slot.end_ms, slack_ms=slot.slack_ms)
            for slot in found.slots
        ],
    )
    return Done(aggregate_id=plan.plan_id, result=result)


def approve_plan(view: View[Any], parameters: ApprovePlan, request: Request) -> Outcome:
    """Approves a draft that can run."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    refused = LIFECYCLE.refusal(plan.status, "approved", "/planId") or _refuse_faulty(plan)
    if refused is not None:
        return refused
    event = PlanApproved(by=parameters.by, comment=parameters.comment)
    return changed(evolve, plan, plan.plan_id, request, PlanResult.of, event)


def activate_plan(view: View[Any], parameters: ActivatePlan, request: Request) -> Outcome:
    """Sets an approved plan to work, takes it up again, or holds it up; its context must be active."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    refused = LIFECYCLE.refusal(plan.status, parameters.status, "/planId")
    if refused is None and parameters.status == "active":
        context = None if plan.context_id is None else open_context(view, plan.context_id, pointer="/planId")
        refused = context if isinstance(context, Refusal) else _refuse_faulty(plan)
    if refused is not None:
        return refused
    return _moved(plan, parameters.status, parameters.reason, request)


def complete_plan(view: View[Any], parameters: CompletePlan, request: Request) -> Outcome:
    """Ends an active plan: completed, when all tasks are done, or failed."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    refused = LIFECYCLE.refusal(plan.status, parameters.status, "/planId")
    if refused is not None:
        return refused
    unfinished = [task.task_id for task in plan.tasks.values() if task.status not in TASK_DONE]
    if unfinished and parameters.status == "completed":
        return conflict(f"Tasks are not done: {', '.join(unfinished[:10])}{' …' if len(unfinished) > 10 else ''}.", "/planId")
    return _moved(plan, parameters.status, parameters.reason, request)


def cancel_plan(view: View[Any], parameters: CancelPlan, request: Request) -> Outcome:
    """Cancels a plan that has not ended, or puts an ended one away."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    refused = LIFECYCLE.refusal(plan.status, parameters.status, "/planId")
    return _moved(plan, parameters.status, parameters.reason, request) if refused is None else refused


def delete_plan(view: View[Any], parameters: DeletePlan, request: Request) -> Outcome:
    """Removes a plan that is not at work; its history stays in the log."""
    plan = find(view, Plan, parameters.plan_id, pointer="/planId")
    if isinstance(plan, Refusal):
        return plan
    if plan.status in ("active", "paused"):
        return conflict(f"A plan that is {plan.status} is not deleted; cancel it first.", "/planId")
    if plan.run is not None and plan.run.status == "requested":
        return conflict("The plan's run is about to begin; delete the plan when it has.", "/planId")
    run = plan.run.execution_id if plan.ending and plan.run is not None else None
    return gone(plan.plan_id, PlanGone(plan_id=plan.plan_id, deleted=True), PlanDeleted(reason=parameters.reason, run=run))


def _moved(plan: Plan, after: Status, reason: str, request: Request) -> Done:
    """The plan moves along its life cycle, and the workflow that runs it with it."""
    event = PlanTransitioned(before=plan.status, after=after, reason=reason)
    return changed(evolve, plan, plan.plan_id, request, PlanResult.of, event, effects=command_to_run(plan, after, request))


def _refuse_faulty(plan: Plan) -> Refusal | None:
    faults = validate(tuple(plan.tasks.values())).faults
    if not faults:
        return None
    return conflict(f"The plan cannot run: {faults[0].message}", "/planId", faults)


def _ended(plan: Plan) -> int | None:
    return plan.updated_us if plan.status == "archived" else None


MODULE = BuiltIn(
    operations={
        "create-plan": Operation(parameters=CreatePlan, result=PlanResult, decide=create_plan),
        "get-plan": Operation(parameters=GetPlan, result=PlanResult, decide=get_plan),
        "list-plans": Operation(parameters=ListPlans, result=PlanList, decide=list_plans, gathers=True),
        "update-plan": Operation(parameters=UpdatePlan, result=PlanResult, decide=update_plan),
        "validate-plan": Operation(parameters=ValidatePlan, result=ValidationResult, decide=validate_plan),
        "approve-plan": Operation(parameters=ApprovePlan, result=PlanResult, decide=approve_plan),
        "activate-plan": Operation(parameters=ActivatePlan, result=PlanResult, decide=activate_plan),
        "run-plan": Operation(parameters=RunPlan, result=RunResult, decide=run_plan),
        "update-task": Operation(parameters=UpdateTask, result=PlanResult, decide=update_task),
        "remove-task": Operation(parameters=RemoveTask, result=PlanResult, decide=remove_task),
        "complete-plan": Operation(parameters=CompletePlan, result=PlanResult, decide=complete_plan),
        "cancel-plan": Operation(parameters=CancelPlan, result=PlanResult, decide=cancel_plan),
        "delete-plan": Operation(parameters=DeletePlan, result=PlanGone, decide=delete_plan),
    },
    events=EVENTS,
    evolve=evolve,
    aggregates=(Aggregate(state=Plan, ended=_ended, outstanding=outstanding), Aggregate(state=DeletedPlan, outstanding=owed)),
    take=take,
    lifecycles=(LIFECYCLE, TASK_LIFECYCLE),
)
