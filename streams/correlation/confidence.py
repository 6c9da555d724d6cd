"""How sure a composite is: in (0, 1]. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from streams.correlation.payload import read_payload
from streams.correlation.rules import WINDOWED, Rule
from streams.correlation.seen import SAMPLES_MAX, Found, Seen
from streams.matching.expressions import ExpressionFailed, compiled
from streams.records import from_micros

_LEAST = 1e-6


def confidence_of(rule: Rule, found: Found) -> float:
    """As the rule says (a number, or CEL over `count`, `value`, `span_ms`, `events`), else `evidence`."""
    if rule.confidence is None:
        return evidence(rule, found)
    if isinstance(rule.confidence, float):
        return rule.confidence
    expression = compiled(rule.confidence, numbers_alike=True)
    values = {
        "count": found.count, "value": found.value, "span_ms": (found.window_end_us - found.window_start_us) // 1000,
        "events": event_values(found.records) if "events" in expression.variables else [],
    }  # fmt: skip
    try:
        value = expression.evaluate(values)
    except ExpressionFailed:
        return evidence(rule, found)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return evidence(rule, found)
    return min(1.0, max(_LEAST, float(value)))


def event_values(records: Sequence[Seen]) -> list[dict[str, Any]]:
    """The records as CEL sees them: `id`, `type`, `source`, `time`, and `data` of the newest (older ones have an empty payload)."""
    first = len(records) - SAMPLES_MAX
    return [
        {
            "id": seen.id, "type": seen.type, "source": seen.source, "time": from_micros(seen.time_us),
            "data": read_payload(seen.data) if index >= first else {},
        }
        for index, seen in enumerate(records)
    ]  # fmt: skip


def evidence(rule: Rule, found: Found) -> float:
    """How far the evidence passes what the rule asks for.

    Of figures 1 − bound / (2 · figure), least over the tests: 0.5 where the threshold is just met, 0.75 at twice its value, towards 1
    beyond; with upper bounds figure and bound change places; 1 where there is nothing to measure (`eq`, `neq`, a bound or figure of
    zero or less). Of patterns 1 − span / (2 · timespan): 1 if all happened at once, towards 0.5 if they only just belong together. Of
    what did not happen 1: there is no more or less of nothing. Of anomalies 1 − (1 − score) / (2 · (1 − threshold)): 0.5 at the
    threshold, towards 1 beyond.
    """
    if rule.type == "anomaly":
        return round(max(_LEAST, 1.0 - (1.0 - found.value) / (2.0 * (1.0 - (rule.condition.threshold or 0.0)))), 6)
    if rule.type not in WINDOWED:
        if rule.timed:
            return 1.0
        span_us = found.window_end_us - found.window_start_us
        return round(1.0 - span_us / (2.0 * rule.timespan_us), 6)
    measures = [1.0]
    for name, bound in rule.condition.tests:
        high, low = (found.value, bound) if name in ("gt", "gte") else (bound, found.value)
        if name not in ("eq", "neq") and low > 0 and high > 0:
            measures.append(1.0 - low / high / 2.0)
    return round(max(_LEAST, min(measures)), 6)
