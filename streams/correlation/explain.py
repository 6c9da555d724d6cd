"""What a composite says of a finding: the record itself, its confidence, one sentence with the numbers, and insights. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import orjson

from streams.correlation.rules import ActiveRule, Rule, aggregate_of
from streams.correlation.seen import SAMPLES_MAX, Draft, Found, Seen
from streams.durations import format_duration
from streams.matching.expressions import ExpressionFailed, compiled
from streams.records import CompositeEvent, Insight, from_micros, iso

SOURCE = "mplp/correlation"
#: Fields and values named in the pattern insight.
_SHARED_FIELDS_MAX = 20
_SHARED_TEXT_MAX = 200
_CONFIDENCE_LEAST = 1e-6


def composite(active: ActiveRule, draft: Draft) -> CompositeEvent:
    """The composite that the draft means; without the fields of the log (aggregate, sequence, epoch, input)."""
    rule, found = active.rule, draft.found
    values = group_values(draft.group_key)
    group = {
        name: value if isinstance(value, str) else orjson.dumps(value).decode() for name, value in zip(rule.group_by, values, strict=True)
    }
    confidence = confidence_of(rule, found)
    return CompositeEvent(
        id=draft.composite_id,
        type=f"composite.{rule.id}",
        source=SOURCE,
        subject=group_text(rule, group),
        time=from_micros(found.window_end_us),
        tenant=_shared([seen.tenant for seen in found.records]) or "default",
        correlation_id=_shared([seen.correlation_id for seen in found.records]) or "",
        causation_id=found.firing,
        data={"group": group, "count": found.count, "value": found.value, "confidence": confidence, "severity": rule.severity},
        rule_id=rule.id,
        rule_version=active.version,
        correlation_type=rule.type,
        group_key=group,
        window_start=from_micros(found.window_start_us),
        window_end=from_micros(found.window_end_us),
        event_ids=tuple(seen.id for seen in found.records),
        event_count=found.count,
        confidence=confidence,
        severity=rule.severity,
        insights=insights(found),
        explanation=explanation(rule, group, found, retracted=draft.retracted),
        revision=draft.revision,
        retracted=draft.retracted,
        suppressed_count=found.suppressed,
        aggregate_id=aggregate_of(rule.id, draft.group_key),
    )


def group_values(group_key: str) -> list[Any]:
    """The group's values in the order of `group-by`, from its canonical text."""
    values: list[Any] = orjson.loads(group_key)
    return values


def group_text(rule: Rule, group: Mapping[str, str]) -> str:
    """The group as a person reads it: `data.user=ann, data.shop=7`; empty without `group-by`."""
    return ", ".join(f"{name}={group[name]}" for name in rule.group_by)


