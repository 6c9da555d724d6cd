"""What may keep a rule from firing: the right sentence for each trouble, and none where all is well."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from streams.correlation.explaining import group_keys
from streams.correlation.hints import Facts, hints
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule, Rule
from streams.correlation.running import BEGINNING_US
from streams.correlation.standing import standing
from streams.correlation.tallies import Tally
from streams.errors import InvalidInput
from streams.records import to_micros

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW_US = to_micros(NOW)


def rule(**correlation: Any) -> Rule:
    events = {"login": {"type": "user.login"}, "mfa": {"type": "user.mfa"}, "transfer": {"type": "payment.**"}}
    ordered = {"type": "temporal_ordered", "events": ["login", {"not": "mfa"}, "transfer"], "timespan": "10m", "group-by": ["data.user"]}
    given = {name: value for name, value in {**ordered, **correlation}.items() if value is not None}
    return parse_rule({"id": "fraud", "events": events, "correlation": given})


WELL = Facts(
    now=NOW, enabled=True, who="ann", why="because", since=NOW, workers=("w1",), waiting=(), unused=False, clock_us=NOW_US,
    tally=Tally(names={"login": 1, "transfer": 1}, last_us={"login": NOW_US, "transfer": NOW_US - 7_200_000_000}), behind=0,
)  # fmt: skip


def said(facts: Facts) -> list[str]:
    return list(hints(rule(), facts, None))


def test_where_all_is_well_nothing_is_said() -> None:
    assert said(WELL) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"enabled": False}, ["disabled since 2026-01-01 12:00:00 UTC by ann: because", "enabled: true"]),
        ({"workers": ()}, ["No worker is running", "mplp up"]),
        ({"waiting": ("w1",)}, ["w1 has not read this version"]),
        ({"unused": True}, ["not begun to use this version"]),
        ({"clock_us": BEGINNING_US}, ["Event time has not begun"]),
        ({"clock_us": NOW_US - 3_600_000_000}, ["Event time stands at 2026-01-01 11:00:00 UTC, 60 min behind"]),
        ({"behind": 5000}, ["5000 records behind"]),
    ],
)
def test_what_keeps_every_group_from_firing(change: dict[str, Any], expected: list[str]) -> None:
    (sentence,) = said(replace(WELL, **change))
    for part in expected:
        assert part in sentence


@pytest.mark.parametrize(
    ("tally", "expected"),
    [
        (Tally(last_us={"login": 1}), ["No record has satisfied transfer (type payment.**)"]),
        (Tally(errors=3, last_error="transfer: no such key: amount"), ["failed on 3 records", "no such key: amount"]),
        (Tally(late=1, late_by_us=90_000_000, late_ids=("e7",)), ["1 record came too late", "90 s behind", "(e7)", "longer than 10s"]),
        (Tally(ahead=2, ahead_ids=("e8", "e9")), ["2 records lay more than five minutes", "(e8, e9)"]),
        (Tally(evicted=4), ["4 groups were forgotten"]),
        (Tally(overflowed=4), ["4 records are counted but no longer named"]),
    ],
)
def test_what_was_not_used_is_said_with_examples(tally: Tally, expected: list[str]) -> None:
    assert WELL.tally is not None
    known = replace(tally, last_us=tally.last_us or WELL.tally.last_us)
    (sentence,) = said(replace(WELL, tally=known))
    for part in expected:
        assert part in sentence


def test_a_disabled_rule_is_not_blamed_on_the_workers() -> None:
    assert len(said(replace(WELL, enabled=False, workers=(), clock_us=BEGINNING_US))) == 1


class TestGroupKeys:
    def test_a_value_may_be_meant_as_text_or_as_json(self) -> None:
        assert group_keys(rule(), {"data.user": "ann"}) == ['["ann"]']
        assert group_keys(rule(), {"data.user": "7"}) == ['["7"]', "[7]"]
        assert group_keys(rule(), {"data.user": "1.0"}) == ['["1.0"]', "[1]"]
        assert group_keys(rule(), {"data.user": "null"}) == ['["null"]']
        two = rule(**{"group-by": ["data.user", "data.shop"]})
        assert group_keys(two, {"data.shop": "b", "data.user": "a"}) == ['["a","b"]']

    def test_all_entries_are_asked_for_by_their_names(self) -> None:
        with pytest.raises(InvalidInput, match=r"groups by data.user: give data.user=…, not data.usr"):
            group_keys(rule(), {"data.usr": "ann"})
        with pytest.raises(InvalidInput, match="no group-by"):
            group_keys(rule(**{"group-by": None}), {"data.user": "ann"})
        assert group_keys(rule(**{"group-by": None}), None) == ["[]"]
        assert group_keys(rule(), None) == []


def test_a_missing_record_of_a_group_is_looked_for_in_the_others() -> None:
    stands = standing(ActiveRule(rule=rule(), version=1, order=0), '["ann"]', None, NOW_US)
    assert stands.missing == ("login", "transfer")
    late = replace(WELL, tally=Tally(last_us={"login": NOW_US - 60_000_000}))
    first, second = hints(rule(), late, stands)
    assert first == "In any group, login was last satisfied by a record of 2026-01-01 11:59:00 UTC (60 s ago)."
    assert second.startswith("No record has satisfied transfer")
