"""The fold of a trace's events, and of what traces collect at a home. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.trace.state import Trace, TraceEvent, TraceRecord, TraceRecorded, TraceStarted, TraceStopped, TraceWatched, Watches


def evolve(state: Trace | Watches | None, event: TraceEvent, aggregate_id: str, time_us: int) -> Trace | Watches | None:
    """The trace after `event`; None: there is none."""
    if isinstance(event, TraceWatched):
        return _watched(state if isinstance(state, Watches) else Watches(targets={}), event)
    if isinstance(event, TraceStarted):
        return Trace(
            trace_id=aggregate_id,
            name=event.name,
            plan_id=event.plan_id,
            context_id=event.context_id,
            execution_id=event.execution_id,
            status="running",
            started_us=time_us,
        )
    if not isinstance(state, Trace):
        return state
    match event:
        case TraceRecorded():
            record = TraceRecord(
                record_id=event.record_id,
                type=event.type,
                name=event.name,
                span=event.span,
                severity=event.severity,
                at_us=time_us if event.at_us is None else event.at_us,
                duration_us=None if event.duration_ms is None else round(event.duration_ms * 1000),
            )
            return replace(
                state,
                records=(*state.records, record),
                missed=state.missed + event.missed,
                sequence=state.sequence if event.sequence is None else event.sequence,
                told=state.told if event.told is None else event.told,
            )
        case TraceStopped():
            return replace(state, status=event.after, ended_us=time_us)
        case _:
            assert_never(event)


def _watched(state: Watches, event: TraceWatched) -> Watches | None:
    others = {target: tuple(each for each in traces if each != event.trace_id) for target, traces in state.targets.items()}
    added = {target: (*others.get(target, ()), event.trace_id) for target in event.targets}
    targets = {target: traces for target, traces in {**others, **added}.items() if traces}
    return Watches(targets=targets) if targets else None
