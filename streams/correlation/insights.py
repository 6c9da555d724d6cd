"""What the records of a composite tell besides: what they share, what stands out, and their rhythm. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import isfinite
from operator import sub
from typing import Any

import orjson

from streams.correlation.figures import rank_of
from streams.correlation.payload import read_payload
from streams.correlation.seen import SAMPLES_MAX, Found, Judged, Seen
from streams.records import Insight

#: Fields and values named in an insight.
_FIELDS_MAX = 20
_TEXT_MAX = 200
#: Earlier records that a number must be compared with to stand out, and by how many spreads.
_PAST_LEAST = 8
_SPREADS = 5.0
#: What makes the median absolute deviation an estimate of the standard deviation (normal distribution).
_MAD_SCALE = 1.4826


def insights(found: Found) -> tuple[Insight, ...]:
    """What the records share and their sequence; numbers unlike those before them, if there are; gaps, rate and durations."""
    samples = found.records[-SAMPLES_MAX:]
    payloads = [payload if type(payload := read_payload(seen.data)) is dict else {} for seen in samples]
    unlike = _anomaly(samples, payloads) if found.judged is None else _judged(found.judged, found)
    return (_pattern(samples, payloads), *([] if unlike is None else [unlike]), _performance(found, payloads))


def _pattern(samples: Sequence[Seen], payloads: Sequence[dict[str, Any]]) -> Insight:
    shared = _shared_fields(samples, payloads)
    named_types = [seen.type for seen in samples]
    types, sequence = Counter(named_types), named_types[:10]
    frequent = types.most_common(3) if len(types) > 1 else [*types.items()]
    kinds = [f"{count} {name}" for name, count in frequent] or ["no records"]
    if len(types) > len(kinds):
        kinds.append(f"{len(samples) - sum(count for _, count in frequent)} others")
    told = ", ".join(kinds[:-1]) + (" and " if len(kinds) > 1 else "") + kinds[-1]
    # Of a single record nothing is shared: what it says itself helps.
    alone = {f"data.{name}": value for name, value in payloads[0].items() if _is_scalar(value)} if len(samples) == 1 else {}
    named = ", ".join(f"{name}={_brief(value)}" for name, value in list((shared or alone).items())[:3])
    return Insight(
        type="pattern", summary=f"{told}{f'; all with {named}' if shared else f' with {named}' if named else ''}.",
        data={"shared": shared, "types": dict(types), "sequence": sequence, "of": len(samples)},
    )  # fmt: skip


def _shared_fields(samples: Sequence[Seen], payloads: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Fields (of the payload's first level, and the source) that have one value in all samples, if there are several samples."""
    if len(samples) < 2:
        return {}
    source, first, others = samples[0].source, payloads[0], payloads[1:]
    shared: dict[str, Any] = {}
    for seen in samples:
        if seen.source != source:
            break
    else:
        if source:
            shared["source"] = source
    for name, value in first.items():
        if not _is_scalar(value):
            continue
        truth = type(value) is bool  # which equals a number and is none
        for payload in others:
            other = payload.get(name)
            if other != value or (type(other) is bool) is not truth:
                break
        else:
            shared[f"data.{name}"] = value
    return dict(sorted(shared.items())[:_FIELDS_MAX])


def _anomaly(samples: Sequence[Seen], payloads: Sequence[dict[str, Any]]) -> Insight | None:
    """Numbers of the last record that lie far from those of the records before it (median and median absolute deviation)."""
    if len(samples) <= _PAST_LEAST:
        return None
    unlike: dict[str, Any] = {}
    before = payloads[:-1]
    for name, value in payloads[-1].items():
        if not _is_number(value):
            continue
        past = [number for payload in before if type(number := payload.get(name)) is int or (type(number) is float and isfinite(number))]
        if len(past) < _PAST_LEAST:
            continue
        past.sort()
        if past[0] == past[-1]:
            continue  # there is no spread
        usual = _middle(past)
        spread = _MAD_SCALE * _middle(sorted([abs(number - usual) for number in past]))
        if spread > 0 and abs(value - usual) > _SPREADS * spread:
            unlike[f"data.{name}"] = {
                "value": value,
                "usual": usual,
                "spread": round(spread, 6),
                "spreads": round((value - usual) / spread, 2),
            }
        if len(unlike) == _FIELDS_MAX:
            break
    if not unlike:
        return None
    first, told = next(iter(unlike.items()))
    more = f", and {len(unlike) - 1} more" if len(unlike) > 1 else ""
    summary = f"{first} is {told['value']:.6g} in the last record, {told['usual']:.6g} in those before{more}."
    return Insight(type="anomaly", summary=summary, data={"record": samples[-1].id, "fields": unlike, "of": len(samples) - 1})


