"""What `rules explain`, `rules backtest` and `rules show` print for a person."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest

from services.cli import rules_backtest, rules_explain, rules_show
from streams.correlation.backtest import RuleSummary
from streams.correlation.backtesting import Progress, Summary
from streams.correlation.explaining import Explanation
from streams.correlation.tallies import Tally
from streams.errors import InvalidInput

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def explanation(**more: object) -> Explanation:
    base = {"rule_id": "r", "version": 3, "title": "Trouble", "type": "event_count", "severity": "error", "enabled": True, "at": NOW}
    known = {"group": {"data.user": "ann"}, "known": False, "standings": ()}
    return Explanation(**{**base, **known, **more})  # type: ignore[arg-type]


def test_an_unknown_group_is_answered_with_names_that_are_near_and_what_to_do() -> None:
    text = "\n".join(rules_explain.lines(explanation(nearest=({"data.user": "anne"},), hints=("No worker is running.",))))
    assert text.startswith("r version 3 (event_count, error): Trouble\nGroup data.user=ann: nothing is kept of it\n")
    assert "Groups with such a name: data.user=anne" in text
    assert text.endswith("- No worker is running.")


def test_a_group_is_given_by_name_and_value() -> None:
    assert rules_explain.group_of(["data.user=a=b", "data.shop=7"]) == {"data.user": "a=b", "data.shop": "7"}
    for wrong in (["data.user"], ["=x"], ["a=1", "a=2"]):
        with pytest.raises(InvalidInput, match="name=value"):
            rules_explain.group_of(wrong)


def test_a_backtest_tells_days_and_groups() -> None:
    rule = RuleSummary(composites=3, matched=1200, errors=4, days=Counter({"2026-01-02": 1, "2026-01-01": 2}), groups=Counter({"u=ann": 3}))
    summary = Summary(since=NOW, until=NOW, looked_at=5000, read=2000, seconds=0.5, rules={"r": rule})
    text = "\n".join(rules_backtest.lines(summary))
    assert "5,000 records, of which 2,000 could matter; 0.5 s (4,000/s)" in text
    assert "r: 3 composites of 1,200 matched records; an expression failed on 4" in text
    assert text.index("2026-01-01  2") < text.index("2026-01-02  1") < text.index("3  u=ann")


def test_progress_says_how_long_it_will_take() -> None:
    progress = Progress(read=1000, of=4000, seconds=2.0)
    assert (progress.per_second, progress.left_s) == (500.0, 6.0)
    assert Progress(read=0, of=10, seconds=0.0).left_s is None


def test_figures_say_first_what_there_is_and_then_what_is_wrong() -> None:
    well = rules_show.figures_text(Tally(matched=5, composites=1, groups=2))
    assert well == ["5 records matched; 1 composite, 0 revisions; 2 groups kept"]
    late = Tally(matched=5, late=2, late_ids=("a", "b"), late_by_us=1_500_000, errors=1, last_error="no such key: x", duplicates=3)
    assert rules_show.figures_text(late)[1:] == [
        "2 late, the last by 1.5 s: a, b",
        "1 record on which an expression failed; the last: no such key: x",
        "3 duplicates",
    ]
