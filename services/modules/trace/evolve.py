"""The fold of a trace's events. Pure and total: an event that fits no state changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from services.modules.trace.state import Trace, TraceEvent, TraceRecord, TraceRecorded, TraceStarted, TraceStopped


def evolve(state: Trace | None, event: TraceEvent, aggregate_id: str, time_us: int) -> Trace | None:
    """The trace after `event`; None: there is none."""
    if isinstance(event, TraceStarted):
        return Trace(
            trace_id=aggregate_id,
            name=event.name,
            plan_id=event.plan_id,
            context_id=event.context_id,
            status="running",
            started_us=time_us,
        )
    if state is None:
        return None
    match event:
        case TraceRecorded():
            record = TraceRecord(
                record_id=event.record_id,
                type=event.type,
                name=event.name,
                span=event.span,
                severity=event.severity,
                at_us=time_us,
                duration_us=None if event.duration_ms is None else round(event.duration_ms * 1000),
            )
            return replace(state, records=(*state.records, record))
        case TraceStopped():
            return replace(state, status=event.after, ended_us=time_us)
        case _:
            assert_never(event)
