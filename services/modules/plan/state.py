"""State and events of plans, and the tables of the life cycles of plans and their tasks.

The table of plans is the one of the MPLP documents, but for this: only what was approved becomes active.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from services.modules.lifecycle import Lifecycle
from services.modules.operation import Caller
from streams.records import Json

Status: TypeAlias = Literal["draft", "approved", "active", "paused", "completed", "cancelled", "failed", "archived"]
TaskStatus: TypeAlias = Literal["pending", "running", "completed", "failed", "skipped"]

#: What a dependency holds back until what has happened to the task that is depended on: its start or its end, until start or end.
DependencyType: TypeAlias = Literal["finish-to-start", "start-to-start", "finish-to-finish", "start-to-finish"]

TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    "draft": ("approved", "cancelled"),
    "approved": ("active", "cancelled"),
    "active": ("paused", "completed", "failed", "cancelled"),
    "paused": ("active", "cancelled"),
    "failed": ("draft", "active", "cancelled", "archived"),
    "completed": ("archived",),
    "cancelled": ("archived",),
    "archived": (),
}
LIFECYCLE = Lifecycle(noun="plan", initial=("draft",), table=TRANSITIONS)

TASK_TRANSITIONS: Mapping[TaskStatus, tuple[TaskStatus, ...]] = {
    "pending": ("running", "completed", "skipped"),
    "running": ("completed", "failed", "skipped"),
    "failed": ("pending", "running", "skipped"),
    "completed": (),
    "skipped": ("pending",),
}
TASK_LIFECYCLE = Lifecycle(noun="task", initial=("pending",), table=TASK_TRANSITIONS)

#: States of a plan in which nothing runs for it.
OVER: frozenset[Status] = frozenset({"draft", "completed", "failed", "cancelled", "archived"})

#: States of a task that let what depends on it begin.
TASK_DONE: frozenset[TaskStatus] = frozenset({"completed", "skipped"})

#: States of a task that has begun.
TASK_BEGUN: frozenset[TaskStatus] = frozenset({"running", "completed", "failed", "skipped"})

TASKS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task of a plan. `assignee` is a role or an assignment id, as the caller names it.

    With a module and an operation the task can be run by itself; without, somebody does it.
    """

    task_id: str
    name: str
    dependencies: tuple[str, ...] = ()
    assignee: str | None = None
    status: TaskStatus = "pending"
    result: Json = None
    types: Mapping[str, DependencyType] = field(default_factory=dict)  #: of the dependencies that are not finish-to-start
    duration_ms: float | None = None  #: how long it is expected to take
    module: str | None = None
    operation: str | None = None
    parameters: Json = None

    def type_of(self, dependency: str) -> DependencyType:
        """What sort of dependency it is."""
        return self.types.get(dependency, "finish-to-start")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The workflow that a plan's tasks have become. `caller` waits for its start."""

    execution_id: str
    status: Literal["requested", "running", "ended"]
    requested_us: int
    caller: Caller | None = None
    sequence: int = 0  #: of the last event of the execution that was taken
    before: str | None = None  #: the execution before it; it is the plan's again if this one never begins


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan as it is now."""

    plan_id: str
    context_id: str | None
    name: str
    description: str
    assigned_roles: tuple[Json, ...]
    tasks: Mapping[str, Task]  #: by task id, in order of their appearance
    status: Status
    version: int
    created_us: int
    updated_us: int
    approved_by: str | None = None
    run: Run | None = None
    runs: int = 0  #: how often it was run
    ending: bool = False  #: its run is told to end, and nothing that happens in it concerns the plan any more
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedPlan:
    """What is left of a plan that was deleted before its run had ended: that the run is cancelled."""

    plan_id: str
    run: Run
    status: Status
    updated_us: int
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCreated:
    """A plan was drafted."""

    TYPE: ClassVar[str] = "plan.created"
    context_id: str | None
    name: str
    description: str = ""
    assigned_roles: tuple[Json, ...] = ()
    tasks: tuple[Task, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUpdated:
    """A task was added or changed; it is now as told here."""

    TYPE: ClassVar[str] = "plan.task-updated"
    task: Task
    before: TaskStatus | None = None  #: its state until then; None: the task is new


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanApproved:
    """A draft was approved."""

    TYPE: ClassVar[str] = "plan.approved"
    by: str | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTransitioned:
    """The plan's state changed; approval has an event of its own."""

    TYPES: ClassVar[Mapping[Status, str]] = {
        "draft": "plan.reopened",
        "active": "plan.activated",
        "paused": "plan.paused",
        "completed": "plan.completed",
        "failed": "plan.failed",
        "cancelled": "plan.cancelled",
        "archived": "plan.archived",
    }
    before: Status
    after: Status
    reason: str = ""

    @property
    def TYPE(self) -> str:
        """The record's type tells the state after it."""
        return self.TYPES[self.after]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanUpdated:
    """Attributes changed; null: as before."""

    TYPE: ClassVar[str] = "plan.updated"
    name: str | None = None
    description: str | None = None
    assigned_roles: tuple[Json, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRemoved:
    """A task was taken out of the draft, and out of what depended on it."""

    TYPE: ClassVar[str] = "plan.task-removed"
    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDeleted:
    """The plan is gone; its history stays."""

    TYPE: ClassVar[str] = "plan.deleted"
    reason: str = ""
    run: str | None = None  #: the run that is cancelled and has not said that it has ended; null: there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequested:
    """The plan's tasks were handed to the orchestrator as a workflow."""

    TYPE: ClassVar[str] = "plan.run-requested"
    execution_id: str
    caller: Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The workflow of the plan runs."""

    TYPE: ClassVar[str] = "plan.run-started"
    execution_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded:
    """The workflow of the plan has ended; `refused`: it never began."""

    TYPE: ClassVar[str] = "plan.run-ended"
    execution_id: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFollowed:
    """The plan has taken note of what happened in its workflow, up to an event."""

    TYPE: ClassVar[str] = "plan.run-followed"
    sequence: int


PlanEvent: TypeAlias = (
    PlanCreated | PlanUpdated | TaskUpdated | TaskRemoved | PlanApproved | PlanTransitioned | PlanDeleted
    | RunRequested | RunStarted | RunEnded | RunFollowed
)  # fmt: skip
EVENTS = (
    PlanCreated, PlanUpdated, TaskUpdated, TaskRemoved, PlanApproved, PlanTransitioned, PlanDeleted,
    RunRequested, RunStarted, RunEnded, RunFollowed,
)  # fmt: skip
