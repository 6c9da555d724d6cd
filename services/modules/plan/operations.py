"""Parameters and results of the plan operations."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from services.modules.operation import Identifier, Name, Parameters, Result, Text, time_text
from services.modules.plan.state import TASK_DONE, TASKS_MAX, Plan, Status, Task, TaskStatus
from streams.records import Json


class NewTask(Parameters):
    """A task of a new plan."""

    task_id: Name = Field(description="Unique in the plan.")
    name: Name | None = Field(None, description="Without: the id.")
    dependencies: list[Name] = Field(default_factory=list, max_length=TASKS_MAX, description="Ids of tasks that must end before.")
    assignee: Identifier | None = Field(None, description="Role or assignment id.")


class CreatePlan(Parameters):
    """Parameters of create-plan."""

    TARGETS: ClassVar[tuple[str, ...]] = ("context_id",)

    context_id: Identifier
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


class ApprovePlan(OfPlan):
    """Parameters of approve-plan."""

    by: Name | None = Field(None, description="Who approves.")
    comment: Text = ""


class ActivatePlan(OfPlan):
    """Parameters of activate-plan."""

    status: Literal["active", "paused"] = Field("active", description="`paused` holds an active plan up; activate it again to go on.")
    reason: Text = ""


class UpdateTask(OfPlan):
    """Parameters of update-task: adds or changes a task of a draft, or reports on a task of an active plan."""

    task_id: Name
    name: Name | None = None
    dependencies: list[Name] | None = Field(None, max_length=TASKS_MAX)
    assignee: Identifier | None = None
    status: TaskStatus | None = Field(None, description="Only in an active plan.")
    result: Json = Field(None, description="What the task brought; with status completed, failed or skipped.")

    @property
    def is_structural(self) -> bool:
        """Whether it changes what the plan is, not how far it is."""
        return self.name is not None or self.dependencies is not None or self.assignee is not None

    @model_validator(mode="after")
    def _one_sort(self) -> Self:
        if self.status is not None and self.is_structural:
            raise ValueError("change either the task (name, dependencies, assignee) or its status, not both")
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
    assignee: str | None
    status: TaskStatus
    result: Json
    ready: bool = Field(description="Whether it is pending and all it depends on is done.")


class PlanResult(Result):
    """A plan with its tasks."""

    plan_id: str
    context_id: str
    name: str
    description: str
    assigned_roles: list[Json]
    status: Status
    tasks: list[TaskResult]
    progress: float = Field(description="Share of tasks that are done, 0 to 1; 0 without tasks.")
    approved_by: str | None
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
            tasks=[_task_result(task, done) for task in plan.tasks.values()],
            progress=len(done) / len(plan.tasks) if plan.tasks else 0.0,
            approved_by=plan.approved_by,
            version=plan.version,
            created_at=time_text(plan.created_us),
            updated_at=time_text(plan.updated_us),
        )


def _task_result(task: Task, done: set[str]) -> TaskResult:
    return TaskResult(
        task_id=task.task_id,
        name=task.name,
        dependencies=list(task.dependencies),
        assignee=task.assignee,
        status=task.status,
        result=task.result,
        ready=task.status == "pending" and done.issuperset(task.dependencies),
    )


class FaultResult(Result):
    """One thing that is wrong with a plan."""

    code: str
    pointer: str
    message: str


class ValidationResult(Result):
    """Whether a plan can run, and what its graph looks like."""

    plan_id: str
    valid: bool
    faults: list[FaultResult]
    order: list[str] = Field(description="Tasks in an order that respects all dependencies; empty with faults.")
    stages: list[list[str]] = Field(description="Tasks that may run side by side, stage after stage.")
    longest_chain: list[str] = Field(description="The longest chain of tasks that must follow each other.")
