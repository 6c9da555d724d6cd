"""What can be computed from a trace's records: counts, durations with percentiles, failures, spans that never ended. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.modules.trace.state import ENDS, RecordType, Trace, TraceRecord

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """Durations of one name, milliseconds."""

    count: int
    least_ms: float
    mean_ms: float
    greatest_ms: float
    percentiles_ms: Mapping[str, float]  #: p50, p90, p95, p99


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that began and ended."""

    span: str
    name: str
    start_us: int
    end_us: int
    outcome: RecordType


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The figures of a trace."""

    records: int
    duration_ms: float  #: from the first beginning to the end, of a running trace to its last record (`now` if a span is open)
    by_type: Mapping[str, int]
    by_severity: Mapping[str, int]
    by_name: Mapping[str, int]
    failures: int  #: records of type failure and timeout
    failure_rate: float  #: failures among the records that end something, 0 without such
    durations: Mapping[str, Durations]  #: by name
    open_spans: tuple[str, ...]  #: begun and not ended, in order of their beginning
    longest_gap_ms: float  #: longest time without a record in that duration
    spans: tuple[Span, ...] = ()  #: in order of their beginning
    critical_path: tuple[Span, ...] = ()


def analyze(trace: Trace, now_us: int) -> Analysis:
    """The figures of `trace` at `now_us` (only used while it runs).

    A trace may be begun by a step of the execution that it watches: what had begun before it counts. And it may run on, when nothing
    happens any more: only an open span lasts until `now`.
    """
    ends = sum(record.type in ENDS for record in trace.records)
    failures = sum(record.type in ("failure", "timeout") for record in trace.records)
    measured, spans, open_spans = _durations(trace.records)
    happened = sorted([trace.started_us, *(record.at_us for record in trace.records), *(span.start_us for span in spans)])
    end_us = trace.ended_us if trace.ended_us is not None else now_us if open_spans or not trace.records else happened[-1]
    moments = sorted([*happened, end_us])
    return Analysis(
        records=len(trace.records),
        duration_ms=(moments[-1] - moments[0]) / 1000,
        by_type=Counter(record.type for record in trace.records),
        by_severity=Counter(record.severity for record in trace.records),
        by_name=Counter(record.name for record in trace.records),
        failures=failures,
        failure_rate=failures / ends if ends else 0.0,
        durations={name: summarize(values) for name, values in sorted(measured.items())},
        open_spans=open_spans,
        longest_gap_ms=max(after - before for before, after in pairwise(moments)) / 1000,
        spans=tuple(sorted(spans, key=lambda span: (span.start_us, span.end_us))),
        critical_path=critical_path(spans),
    )


def summarize(durations_us: Sequence[int]) -> Durations:
    """Figures of at least one duration in microseconds."""
    ordered = sorted(durations_us)
    return Durations(
        count=len(ordered),
        least_ms=ordered[0] / 1000,
        mean_ms=sum(ordered) / len(ordered) / 1000,
        greatest_ms=ordered[-1] / 1000,
        percentiles_ms={f"p{percent}": percentile(ordered, percent) / 1000 for percent in PERCENTILES},
    )


def percentile(ordered: Sequence[int], percent: float) -> float:
    """The percentile of ascending values by linear interpolation: definition 7 of Hyndman and Fan (1996), as NumPy's default."""
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def critical_path(spans: Sequence[Span]) -> tuple[Span, ...]:
    """The chain of spans that the end had to wait for:

    back from the one that ended last, each time the one that ended last before it began.

    No dependencies have to be known: what was waited for is what ended last before the next could begin. A span around others (an
    execution around its steps) is left out as long as anything else is there.
    """
    inner = _innermost(spans)
    path: list[Span] = []
    left = sorted(inner, key=lambda span: (span.end_us, span.start_us))
    while left:
        last = left.pop()
        path.append(last)
        left = [span for span in left if span.end_us <= last.start_us]
    return tuple(reversed(path))


def _innermost(spans: Sequence[Span]) -> list[Span]:
    """Spans that have no other inside them.

    Walked by their beginnings, latest first: one has another inside if one met before ends in time.
    """
    found: list[Span] = []
    earliest_end: int | None = None
    for span in sorted(spans, key=lambda span: (span.start_us, -span.end_us), reverse=True):
        if earliest_end is None or span.end_us < earliest_end:
            found.append(span)
            earliest_end = span.end_us
        elif found[-1].start_us == span.start_us and found[-1].end_us == span.end_us:
            found.append(span)
    return found


def _durations(records: Sequence[TraceRecord]) -> tuple[dict[str, list[int]], list[Span], tuple[str, ...]]:
    """Durations by name:

    as given, else from a `start` to the first end of the same span; what began and ended; and the spans still open.
    """
    begun: dict[str, TraceRecord] = {}
    found: dict[str, list[int]] = {}
    spans: list[Span] = []
    for record in records:
        if record.type == "start":
            begun[record.span] = record
            continue
        start = begun.pop(record.span, None) if record.type in ENDS else None
        if record.duration_us is not None:
            found.setdefault(record.name, []).append(record.duration_us)
        elif start is not None:
            found.setdefault(start.name, []).append(record.at_us - start.at_us)
        begun_us = record.at_us - record.duration_us if record.duration_us is not None else None if start is None else start.at_us
        if begun_us is not None and record.type in ENDS:
            name = record.name if start is None else start.name
            spans.append(Span(span=record.span, name=name, start_us=begun_us, end_us=max(record.at_us, begun_us), outcome=record.type))
    return found, spans, tuple(begun)