def confidence_of(rule: Rule, found: Found) -> float:
    """In (0, 1]: as the rule says (a number, or CEL over `count`, `value`, `span_ms`, `events`), else `evidence`."""
    if rule.confidence is None:
        return evidence(rule, found.value)
    if isinstance(rule.confidence, float):
        return rule.confidence
    values = {
        "count": found.count, "value": found.value, "span_ms": (found.window_end_us - found.window_start_us) // 1000,
        "events": [
            {"id": seen.id, "type": seen.type, "source": seen.source, "time": from_micros(seen.time_us), "data": orjson.loads(seen.data)}
            for seen in found.records
        ],
    }  # fmt: skip
    try:
        value = compiled(rule.confidence, numbers_alike=True).evaluate(values)
    except ExpressionFailed:
        return evidence(rule, found.value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return evidence(rule, found.value)
    return min(1.0, max(_CONFIDENCE_LEAST, float(value)))


def evidence(rule: Rule, value: float) -> float:
    """How far the figure passes the threshold: 1 − bound / (2 · figure), least over the tests.

    0.5 where the threshold is just met, 0.75 at twice its value, towards 1 beyond; with upper bounds figure and bound change
    places; 1 where there is nothing to measure (`eq`, `neq`, a bound or figure of zero or less).
    """
    measures = [1.0]
    for name, bound in rule.condition.tests:
        high, low = (value, bound) if name in ("gt", "gte") else (bound, value)
        if name not in ("eq", "neq") and low > 0 and high > 0:
            measures.append(1.0 - low / (2.0 * high))
    return round(max(_CONFIDENCE_LEAST, min(measures)), 6)


def explanation(rule: Rule, group: Mapping[str, str], found: Found, *, retracted: bool = False) -> str:
    """One sentence: which condition, and what was seen."""
    names = " or ".join(rule.names)
    where = f" for {group_text(rule, group)}" if group else ""
    span = _seconds(found.window_end_us - found.window_start_us)
    within = format_duration(rule.timespan_us // 1000)
    begin, end = iso(from_micros(found.window_start_us)), iso(from_micros(found.window_end_us))
    said = (
        f"{found.count} {'record' if found.count == 1 else 'records'} of {names}{where} in {span} (from {begin} to {end}); "
        f"the rule asks for {rule.condition.text()} within {within}"
    )
    if found.suppressed:
        said += f"; {found.suppressed} more {'match was' if found.suppressed == 1 else 'matches were'} kept silent before"
    return f"No longer true after a later record: {said}." if retracted else f"{said}."


def insights(found: Found) -> tuple[Insight, ...]:
    """What the records share and their sequence, and their gaps and rate."""
    pattern, performance = _pattern(found), _performance(found)
    return (pattern, performance)


def _pattern(found: Found) -> Insight:
    samples = found.records[-SAMPLES_MAX:]
    shared = _shared_fields(samples)
    types = Counter(seen.type for seen in samples)
    sequence = [seen.type for seen in samples[:10]]
    kinds = " and ".join(f"{count} {name}" for name, count in types.most_common(3)) or "no records"
    summary = f"{kinds}" + (
        f"; all with {', '.join(f'{name}={_brief(value)}' for name, value in list(shared.items())[:3])}" if shared else ""
    )
    return Insight(
        type="pattern", summary=summary + ".", data={"shared": shared, "types": dict(types), "sequence": sequence, "of": len(samples)}
    )


def _performance(found: Found) -> Insight:
    times = [seen.time_us for seen in found.records]
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    span_us = found.window_end_us - found.window_start_us
    data: dict[str, Any] = {"span_ms": span_us / 1000, "suppressed": found.suppressed}
    summary = f"{found.count} in {_seconds(span_us)}"
    if gaps:
        median, p95 = nearest_rank(gaps, 50), nearest_rank(gaps, 95)
        data |= {"gap_ms": {"median": median / 1000, "p95": p95 / 1000}}
        summary += f", a median of {_seconds(median)} apart"
    if span_us > 0:
        data["per_second"] = round(found.count * 1_000_000 / span_us, 6)
    if found.suppressed:
        summary += f"; {found.suppressed} matches kept silent since the last composite"
    return Insight(type="performance", summary=summary + ".", data=data)


def nearest_rank(ordered: Sequence[int], percentile: float) -> int:
    """The value at position ⌈p/100·n⌉, at least 1, of values in ascending order."""
    return ordered[max(1, math.ceil(percentile / 100 * len(ordered))) - 1]


def _shared_fields(samples: Sequence[Seen]) -> dict[str, Any]:
    """Fields (of the payload's first level, and the source) that have one value in all samples, if there are several samples."""
    if len(samples) < 2:
        return {}
    shared: dict[str, Any] | None = None
    for seen in samples:
        payload = orjson.loads(seen.data)
        fields = {f"data.{name}": value for name, value in payload.items() if _is_scalar(value)} if isinstance(payload, dict) else {}
        if seen.source:
            fields["source"] = seen.source
        shared = (
            fields if shared is None else {name: value for name, value in shared.items() if name in fields and _same(fields[name], value)}
        )
    return dict(sorted((shared or {}).items())[:_SHARED_FIELDS_MAX])


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) <= _SHARED_TEXT_MAX)


def _same(one: Any, other: Any) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _shared(values: Sequence[str]) -> str | None:
    return values[0] if values and all(value == values[0] for value in values) else None


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= 40 else text[:39] + "…"


def _seconds(microseconds: int) -> str:
    return f"{microseconds / 1_000_000:.3f}".rstrip("0").rstrip(".") + " s"
