"""State and events of the schedules of one workflow. Times are microseconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from streams.triggers import Missed


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One schedule and its next time."""

    cron: str
    timezone: str
    missed: Missed
    next_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Starting:
    """A start that is decided, but not known to be on its way: a new owner sends it again."""

    execution_id: str
    cron: str
    timezone: str
    at_us: int
    missed_since_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedules:
    """The schedules of a workflow. `order` is the place on the control topic of the revision that has them."""

    workflow_id: str
    order: int
    planned: tuple[Planned, ...] = ()
    starting: tuple[Starting, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSet:
    """Another revision of the workflow was published, or it was deleted: these schedules hold from now on."""

    TYPE: ClassVar[str] = "schedule.set"
    workflow_id: str
    order: int
    planned: tuple[Planned, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFired:
    """A time has come: an execution starts. `missed_since_us`: the first of the times that it makes up for."""

    TYPE: ClassVar[str] = "schedule.fired"
    execution_id: str
    cron: str
    timezone: str
    at_us: int
    next_us: int
    missed_since_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSkipped:
    """Times have passed at which nothing ran, and by the workflow's wish none is made up for."""

    TYPE: ClassVar[str] = "schedule.skipped"
    cron: str
    timezone: str
    since_us: int
    next_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleStarted:
    """The start of an execution lies in the orchestrator's inbox."""

    TYPE: ClassVar[str] = "schedule.started"
    execution_id: str


ScheduleEvent: TypeAlias = ScheduleSet | ScheduleFired | ScheduleSkipped | ScheduleStarted
