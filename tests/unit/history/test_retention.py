"""Lifetimes: what is wished, what it may not go below, and what is compared of what is left."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.history.retention import (
    OF_EXECUTIONS,
    STEP_MS,
    Bound,
    Retained,
    check,
    greatest,
    in_force,
    lifetimes,
    of_executions,
    of_rules,
    of_topics,
    parse,
    retained,
    statements,
)
from services.history.rows import Rows, Source
from services.history.tables import all_tables
from streams.errors import InvalidInput, Refused
from streams.topics import BY_NAME, DAY_MS, DELIVERIES, MESSAGES

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def test_what_is_wished() -> None:
    assert parse("") == {}
    assert parse(" system_events = 400d , deliveries=P90D,") == {"system_events": 400 * DAY_MS, "deliveries": 90 * DAY_MS}


@pytest.mark.parametrize(
    "text", ["events=400d", "system_events", "system_events=soon", "deliveries=1d,deliveries=2d", "deliveries=1500ms", "executions=1d"]
)
def test_what_cannot_be_wished(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"retention\.invalid"):
        parse(text)


def test_rows_stay_as_long_as_their_topics_have_the_records() -> None:
    bounds = of_topics()
    days = {table: bound.ms // DAY_MS for table, bound in bounds.items()}
    assert days == {
        "system_events": 30, "composite_events": 30, "deliveries": 7, "workflow_commands": 7, "module_messages": 7, "dead_letters": 30,
        "log_records": 30,
    }  # fmt: skip
    assert "workflow_transitions" not in bounds, "that topic is kept for ever: the rows need not be"
    with pytest.raises(Refused, match=r"retention\.too-short.*system_events.*29d.*mplp\.system\.events keeps its records for 30d"):
        check({"system_events": 29 * DAY_MS}, bounds)
    check({"system_events": 30 * DAY_MS, "workflow_transitions": 1000}, bounds)


def test_rules_and_live_executions_hold_rows() -> None:
    spans = of_rules({"short": 1000, "long": 90 * DAY_MS})
    assert spans["system_events"] == Bound(ms=90 * DAY_MS, why="the rule long looks back over 90d")
    assert of_rules({}) == {}
    alive = of_executions(("e1", NOW - timedelta(days=100)), NOW)
    assert {table: bound.ms for table, bound in alive.items()} == dict.fromkeys(OF_EXECUTIONS, 4 * STEP_MS)
    assert of_executions(None, NOW) == {}
    bounds = greatest(of_topics(), spans, alive)
    assert (bounds["system_events"].ms, bounds["module_messages"].ms, bounds["deliveries"].ms) == (90 * DAY_MS, 120 * DAY_MS, 7 * DAY_MS)
    wished = parse("module_messages=60d, deliveries=60d")
    assert in_force(wished, bounds) == {"module_messages": 120 * DAY_MS, "deliveries": 60 * DAY_MS}


def test_an_execution_holds_more_than_its_age() -> None:
    for days in (0, 29.999, 30, 59, 60):
        (bound, *_) = of_executions(("e", NOW - timedelta(days=days)), NOW).values()
        assert days * DAY_MS < bound.ms <= days * DAY_MS + STEP_MS


def test_lifetimes_are_read_back_from_what_sets_them() -> None:
    (_, sets) = statements("deliveries", 90 * DAY_MS)
    definition = "CREATE TABLE mplp.deliveries (…) ENGINE = MergeTree TTL " + sets.partition("MODIFY TTL ")[2] + " SETTINGS x = 1"
    assert lifetimes([("deliveries", definition), ("system_events", "CREATE TABLE …")]) == {"deliveries": 90 * DAY_MS}
    assert statements("deliveries", None) == ["ALTER TABLE deliveries REMOVE TTL"]


def test_what_is_still_to_be_there() -> None:
    kept = retained({"deliveries": 10 * DAY_MS, "module_messages": 5 * DAY_MS, "log_records": 20 * DAY_MS}, NOW, margin_ms=DAY_MS)
    now_ms = int(NOW.timestamp() * 1000)
    assert kept.of(source(DELIVERIES)) == now_ms - 9 * DAY_MS
    assert kept.of(source(MESSAGES)) == now_ms - 4 * DAY_MS
    assert Retained().of(source(MESSAGES)) is None
    old, new = (1, now_ms - 9 * DAY_MS - 1, b""), (2, now_ms - 9 * DAY_MS, b"")
    left = kept.left(Rows(tables={"deliveries": [old, new], "system_events": [old], "module_messages": [old]}))
    assert left.tables == {"deliveries": [new], "system_events": [old]}
    assert kept.condition("system_events") == ""
    assert str(now_ms - 9 * DAY_MS) in kept.condition("deliveries")
    assert all(Retained().condition(table) == "" for table in all_tables())


def source(topic: str) -> Source:
    catalogue = BY_NAME[topic]
    return Source(catalogue=catalogue, records=tuple(record.__name__ for record in catalogue.records))
