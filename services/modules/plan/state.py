"""State and events of plans, and the tables of the life cycles of plans and their tasks.

The table of plans is the one of the MPLP documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from streams.records import Json

Status: TypeAlias = Literal["draft", "approved", "active", "paused", "completed", "cancelled", "failed", "archived"]
TaskStatus: TypeAlias = Literal["pending", "running", "completed", "failed", "skipped"]

TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    "draft": ("approved", "active", "cancelled"),
    "approved": ("active", "cancelled"),
    "active": ("paused", "completed", "failed", "cancelled"),
    "paused": ("active", "cancelled"),
    "failed": ("draft", "active", "cancelled", "archived"),
    "completed": ("archived",),
    "cancelled": ("archived",),
    "archived": (),
}

TASK_TRANSITIONS: Mapping[TaskStatus, tuple[TaskStatus, ...]] = {
    "pending": ("running", "completed", "skipped"),
    "running": ("completed", "failed", "skipped"),
    "failed": ("pending", "running", "skipped"),
    "completed": (),
    "skipped": ("pending",),
}

#: States of a task that let what depends on it begin.
TASK_DONE: frozenset[TaskStatus] = frozenset({"completed", "skipped"})

TASKS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task of a plan. `assignee` is a role or an assignment id, as the caller names it."""

    task_id: str
    name: str
    dependencies: tuple[str, ...] = ()
    assignee: str | None = None
    status: TaskStatus = "pending"
    result: Json = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan as it is now."""

    plan_id: str
    context_id: str
    name: str
    description: str
    assigned_roles: tuple[Json, ...]
    tasks: Mapping[str, Task]  #: by task id, in order of their appearance
    status: Status
    version: int
    created_us: int
    updated_us: int
    approved_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCreated:
    """A plan was drafted."""

    TYPE: ClassVar[str] = "plan.created"
    context_id: str
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


PlanEvent: TypeAlias = PlanCreated | TaskUpdated | PlanApproved | PlanTransitioned
EVENTS = (PlanCreated, TaskUpdated, PlanApproved, PlanTransitioned)
