"""How traces collect: what happens to what they watch becomes their records, in the same decision. Pure.

Watched are aggregates (a plan, a context with all that lies in it) and executions. Events of aggregates come from the decision itself, so
nothing is missed; those of an execution are told by the orchestrator (notification `collect`), which says how many it has told: what is
missing is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from services.modules.operation import NOTHING_FOLLOWS, Decided, Follow, event_data, short_id
from services.modules.plan.state import TaskUpdated
from services.modules.trace.state import RECORDS_MAX, RecordType, Trace, TraceRecorded, Watches
from streams.log.types import View
from streams.operations import COLLECT
from streams.records import ModuleMessage, Severity
from streams.topics import home_of

_TASKS: Mapping[str, RecordType] = {"running": "start", "completed": "completion", "failed": "failure", "skipped": "interrupt"}
_STEPS: Mapping[str, RecordType] = {
    "step.started": "start",
    "step.completed": "completion",
    "step.failed": "failure",
    "step.timed_out": "timeout",
    "step.cancelled": "interrupt",
    "step.skipped": "interrupt",
    "execution.completed": "completion",
    "execution.failed": "failure",
    "execution.timed_out": "timeout",
    "execution.cancelled": "interrupt",
}


def watches_of(home: str) -> str:
    """The aggregate that tells which traces of a home watch what."""
    return f"{home}/watches"


def collect(view: View[Any], decided: Iterable[Decided], time_us: int) -> Iterator[Decided]:
    """Records, in the traces that watch, of what has been decided."""
    found = tuple(decided)
    watches = view.state(watches_of(home_of(found[0].aggregate_id))) if found else None
    if not isinstance(watches, Watches):
        return
    for number, each in enumerate(found):
        if each.event.TYPE.startswith("trace."):
            continue
        for trace_id in dict.fromkeys(trace for target in _targets(view, each) for trace in watches.targets.get(target, ())):
            trace = view.state(trace_id)
            if isinstance(trace, Trace) and trace.status == "running" and len(trace.records) < RECORDS_MAX:
                yield Decided(aggregate_id=trace_id, event=_recorded(trace_id, each, len(trace.records), number))


def _targets(view: View[Any], decided: Decided) -> Iterator[str]:
    yield decided.aggregate_id
    for holder in (view.state(decided.aggregate_id), decided.event):
        context_id = getattr(holder, "context_id", None)
        if isinstance(context_id, str):
            yield context_id


def _recorded(trace_id: str, decided: Decided, count: int, number: int) -> TraceRecorded:
    event = decided.event
    kind: RecordType = "checkpoint"
    name = span = event.TYPE
    if isinstance(event, TaskUpdated):
        kind = _TASKS.get(event.task.status, "progress")
        name = span = event.task.task_id
    severity: Severity = "error" if kind == "failure" else "info"
    return TraceRecorded(
        record_id=f"record-{short_id('collected', trace_id, count, number)}",
        type=kind,
        name=name,
        span=span,
        severity=severity,
        payload={"event": event.TYPE, "aggregateId": decided.aggregate_id, "data": event_data(event)},
    )


def take(view: View[Any], message: ModuleMessage, time_us: int) -> Follow | None:
    """What happened in an execution that is watched."""
    data = message.data
    if message.kind != "notification" or message.operation != COLLECT or not isinstance(data, dict):
        return None
    trace = view.state(str(data.get("id")))
    entries = data.get("entries")
    if not isinstance(trace, Trace) or trace.status != "running" or not isinstance(entries, list):
        return NOTHING_FOLLOWS
    known = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get("sequence"), int)]
    new = [entry for entry in known if entry["sequence"] > trace.sequence][: max(0, RECORDS_MAX - len(trace.records))]
    told = data.get("told")
    if not isinstance(told, int):
        told = None
    missed = 0 if data.get("so_far") is True or not trace.told or told is None else max(0, told - trace.told - len(new))
    events = []
    for place, entry in enumerate(new):
        recorded = _step(trace, entry, missed if place == 0 else 0, told)
        events.append(Decided(aggregate_id=trace.trace_id, event=recorded, correlation_id=message.correlation_id))
    return Follow(events=tuple(events))


def _step(trace: Trace, entry: Mapping[str, Any], missed: int, told: int | None) -> TraceRecorded:
    kind = str(entry.get("type", ""))
    name = str(entry.get("step") or "execution")
    found = _STEPS.get(kind, "start" if kind == "execution.started" else "progress")
    severity = cast(Severity, {"failure": "error", "timeout": "error"}.get(found, "info"))
    return TraceRecorded(
        record_id=f"record-{short_id('step', trace.trace_id, entry['sequence'])}",
        type=found,
        name=name,
        span=name,
        severity=severity,
        duration_ms=_duration_ms(entry.get("begun_us"), entry.get("time_us")),
        payload={
            "event": kind,
            "executionId": trace.execution_id,
            "step": entry.get("step"),
            "attempt": entry.get("attempt"),
            **({"error": entry["error"]} if "error" in entry else {}),
        },
        at_us=entry.get("time_us") if isinstance(entry.get("time_us"), int) else None,
        sequence=entry["sequence"],
        missed=missed,
        told=told,
    )


def _duration_ms(begun_us: Any, ended_us: Any) -> float | None:
    """How long something took that ended; None: it was not told when it began."""
    return (ended_us - begun_us) / 1000 if isinstance(begun_us, int) and isinstance(ended_us, int) and begun_us <= ended_us else None
