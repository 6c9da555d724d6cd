"""What the trace operations decide. Pure."""

from __future__ import annotations

from typing import Any

from services.modules.context.decide import open_context
from services.modules.lookup import find
from services.modules.operation import BuiltIn, Decided, Done, Operation, Outcome, Refusal, Request, conflict
from services.modules.plan.state import Plan
from services.modules.trace.analysis import analyze
from services.modules.trace.evolve import evolve
from services.modules.trace.operations import (
    AnalysisResult,
    AnalyzeTrace,
    GetTrace,
    Record,
    Recorded,
    RecordResult,
    StartMonitoring,
    StopMonitoring,
    TraceResult,
    TraceSummary,
)
from services.modules.trace.state import EVENTS, RECORDS_MAX, TRANSITIONS, Trace, TraceEvent, TraceRecorded, TraceStarted, TraceStopped
from services.modules.transitions import refuse_transition
from streams.log.types import View


def start_monitoring(view: View[Any], parameters: StartMonitoring, request: Request) -> Outcome:
    """Begins a trace of a plan or a context."""
    context_id = parameters.context_id
    if parameters.plan_id is not None:
        plan = find(view, Plan, parameters.plan_id, pointer="/planId")
        if isinstance(plan, Refusal):
            return plan
        if context_id not in (None, plan.context_id):
            return conflict(f"The plan belongs to the context {plan.context_id}.", "/contextId")
        context_id = plan.context_id
    elif context_id is not None:
        context = open_context(view, context_id)
        if isinstance(context, Refusal):
            return context
    trace_id = request.new_id("trace")
    if view.state(trace_id) is not None:
        return conflict(f"This request created {trace_id} before.")
    event = TraceStarted(name=parameters.name, plan_id=parameters.plan_id, context_id=context_id)
    after = _after(None, event, trace_id, request)
    return Done(aggregate_id=trace_id, result=TraceSummary.of(after), events=(Decided(aggregate_id=trace_id, event=event),))


def record(view: View[Any], parameters: Record, request: Request) -> Outcome:
    """Adds a record to a running trace."""
    trace = _running(view, parameters.trace_id)
    if isinstance(trace, Refusal):
        return trace
    if len(trace.records) >= RECORDS_MAX:
        return Refusal(code="payload.too-large", message=f"A trace has at most {RECORDS_MAX} records; start another.", pointer="/traceId")
    event = TraceRecorded(
        record_id=request.new_id("record").partition("/")[2],
        type=parameters.type,
        name=parameters.name,
        span=parameters.span or parameters.name,
        severity=parameters.severity,
        duration_ms=parameters.duration_ms,
        payload=parameters.data,
    )
    after = _after(trace, event, trace.trace_id, request)
    return Done(
        aggregate_id=trace.trace_id,
        result=Recorded(trace_id=trace.trace_id, record_id=event.record_id, record_count=len(after.records)),
        events=(Decided(aggregate_id=trace.trace_id, event=event),),
    )


def stop_monitoring(view: View[Any], parameters: StopMonitoring, request: Request) -> Outcome:
    """Ends a trace: completed, failed or cancelled."""
    trace = find(view, Trace, parameters.trace_id, pointer="/traceId")
    if isinstance(trace, Refusal):
        return trace
    refused = refuse_transition(TRANSITIONS, "trace", trace.status, parameters.status)
    if refused is not None:
        return refused
    event = TraceStopped(after=parameters.status, reason=parameters.reason)
    after = _after(trace, event, trace.trace_id, request)
    return Done(aggregate_id=trace.trace_id, result=TraceSummary.of(after), events=(Decided(aggregate_id=trace.trace_id, event=event),))


def get_trace(view: View[Any], parameters: GetTrace, request: Request) -> Outcome:
    """A trace with its records, page by page."""
    trace = find(view, Trace, parameters.trace_id, pointer="/traceId")
    if isinstance(trace, Refusal):
        return trace
    shown = trace.records[parameters.offset : parameters.offset + parameters.limit]
    result = TraceResult(**TraceSummary.of(trace).model_dump(), offset=parameters.offset, records=[RecordResult.of(each) for each in shown])
    return Done(aggregate_id=trace.trace_id, result=result)


def analyze_trace(view: View[Any], parameters: AnalyzeTrace, request: Request) -> Outcome:
    """Counts, durations with percentiles, failure rate and open spans, computed from the trace's records."""
    trace = find(view, Trace, parameters.trace_id, pointer="/traceId")
    if isinstance(trace, Refusal):
        return trace
    return Done(aggregate_id=trace.trace_id, result=AnalysisResult.of(trace, analyze(trace, request.time_us)))


def _running(view: View[Any], trace_id: str) -> Trace | Refusal:
    trace = find(view, Trace, trace_id, pointer="/traceId")
    if isinstance(trace, Trace) and trace.status != "running":
        return conflict(f"The trace is {trace.status}; only a running one takes records.", "/traceId")
    return trace


def _after(before: Trace | None, event: TraceEvent, trace_id: str, request: Request) -> Trace:
    after = evolve(before, event, trace_id, request.time_us)
    assert after is not None
    return after


MODULE = BuiltIn(
    operations={
        "start-monitoring": Operation(parameters=StartMonitoring, result=TraceSummary, decide=start_monitoring),
        "record": Operation(parameters=Record, result=Recorded, decide=record),
        "stop-monitoring": Operation(parameters=StopMonitoring, result=TraceSummary, decide=stop_monitoring),
        "get-trace": Operation(parameters=GetTrace, result=TraceResult, decide=get_trace),
        "analyze-trace": Operation(parameters=AnalyzeTrace, result=AnalysisResult, decide=analyze_trace),
    },
    events=EVENTS,
    evolve=evolve,
)
