"""What the trace operations decide. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from services.modules.built_in import Aggregate, BuiltIn
from services.modules.context.decide import open_context
from services.modules.lookup import changed, find, listing, states_of
from services.modules.operation import Decided, Done, Operation, Outcome, Refusal, Request, conflict
from services.modules.plan.state import Plan
from services.modules.trace.analysis import analyze
from services.modules.trace.collecting import take, watches_of
from services.modules.trace.evolve import evolve
from services.modules.trace.operations import (
    AnalysisResult,
    AnalyzeTrace,
    GetTrace,
    ListTraces,
    Record,
    Recorded,
    RecordResult,
    StartMonitoring,
    StopMonitoring,
    TraceList,
    TraceResult,
    TraceSummary,
)
from services.modules.trace.state import (
    EVENTS,
    LIFECYCLE,
    RECORDS_MAX,
    Trace,
    TraceRecorded,
    TraceStarted,
    TraceStopped,
    TraceWatched,
    Watches,
)
from streams.log.types import Send, View
from streams.operations import MONITOR
from streams.records import ModuleMessage, derived_id, from_micros
from streams.topics import RESPONSES, home_of


def start_monitoring(view: View[Any], parameters: StartMonitoring, request: Request) -> Outcome:
    """Begins a trace of a plan, a context or an execution: what happens to it is collected."""
    context_id, plan_id = parameters.context_id, parameters.plan_id
    if plan_id is not None:
        plan = find(view, Plan, plan_id, pointer="/planId")
        if isinstance(plan, Refusal):
            return plan
        if context_id not in (None, plan.context_id):
            belongs = "no context" if plan.context_id is None else f"the context {plan.context_id}"
            return conflict(f"The plan belongs to {belongs}.", "/contextId")
        context_id = plan.context_id
    elif context_id is not None:
        context = open_context(view, context_id)
        if isinstance(context, Refusal):
            return context
    trace_id = request.new_id("trace")
    if view.state(trace_id) is not None:
        return conflict(f"This request created {trace_id} before.")
    # Who begins a trace from within an execution wants to see that execution's steps beside the plan's tasks.
    execution_id = parameters.execution_id or (request.caller.execution_id if parameters.plan_id is not None else None)
    event = TraceStarted(name=parameters.name, plan_id=plan_id, context_id=context_id, execution_id=execution_id)
    targets = (plan_id,) if plan_id is not None else () if context_id is None else (context_id,)
    done = changed(evolve, None, trace_id, request, TraceSummary.of, event)
    watching = TraceWatched(trace_id=trace_id, targets=targets)
    watched = (Decided(aggregate_id=watches_of(request.home), event=watching, subject=trace_id),) if targets else ()
    monitored = () if execution_id is None else (_monitor(execution_id, trace_id, request),)
    return replace(done, events=(*done.events, *watched), effects=monitored)


def _monitor(execution_id: str, trace_id: str, request: Request) -> Send:
    """Asks the orchestrator to tell a trace what happens in an execution."""
    message = ModuleMessage(
        id=derived_id("monitor", trace_id),
        type="workflow.notified",
        source="mplp/modules/trace",
        subject=execution_id,
        time=from_micros(request.time_us),
        tenant=request.caller.tenant,
        correlation_id=request.caller.correlation_id,
        data={"module": "trace", "id": trace_id},
        kind="notification",
        source_module="trace",
        target_module="workflow",
        operation=MONITOR,
        execution_id=execution_id,
    )
    return Send(topic=RESPONSES, key=home_of(execution_id), record=message)


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
    count = len(trace.records) + 1
    result = Recorded(trace_id=trace.trace_id, record_id=event.record_id, record_count=count)
    return changed(evolve, trace, trace.trace_id, request, lambda _: result, event)


def stop_monitoring(view: View[Any], parameters: StopMonitoring, request: Request) -> Outcome:
    """Ends a trace: completed, failed or cancelled."""
    trace = find(view, Trace, parameters.trace_id, pointer="/traceId")
    if isinstance(trace, Refusal):
        return trace
    refused = LIFECYCLE.refusal(trace.status, parameters.status, "/status")
    if refused is not None:
        return refused
    event = TraceStopped(after=parameters.status, reason=parameters.reason)
    done = changed(evolve, trace, trace.trace_id, request, TraceSummary.of, event)
    watches = view.state(watches_of(request.home))
    if isinstance(watches, Watches) and any(trace.trace_id in traces for traces in watches.targets.values()):
        ended = Decided(aggregate_id=watches_of(request.home), event=TraceWatched(trace_id=trace.trace_id), subject=trace.trace_id)
        done = replace(done, events=(*done.events, ended))
    return done


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


def list_traces(view: View[Any], parameters: ListTraces, request: Request) -> Outcome:
    """Traces in order of their ids, by what they monitor and how they are."""
    wanted = (
        trace
        for trace in states_of(view, Trace)
        if parameters.plan_id in (None, trace.plan_id)
        and parameters.context_id in (None, trace.context_id)
        and parameters.execution_id in (None, trace.execution_id)
        and parameters.status in (None, trace.status)
    )
    return listing(view, parameters, TraceList, wanted, lambda trace: trace.trace_id, TraceSummary.of)


MODULE = BuiltIn(
    operations={
        "start-monitoring": Operation(parameters=StartMonitoring, result=TraceSummary, decide=start_monitoring),
        "record": Operation(parameters=Record, result=Recorded, decide=record),
        "stop-monitoring": Operation(parameters=StopMonitoring, result=TraceSummary, decide=stop_monitoring),
        "get-trace": Operation(parameters=GetTrace, result=TraceResult, decide=get_trace),
        "analyze-trace": Operation(parameters=AnalyzeTrace, result=AnalysisResult, decide=analyze_trace),
        "list-traces": Operation(parameters=ListTraces, result=TraceList, decide=list_traces, gathers=True),
    },
    events=EVENTS,
    evolve=evolve,
    aggregates=(Aggregate(state=Trace, ended=lambda state: state.ended_us), Aggregate(state=Watches)),
    take=take,
    lifecycles=(LIFECYCLE,),
)
