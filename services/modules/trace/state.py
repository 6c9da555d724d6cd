"""State and events of traces, and the table of their life cycle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from services.modules.lifecycle import Lifecycle
from streams.records import Json, Severity

Status: TypeAlias = Literal["running", "completed", "failed", "cancelled"]
RecordType: TypeAlias = Literal["start", "progress", "checkpoint", "completion", "failure", "timeout", "interrupt"]

TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    "running": ("completed", "failed", "cancelled"),
    "completed": (),
    "failed": (),
    "cancelled": (),
}
LIFECYCLE = Lifecycle(noun="trace", initial=("running",), table=TRANSITIONS)

#: Records that end what a record of type `start` began.
ENDS: frozenset[RecordType] = frozenset({"completion", "failure", "timeout", "interrupt"})

#: Records of one trace; beyond it a new trace is needed.
RECORDS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRecord:
    """One record of a trace; its payload stays in the log."""

    record_id: str
    type: RecordType
    name: str
    span: str  #: what begin and end have in common; the name if nothing else is given
    severity: Severity
    at_us: int
    duration_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A trace as it is now."""

    trace_id: str
    name: str
    plan_id: str | None
    context_id: str | None
    status: Status
    started_us: int
    ended_us: int | None = None
    records: tuple[TraceRecord, ...] = ()
    execution_id: str | None = None
    missed: int = 0  #: events of the execution that were lost on their way here
    sequence: int = 0  #: of the last event of the execution that was collected
    told: int = 0  #: how many events of the execution had been told by then; 0: not known
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Watches:
    """Which running traces collect what happens to what, at one home."""

    targets: Mapping[str, tuple[str, ...]]  #: aggregate or execution id → trace ids


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStarted:
    """Monitoring began."""

    TYPE: ClassVar[str] = "trace.started"
    name: str
    plan_id: str | None = None
    context_id: str | None = None
    execution_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRecorded:
    """Something was recorded. `duration_ms` is as given by the caller; `at_us` and what follows it are those of a collected event."""

    TYPE: ClassVar[str] = "trace.recorded"
    record_id: str
    type: RecordType
    name: str
    span: str
    severity: Severity = "info"
    duration_ms: float | None = None
    payload: Json = None
    at_us: int | None = None
    sequence: int | None = None
    missed: int = 0
    told: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceStopped:
    """Monitoring ended."""

    TYPES: ClassVar[Mapping[Status, str]] = {"completed": "trace.completed", "failed": "trace.failed", "cancelled": "trace.cancelled"}
    after: Status
    reason: str = ""

    @property
    def TYPE(self) -> str:
        """The record's type tells the state after it."""
        return self.TYPES[self.after]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceWatched:
    """From now on a trace collects what happens to `targets`; without targets it collects no more."""

    TYPE: ClassVar[str] = "trace.watched"
    trace_id: str
    targets: tuple[str, ...] = ()


TraceEvent: TypeAlias = TraceStarted | TraceRecorded | TraceStopped | TraceWatched
EVENTS = (TraceStarted, TraceRecorded, TraceStopped, TraceWatched)
