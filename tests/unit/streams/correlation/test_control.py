"""What workers cannot do is refused when a rule is applied, with a pointer, and not accepted without effect."""

from __future__ import annotations

from typing import Any

import pytest

from streams.correlation.control import check, check_service
from streams.errors import InvalidDocument


def rule(**changes: Any) -> dict[str, Any]:
    counts = {"type": "event_count", "events": ["a"], "timespan": "1m", "condition": {"gte": 2}}
    return {"id": "r", "events": {"a": {"type": "x.y"}}, "correlation": counts} | changes


def faults(*documents: dict[str, Any]) -> list[tuple[str, str]]:
    check(documents)
    with pytest.raises(InvalidDocument) as refused:
        check_service(documents)
    return [(violation.code, violation.pointer) for violation in refused.value.violations]


def test_a_rule_that_only_says_composites_is_taken() -> None:
    check_service([rule(), rule(id="s", actions=["none"]), rule(id="t", actions=[{"emit": "x.happened"}])])


def test_composites_of_other_rules_are_refused_where_they_stand() -> None:
    chained = rule(id="s", events={"a": {"rule": "r"}})
    assert faults(rule(actions=[{"emit": "x.happened"}]), chained) == [("rule.chaining-unsupported", "/1/events/a/rule")]