def _judged(judged: Judged, found: Found) -> Insight:
    """What the value was held against, of a rule that looks for anomalies."""
    usual = f"{judged.low:.6g} to {judged.high:.6g} is usual"
    summary = f"{judged.value:.6g}, where about {judged.expected:.6g} was expected and {usual}; unusual by its {judged.kind}."
    data = {
        "value": judged.value, "expected": judged.expected, "low": judged.low, "high": judged.high, "score": judged.score,
        "kind": judged.kind, "record": found.records[-1].id if found.records else None,
    }  # fmt: skip
    return Insight(type="anomaly", summary=summary, data=data)


def _performance(found: Found, payloads: Sequence[dict[str, Any]]) -> Insight:
    times = [seen.time_us for seen in found.records]
    gaps = sorted(map(sub, times[1:], times))
    span_us = found.window_end_us - found.window_start_us
    data: dict[str, Any] = {"span_ms": span_us / 1000, "suppressed": found.suppressed}
    summary = f"{found.count} in {seconds(span_us)}" if span_us else f"{found.count} at one instant"
    if gaps:
        middle, high = nearest_rank(gaps, 50), nearest_rank(gaps, 95)
        data["gap_ms"] = {"median": middle / 1000, "p95": high / 1000}
        summary += f", a median of {seconds(middle)} apart"
    if span_us > 0:
        data["per_second"] = round(found.count * 1_000_000 / span_us, 6)
    durations = _durations(payloads)
    if durations:
        data["durations"] = durations
        name, told = next(iter(durations.items()))
        summary += f"; {name} median {told['median']:.6g}, p95 {told['p95']:.6g}"
    if found.suppressed:
        summary += f"; {found.suppressed} matches kept silent since the last composite"
    return Insight(type="performance", summary=summary + ".", data=data)


def _durations(payloads: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Median and p95 of the payloads' numbers whose name says that they are milliseconds."""
    found: dict[str, list[float]] = {}
    for name in set().union(*payloads):
        if name.endswith("ms") and (name == "ms" or name.endswith("_ms")):
            values = [payload[name] for payload in payloads if _is_number(payload.get(name))]
            if values:
                found[f"data.{name}"] = values
    ordered = {name: sorted(values) for name, values in sorted(found.items())[:_FIELDS_MAX]}
    return {name: {"median": nearest_rank(values, 50), "p95": nearest_rank(values, 95)} for name, values in ordered.items()}


def nearest_rank(ordered: Sequence[float], percentile: float) -> float:
    """The value at position ⌈p/100·n⌉, at least 1, of values in ascending order."""
    return ordered[rank_of(percentile)(len(ordered)) - 1]


def seconds(microseconds: float) -> str:
    """A span as a person reads it: `4 s`, `0.25 s`."""
    return f"{microseconds / 1_000_000:.3f}".rstrip("0").rstrip(".") + " s"


def _middle(ordered: Sequence[float]) -> float:
    """The median of values in ascending order, as `statistics.median` has it."""
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _is_number(value: Any) -> bool:
    kind = type(value)  # of JSON: no subclasses
    return kind is int or (kind is float and isfinite(value))


def _is_scalar(value: Any) -> bool:
    kind = type(value)
    return kind is int or kind is float or kind is bool or (kind is str and len(value) <= _TEXT_MAX)


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= 40 else text[:39] + "…"
