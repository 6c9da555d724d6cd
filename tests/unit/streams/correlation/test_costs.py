"""A rule is too dear when it takes much of a processor and much for each record; a rule that is merely busy is not."""

from __future__ import annotations

from typing import Any

import pytest

from streams.correlation.costs import PERIOD_S, RuleCosts
from streams.correlation.index import RuleIndex
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule
from streams.faust_app.slices import PROBED, Slices
from streams.matching.matchers import RecordView


def judged(*spent: tuple[str, float, int]) -> list[str]:
    costs = RuleCosts("matching")
    costs.judge(0.0)
    costs.spent("first", 1e-9)
    for rule_id, seconds, records in spent:
        costs.spent(rule_id, seconds, records=records)
    # The period begins with the first judgement at which something was measured.
    assert costs.judge(PERIOD_S - 0.1) == []
    return [each.rule_id for each in costs.judge(PERIOD_S)]


@pytest.mark.parametrize(
    ("seconds", "records", "dear"),
    [
        (PERIOD_S, 100, True),
        (0.5 * PERIOD_S, 1000, True),
        (0.4 * PERIOD_S, 10, False),  # seldom enough
        (PERIOD_S, 100_000, False),  # busy: 150 µs a record
    ],
)
def test_both_the_share_and_the_cost_of_a_record_must_be_high(seconds: float, records: int, dear: bool) -> None:
    assert judged(("r", seconds, records), ("other", 0.1, 1)) == (["r"] if dear else [])


def test_a_judgement_says_what_was_measured_and_begins_anew() -> None:
    costs = RuleCosts("matching")
    costs.judge(100.0)
    costs.spent("r", 9.0, records=3)
    (found,) = costs.judge(100.0 + PERIOD_S)
    assert (found.share, found.record_s) == (9.0 / PERIOD_S, 3.0)
    assert found.why.startswith("Its matching took 60 % of a processor and 3e+03 ms a record over 15 s")
    assert costs.judge(100.0 + 3 * PERIOD_S) == []


def test_the_time_before_anything_was_slow_does_not_count() -> None:
    costs = RuleCosts("matching")
    costs.judge(0.0)
    assert costs.judge(1000.0) == []
    costs.spent("r", 10.0)
    assert costs.judge(1000.0 + PERIOD_S / 2) == []
    assert [each.rule_id for each in costs.judge(1000.0 + PERIOD_S)] == ["r"]


def active(rule_id: str, order: int, where: str | None, **correlation: Any) -> ActiveRule:
    matcher = {"type": "x.y"} if where is None else {"type": "x.y", "where": where}
    counts = {"type": "event_count", "timespan": "1m", "condition": {"gte": 2}, **correlation}
    return ActiveRule(rule=parse_rule({"id": rule_id, "events": {"a": matcher}, "correlation": counts}), version=1, order=order)


def test_the_index_says_what_each_rule_costs_and_counts_nothing() -> None:
    index = RuleIndex([active("cheap", 0, None), active("dear", 1, "data.l.all(x, x > 0)"), active("failing", 2, "data.none > 1")])
    view = RecordView({"id": "e", "type": "x.y", "time": 0, "data": '{"l": [1, 2, 3]}'})
    ticks = iter(range(100))
    spent = index.costs("mplp.system.events", view, lambda: float(next(ticks)))
    assert spent == {"cheap": 1.0, "dear": 1.0, "failing": 1.0}
    assert index.errors == {}
    assert [each.id for each in index.without({"dear"}).rules] == ["cheap", "failing"]


def test_a_slice_ends_after_records_or_time_and_knows_slow_records() -> None:
    now = [0.0]
    slices = Slices(lambda: now[0])
    assert [slices.over() for _ in range(100)] == [False] * 99 + [True]
    assert not slices.slow
    slices.begin()
    assert not slices.over()
    now[0] = 0.03
    assert [slices.over() for _ in range(3)] == [False, False, True], "the clock is looked at now and then"
    slices.slow = True
    slices.begin()
    assert sum(slices.probing for _ in range(40) if not slices.over()) == 40 // PROBED
