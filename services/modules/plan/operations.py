"""Parameters and results of the plan operations."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from services.modules.operation import Identifier, Listing, Name, Page, Parameters, Result, Text, Versioned, time_text
from services.modules.plan.graph import START, holding_back
from services.modules.plan.state import TASK_BEGUN, TASK_DONE, TASKS_MAX, DependencyType, Plan, Status, Task, TaskStatus
from streams.durations import DURATION_MS_MAX
from streams.records import Json


class Dependency(Parameters):
    """What a task waits for."""

    task_id: Name = Field(description="The task that is depended on.")
    type: DependencyType = Field(
        "finish-to-start",
        description="What of the other task must have come (`finish-…`, `start-…`), before this one may (`…-to-start`, `…-to-finish`).",
    )


class TaskFields(Parameters):
    """What a task is, beside its id."""

    name: Name | None = Field(None, description="Without: the id.")
    dependencies: list[Name | Dependency] | None = Field(
        None, max_length=TASKS_MAX, description="Tasks that must end before (ids), or objects that say what is waited for."
    )
    assignee: Identifier | None = Field(None, description="Role or assignment id.")
    duration_ms: float | None = Field(None, ge=0, le=DURATION_MS_MAX, allow_inf_nan=False, description="How long it is expected to take.")
    module: Name | None = Field(
        None, description="With operation: what run-plan calls for it. Without: run-plan asks the assignee to do it."
    )
    operation: Name | None = None
    parameters: dict[str, Json] | None = Field(
        None, description="Parameters of the operation; `${other-task.result.path}` refers to tasks that end before."
    )

    def types(self) -> dict[str, DependencyType]:
        """Types of the dependencies that are not finish-to-start."""
        typed = [each for each in self.dependencies or () if isinstance(each, Dependency)]
        return {each.task_id: each.type for each in typed if each.type != "finish-to-start"}

    def names(self) -> tuple[str, ...]:
        """Ids of the tasks that it depends on."""
        return tuple(each.task_id if isinstance(each, Dependency) else each for each in self.dependencies or ())


#: What must hold of the call that a task makes.
WHOLE = "give module and operation together, and parameters only with them"


def is_whole(module: str | None, operation: str | None, parameters: Json) -> bool:
    """Whether that holds."""
    return (module is None) == (operation is None) and (parameters is None or module is not None)


class NewTask(TaskFields):
    """A task of a new plan."""

    task_id: Name = Field(description="Unique in the plan.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not is_whole(self.module, self.operation, self.parameters):
            raise ValueError(WHOLE)
        return self


class CreatePlan(Parameters):
    """Parameters of create-plan."""

    TARGETS: ClassVar[tuple[str, ...]] = ("context_id",)

    context_id: Identifier | None = Field(None, description="The context that it is part of, which must be active; none: it stands alone.")
    name: Name = "plan"
    description: Text = ""
    assigned_roles: list[Name | dict[str, Json]] = Field(
        default_factory=list, max_length=1000, description="Who takes part: names, or assignments as assign-roles gives them."
    )
    tasks: list[NewTask] = Field(default_factory=list, max_length=TASKS_MAX, description="A draft may be faulty: validate-plan tells.")


class OfPlan(Parameters):
    """Names a plan."""

    TARGETS: ClassVar[tuple[str, ...]] = ("plan_id",)

    plan_id: Identifier = Field(description="Id of the plan, from create-plan.")


class GetPlan(OfPlan):
    """Parameters of get-plan."""


class ValidatePlan(OfPlan):
    """Parameters of validate-plan."""


class UpdatePlan(OfPlan, Versioned):
    """Parameters of update-plan: what is not given stays."""

    name: Name | None = None
    description: Text | None = None
    assigned_roles: list[Name | dict[str, Json]] | None = Field(None, max_length=1000)

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.name is None and self.description is None and self.assigned_roles is None:
            raise ValueError("give at least one of name, description, assignedRoles")
        return self


class ListPlans(Page):
    """Parameters of list-plans: conditions that all must hold."""

    TARGETS: ClassVar[tuple[str, ...]] = ("context_id",)

    context_id: Identifier | None = None
    status: Status | None = None
    text: Text | None = Field(None, description="Part of the name or description, without regard to case.")


class DeletePlan(OfPlan):
    """Parameters of delete-plan; an active plan is cancelled first."""

    reason: Text = ""


class RunPlan(OfPlan):
    """Parameters of run-plan: the tasks of an approved or active plan become a workflow."""


class RemoveTask(OfPlan, Versioned):
    """Parameters of remove-task: what depended on the task depends on it no more."""

    task_id: Name


class ApprovePlan(OfPlan):
    """Parameters of approve-plan."""

    by: Name | None = Field(None, description="Who approves.")
    comment: Text = ""


class ActivatePlan(OfPlan):
    """Parameters of activate-plan."""

    status: Literal["active", "paused"] = Field("active", description="`paused` holds an active plan up; activate it again to go on.")
    reason: Text = ""


class UpdateTask(OfPlan, TaskFields, Versioned):
    """Parameters of update-task: adds or changes a task of a draft (what is not given stays), or reports on a task of an active plan."""

    task_id: Name
    status: TaskStatus | None = Field(None, description="Only in an active plan.")
    result: Json = Field(None, description="What the task brought; with status completed, failed or skipped.")

    @property
    def is_structural(self) -> bool:
        """Whether it changes what the plan is, not how far it is."""
        given = (self.name, self.dependencies, self.assignee, self.duration_ms, self.module, self.operation, self.parameters)
        return any(value is not None for value in given)

    @model_validator(mode="after")
    def _one_sort(self) -> Self:
        if self.status is not None and self.is_structural:
            raise ValueError("change either the task (name, dependencies, assignee, duration, operation) or its status, not both")
        if self.result is not None and self.status not in ("completed", "failed", "skipped"):
            raise ValueError("a result needs a status: completed, failed or skipped")
        return self


class CompletePlan(OfPlan):
    """Parameters of complete-plan."""

    status: Literal["completed", "failed"] = Field("completed", description="How it ended; completed needs all tasks done.")
    reason: Text = ""


class CancelPlan(OfPlan):
    """Parameters of cancel-plan."""

    status: Literal["cancelled", "archived"] = Field("cancelled", description="`archived` puts an ended plan away.")
    reason: Text = ""


class TaskResult(Result):
    """A task of a plan."""

    task_id: str
    name: str
    dependencies: list[str]
    dependency_types: dict[str, DependencyType] = Field(description="Of the dependencies that are not finish-to-start.")
    assignee: str | None
    status: TaskStatus
    result: Json
    ready: bool = Field(description="Whether it is pending and nothing holds back its start.")
    duration_ms: float | None
    module: str | None
    operation: str | None
    parameters: Json


class PlanResult(Result):
    """A plan with its tasks."""

    plan_id: str
    context_id: str | None
    name: str
    description: str
    assigned_roles: list[Json]
    status: Status
    tasks: list[TaskResult]
    progress: float = Field(description="Share of tasks that are done, 0 to 1; 0 without tasks.")
    approved_by: str | None
    execution_id: str | None = Field(description="The execution that runs it, or ran it last.")
    version: int
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """The plan as callers see it."""
        done = {task.task_id for task in plan.tasks.values() if task.status in TASK_DONE}
        return cls(
            plan_id=plan.plan_id,
            context_id=plan.context_id,
            name=plan.name,
            description=plan.description,
            assigned_roles=list(plan.assigned_roles),
            status=plan.status,
            tasks=[_task_result(task, plan) for task in plan.tasks.values()],
            progress=len(done) / len(plan.tasks) if plan.tasks else 0.0,
            approved_by=plan.approved_by,
            execution_id=None if plan.run is None else plan.run.execution_id,
            version=plan.version,
            created_at=time_text(plan.created_us),
            updated_at=time_text(plan.updated_us),
        )


#: States of a task that has started, and of one that has finished.
REACHED = {"start": TASK_BEGUN, "end": TASK_DONE}


def _task_result(task: Task, plan: Plan) -> TaskResult:
    held = any(name not in plan.tasks for name in task.dependencies) or holding_back(task, plan.tasks, START, REACHED)
    return TaskResult(
        task_id=task.task_id,
        name=task.name,
        dependencies=list(task.dependencies),
        assignee=task.assignee,
        status=task.status,
        result=task.result,
        ready=task.status == "pending" and not held,
        dependency_types=dict(task.types),
        duration_ms=task.duration_ms,
        module=task.module,
        operation=task.operation,
        parameters=task.parameters,
    )


class FaultResult(Result):
    """One thing that is wrong with a plan."""

    code: str
    pointer: str
    message: str


class SlotResult(Result):
    """A task's place in the schedule, milliseconds from the start of the plan."""

    task_id: str
    earliest_start_ms: float
    earliest_end_ms: float
    slack_ms: float = Field(description="By how much it may be late without delaying the plan.")


class PlanList(Listing):
    """Plans in order of their ids."""

    ENTRIES: ClassVar[str] = "plans"
    KEY: ClassVar[str] = "planId"

    plans: list[PlanResult]


class PlanGone(Result):
    """A plan that was deleted."""

    plan_id: str
    deleted: bool


class RunResult(Result):
    """A plan that runs."""

    plan_id: str
    execution_id: str
    status: str = Field(description="Of the execution.")


class ValidationResult(Result):
    """Whether a plan can run, and what its graph looks like."""

    plan_id: str
    valid: bool
    faults: list[FaultResult]
    order: list[str] = Field(description="Tasks in an order that respects all dependencies; empty with faults.")
    stages: list[list[str]] = Field(description="Tasks that may run side by side, stage after stage.")
    longest_chain: list[str] = Field(description="The longest chain of tasks that must follow each other.")
    critical_path: list[str] = Field(description="The tasks that decide when the plan ends, by their expected durations.")
    duration_ms: float = Field(description="How long the plan takes at least, by the expected durations.")
    schedule: list[SlotResult] = Field(description="When each task may begin and end at the earliest, from the start of the plan.")
