"""Parameters and results of the trace operations."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from services.modules.operation import Identifier, Listing, Name, Page, Parameters, Result, Text, time_text
from services.modules.trace.analysis import Analysis, Span
from services.modules.trace.state import RecordType, Status, Trace, TraceRecord
from streams.durations import DURATION_MS_MAX
from streams.records import Json, Severity

#: Spans that an analysis shows.
SPANS_SHOWN_MAX = 1000


class StartMonitoring(Parameters):
    """Parameters of start-monitoring: what is monitored. Whatever happens to it from then on becomes a record of the trace."""

    TARGETS: ClassVar[tuple[str, ...]] = ("plan_id", "context_id", "execution_id")

    plan_id: Identifier | None = Field(None, description="A plan: its own events, and those of the execution that asks.")
    context_id: Identifier | None = Field(None, description="A context, with everything that lies in it.")
    execution_id: Identifier | None = Field(None, description="An execution: its steps as they begin and end.")
    name: Name = "trace"

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.plan_id is None and self.context_id is None and self.execution_id is None:
            raise ValueError("give planId, contextId or executionId")
        return self


class OfTrace(Parameters):
    """Names a trace."""

    TARGETS: ClassVar[tuple[str, ...]] = ("trace_id",)

    trace_id: Identifier = Field(description="Id of the trace, from start-monitoring.")


class Record(OfTrace):
    """Parameters of record."""

    type: RecordType = "progress"
    name: Name = Field(description="What it is about: records of one name are analysed together.")
    span: Name | None = Field(None, description="Tells apart what runs at the same time under one name; without: the name.")
    severity: Severity = "info"
    duration_ms: float | None = Field(None, ge=0, le=DURATION_MS_MAX, allow_inf_nan=False, description="If it was measured elsewhere.")
    data: Json = Field(None, description="Kept in the log.")


class StopMonitoring(OfTrace):
    """Parameters of stop-monitoring."""

    status: Literal["completed", "failed", "cancelled"] = "completed"
    reason: Text = ""


class GetTrace(OfTrace):
    """Parameters of get-trace."""

    offset: int = Field(0, ge=0, description="First record to show, from 0.")
    limit: int = Field(100, ge=1, le=1000, description="Most records to show.")


class ListTraces(Page):
    """Parameters of list-traces: conditions that all must hold."""

    TARGETS: ClassVar[tuple[str, ...]] = ("plan_id", "context_id")

    plan_id: Identifier | None = None
    context_id: Identifier | None = None
    execution_id: Identifier | None = None
    status: Status | None = None


class AnalyzeTrace(OfTrace):
    """Parameters of analyze-trace."""


class TraceSummary(Result):
    """A trace without its records."""

    trace_id: str
    name: str
    plan_id: str | None
    context_id: str | None
    execution_id: str | None
    status: Status
    record_count: int
    missed: int = Field(description="Events of the execution that were lost on their way to the trace.")
    started_at: str
    ended_at: str | None

    @classmethod
    def of(cls, trace: Trace) -> Self:
        """The trace as callers see it."""
        return cls(
            trace_id=trace.trace_id,
            name=trace.name,
            plan_id=trace.plan_id,
            context_id=trace.context_id,
            execution_id=trace.execution_id,
            status=trace.status,
            record_count=len(trace.records),
            missed=trace.missed,
            started_at=time_text(trace.started_us),
            ended_at=None if trace.ended_us is None else time_text(trace.ended_us),
        )


class RecordResult(Result):
    """A record of a trace."""

    record_id: str
    type: RecordType
    name: str
    span: str
    severity: Severity
    at: str
    duration_ms: float | None

    @classmethod
    def of(cls, record: TraceRecord) -> Self:
        """The record as callers see it."""
        return cls(
            record_id=record.record_id,
            type=record.type,
            name=record.name,
            span=record.span,
            severity=record.severity,
            at=time_text(record.at_us),
            duration_ms=None if record.duration_us is None else record.duration_us / 1000,
        )


class Recorded(Result):
    """What record answers."""

    trace_id: str
    record_id: str
    record_count: int


class TraceResult(TraceSummary):
    """A trace with some of its records, in order."""

    offset: int
    records: list[RecordResult]


class DurationsResult(Result):
    """Durations of one name, milliseconds; percentiles by linear interpolation."""

    count: int
    min_ms: float
    mean_ms: float
    max_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float


class TraceList(Listing):
    """Traces in order of their ids."""

    ENTRIES: ClassVar[str] = "traces"
    KEY: ClassVar[str] = "traceId"

    traces: list[TraceSummary]


class SpanResult(Result):
    """Something that began and ended."""

    span: str
    name: str
    started_at: str
    ended_at: str
    duration_ms: float
    outcome: RecordType

    @classmethod
    def of(cls, span: Span) -> Self:
        """The span as callers see it."""
        return cls(
            span=span.span,
            name=span.name,
            started_at=time_text(span.start_us),
            ended_at=time_text(span.end_us),
            duration_ms=(span.end_us - span.start_us) / 1000,
            outcome=span.outcome,
        )


class AnalysisResult(Result):
    """Figures computed from a trace's records."""

    trace_id: str
    status: Status
    records: int
    duration_ms: float = Field(
        description="From the first beginning to the end; of a running trace to its last record, or to now if a span is open."
    )
    by_type: dict[str, int]
    by_severity: dict[str, int]
    by_name: dict[str, int]
    failures: int
    failure_rate: float = Field(description="Failures and time-outs among the records that end something, 0 to 1.")
    durations: dict[str, DurationsResult] = Field(description="By name.")
    open_spans: list[str] = Field(description="Begun and not ended.")
    longest_gap_ms: float = Field(description="Longest time without a record or the beginning of a span.")
    spans: list[SpanResult] = Field(description="What began and ended, in order of the beginning; the first 1000.")
    critical_path: list[SpanResult] = Field(
        description="The chain of spans that the end had to wait for: back from the last one, each time the one that ended last before."
    )

    @classmethod
    def of(cls, trace: Trace, analysis: Analysis) -> Self:
        """The analysis as callers see it."""
        return cls(
            trace_id=trace.trace_id,
            status=trace.status,
            records=analysis.records,
            duration_ms=analysis.duration_ms,
            by_type=dict(analysis.by_type),
            by_severity=dict(analysis.by_severity),
            by_name=dict(analysis.by_name),
            failures=analysis.failures,
            failure_rate=analysis.failure_rate,
            durations={
                name: DurationsResult(
                    count=found.count,
                    min_ms=found.least_ms,
                    mean_ms=found.mean_ms,
                    max_ms=found.greatest_ms,
                    **{f"{name}_ms": value for name, value in found.percentiles_ms.items()},
                )
                for name, found in analysis.durations.items()
            },
            open_spans=list(analysis.open_spans),
            longest_gap_ms=analysis.longest_gap_ms,
            spans=[SpanResult.of(span) for span in analysis.spans[:SPANS_SHOWN_MAX]],
            critical_path=[SpanResult.of(span) for span in analysis.critical_path[-SPANS_SHOWN_MAX:]],
        )
