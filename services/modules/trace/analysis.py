"""What can be computed from a trace's records: counts, durations with percentiles, failures, spans that never ended. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from services.modules.trace.state import ENDS, Trace, TraceRecord

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
class Analysis:
    """The figures of a trace."""

    records: int
    duration_ms: float  #: from the start to the end, of a running trace to `now`
    by_type: Mapping[str, int]
    by_severity: Mapping[str, int]
    by_name: Mapping[str, int]
    failures: int  #: records of type failure and timeout
    failure_rate: float  #: failures among the records that end something, 0 without such
    durations: Mapping[str, Durations]  #: by name
    open_spans: tuple[str, ...]  #: begun and not ended, in order of their beginning
    longest_gap_ms: float  #: longest time without a record, from the start to the end (of a running trace: to `now`)


def analyze(trace: Trace, now_us: int) -> Analysis:
    """The figures of `trace` at `now_us` (only used while it runs)."""
    end_us = trace.ended_us if trace.ended_us is not None else now_us
    ends = sum(record.type in ENDS for record in trace.records)
    failures = sum(record.type in ("failure", "timeout") for record in trace.records)
    measured, open_spans = _durations(trace.records)
    moments = [trace.started_us, *(record.at_us for record in trace.records), end_us]
    return Analysis(
        records=len(trace.records),
        duration_ms=(end_us - trace.started_us) / 1000,
        by_type=Counter(record.type for record in trace.records),
        by_severity=Counter(record.severity for record in trace.records),
        by_name=Counter(record.name for record in trace.records),
        failures=failures,
        failure_rate=failures / ends if ends else 0.0,
        durations={name: summarize(values) for name, values in sorted(measured.items())},
        open_spans=open_spans,
        longest_gap_ms=max(after - before for before, after in pairwise(moments)) / 1000,
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


def _durations(records: Sequence[TraceRecord]) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Durations by name: as given, else from a `start` to the first end of the same span; and the spans still open."""
    begun: dict[str, TraceRecord] = {}
    found: dict[str, list[int]] = {}
    for record in records:
        if record.type == "start":
            begun[record.span] = record
            continue
        start = begun.pop(record.span, None) if record.type in ENDS else None
        if record.duration_us is not None:
            found.setdefault(record.name, []).append(record.duration_us)
        elif start is not None:
            found.setdefault(start.name, []).append(record.at_us - start.at_us)
    return found, tuple(begun)
