from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streams.correlation.confidence import confidence_of, evidence
from streams.correlation.explain import composite
from streams.correlation.insights import nearest_rank
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule, Condition, Rule
from streams.correlation.seen import Draft, Found, Seen

SECOND = 1_000_000
T0 = 1_700_000_000 * SECOND


def rule(*, condition: dict[str, float] | None = None, **top: Any) -> Rule:
    correlation = {"type": "event_count", "events": ["failed"], "group-by": ["data.u", "type"], "timespan": "10m"}
    return parse_rule(
        {"id": "r", "events": {"failed": {"type": "x"}}, "correlation": {**correlation, "condition": condition or {"gte": 3}}, **top}
    )


def found(*seconds: float, suppressed: int = 0, data: str = '{"u":"ann","n":1}') -> Found:
    records = tuple(Seen(T0 + round(at * SECOND), f"e{at:g}", "x", "shop", correlation_id="story", data=data) for at in seconds)
    return Found(records[-1].id, records[0].time_us, records[-1].time_us, records, len(records), len(records), suppressed)


def test_a_composite_says_what_was_seen_with_the_numbers() -> None:
    said = composite(
        ActiveRule(rule=rule(severity="error"), version=4, order=9), Draft("r", '["ann",7.5]', "id", found(0, 1, 4, suppressed=2))
    )
    assert (said.id, said.type, said.subject, said.rule_version, said.severity) == ("id", "composite.r", "data.u=ann, type=7.5", 4, "error")
    assert said.group_key == {"data.u": "ann", "type": "7.5"}
    assert said.time == said.window_end
    assert (said.event_ids, said.event_count, said.causation_id, said.correlation_id) == (("e0", "e1", "e4"), 3, "e4", "story")
    assert said.data == {"group": said.group_key, "count": 3, "value": 3, "confidence": said.confidence, "severity": "error"}
    assert said.explanation == (
        "3 records of failed for data.u=ann, type=7.5 in 4 s (from 2023-11-14 22:13:20 to 22:13:24 UTC); "
        "the rule asks for at least 3 within 10m; 2 more matches were kept silent before."
    )
    pattern, performance = said.insights
    assert pattern.data["shared"] == {"data.n": 1, "data.u": "ann", "source": "shop"}
    assert pattern.data["types"] == {"x": 3}
    assert performance.data == {"span_ms": 4000.0, "suppressed": 2, "gap_ms": {"median": 1000.0, "p95": 3000.0}, "per_second": 0.75}


def test_a_retraction_says_so() -> None:
    said = composite(ActiveRule(rule=rule(), version=1, order=0), Draft("r", '["ann","x"]', "id", found(0, 1, 4), 1, retracted=True))
    assert said.retracted
    assert said.explanation.startswith("No longer true after a later record: 3 records")


@pytest.mark.parametrize(
    ("condition", "value", "expected"),
    [
        ({"gte": 3}, 3, 0.5),
        ({"gte": 3}, 6, 0.75),
        ({"gte": 0}, 5, 1.0),
        ({"lt": 10}, 5, 0.75),
        ({"gte": 3, "lt": 10}, 9, 0.55),
        ({"eq": 3}, 3, 1.0),
    ],
)
def test_the_default_confidence_measures_how_far_the_threshold_is_passed(
    condition: dict[str, float], value: float, expected: float
) -> None:
    made = replace(rule(), condition=Condition(tests=tuple(condition.items())))
    assert evidence(made, replace(found(0), value=value)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [
        (0.9, 0.9),
        ("0.25 * count", 0.75),
        ("span_ms == 4000 ? 1 : 0", 1.0),
        ("double(events[0].data.n) / 4.0", 0.25),
        ("value * 100", 1.0),
        ("-1.0", 1e-6),
        ("events[9].id", 0.5),  # no value: the default measure
        ("'text'", 0.5),
        ("true", 0.5),
    ],
)
def test_confidence_is_a_number_or_cel(confidence: object, expected: float) -> None:
    assert confidence_of(rule(confidence=confidence), found(0, 1, 4)) == pytest.approx(expected)


def test_nearest_rank() -> None:
    assert [nearest_rank([1, 2, 3, 4], percentile) for percentile in (0, 25, 26, 50, 95, 100)] == [1, 1, 2, 2, 4, 4]
