"""Records in their order: an engine that is told so says what every other engine says of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.correlation.chain import Chain
from streams.correlation.engine import Engine
from streams.correlation.inorder import InOrderGroup
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule
from streams.correlation.seen import Seen
from streams.records import CompositeEvent
from tests.unit.streams.correlation.oracle import Record
from tests.unit.streams.correlation.strategies import document, records, rules, view

#: Reads the composites of the random rule.
READER = {
    "id": "reader", "events": {"said": {"rule": "r"}},
    "correlation": {"type": "event_count", "events": ["said"], "timespan": "10s", "condition": {"gte": 2}},
}  # fmt: skip


def run(documents: Sequence[dict[str, Any]], given_records: Iterable[Record], *, in_order: bool) -> tuple[list[CompositeEvent], list[Any]]:
    """What is said, in order, and what is counted."""
    active = [ActiveRule(rule=parse_rule(each), version=1, order=0) for each in documents]
    chain = Chain(active, in_order=in_order)
    said: list[CompositeEvent] = []
    views = sorted(map(view, given_records), key=lambda each: each.time_us)
    for number, each in enumerate(views):
        said += chain.advance(each.time_us)
        said += chain.record(None, each, number)
        said += chain.flush()
    until_us = views[-1].time_us + 10_000_000_000 if views else 0
    said += chain.finish(until_us)
    return said, [chain.engine.counters(each.id).dump() for each in active]


@settings(max_examples=300, deadline=None)
@given(rule=rules(), given_records=records(most=40), chained=st.booleans())
def test_the_same_is_said_in_the_same_order(rule: dict[str, Any], given_records: list[Record], chained: bool) -> None:
    documents = [document(rule), *([READER] if chained else [])]
    assert run(documents, given_records, in_order=True) == run(documents, given_records, in_order=False)


def test_a_window_that_began_after_what_is_settled_is_not_over() -> None:
    tumbling = {"type": "event_count", "events": ["e"], "window": "tumbling", "timespan": 3, "grace": 2, "condition": {"gte": 1}}
    rule = {"id": "r", "events": {"e": {"type": "a"}}, "correlation": tumbling | {"after-match": "continue"}}
    # when the second and the third lie in one window, and the first is settled between them
    found = [Record(time=time, id=f"e{time}", type="a", group="g", value=None, order=()) for time in (14, 18, 19)]
    said, _ = run([document(rule)], found, in_order=True)
    assert [composite.event_ids for composite in said] == [("e14",), ("e18",), ("e18", "e19")]


def test_such_groups_keep_no_records_that_are_over() -> None:
    engine = Engine(in_order=True)
    correlation = {"type": "event_count", "events": ["e"], "timespan": "5s", "condition": {"gte": 3}}
    rule = parse_rule({"id": "busy", "events": {"e": {"type": "x"}}, "correlation": correlation})
    engine.use(ActiveRule(rule=rule, version=1, order=0))
    for number in range(20_000):
        engine.advance(number * 1_000_000)
        engine.feed("busy", "[]", Seen(number * 1_000_000, f"r{number}", "x"), (number,))
    found = engine.group("busy", "[]")
    assert found is not None
    assert isinstance(found[0], InOrderGroup)
    assert len(found[0].dump()["ids"]) < 200
    assert len(found[0].dump()["fold"]["records"]) <= 5
    engine.advance(30_000 * 1_000_000)
    assert engine.group("busy", "[]") is None
