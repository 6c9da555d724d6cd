"""What goes along of a large payload: what the rule reads of it, at any depth, under any name."""

from __future__ import annotations

from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import limits
from streams.correlation.payload import payload_of
from streams.correlation.rules import Rule
from tests.unit.streams.correlation.oracle import Record
from tests.unit.streams.correlation.strategies import chain_of, feed

LARGE = "x" * limits.MATCH_PAYLOAD_BYTES_MAX


def rule(**more: Any) -> Rule:
    document = {
        "id": "r", "events": {"e": {"type": "a"}},
        "correlation": {"type": "event_count", "timespan": "1m", "condition": {"gte": 1}, "group-by": ["data.user"]}, **more,
    }  # fmt: skip
    return chain_of(document).engine.rules()[0].rule


def kept(of: Rule, payload: Any) -> Any:
    text, truncated = payload_of(of, orjson.dumps(payload).decode(), lambda: payload)
    assert truncated
    assert len(text.encode()) <= limits.MATCH_PAYLOAD_BYTES_MAX
    return orjson.loads(text)


def test_a_small_payload_goes_along_as_it_is() -> None:
    assert payload_of(rule(), '{"a": 1 }', lambda: pytest.fail("it need not be parsed")) == ('{"a": 1 }', False)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("events[0].data.total > 1.0 ? 0.9 : 0.1", "total"),
        ('events.exists(e, has(e.data.total)) ? 0.9 : 0.1', "total"),
        ('events[0].data["order-id"] == "7" ? 0.9 : 0.1', "order-id"),
        ("events[0].data['größe'] > 1.0 ? 0.9 : 0.1", "größe"),
        ('events[0].data[" "] > 1.0 ? 0.9 : 0.1', " "),
    ],
)  # fmt: skip
def test_what_the_confidence_reads_is_kept_under_any_name(text: str, name: str) -> None:
    assert kept(rule(confidence=text), {"large": LARGE, name: 7, "other": 1}) == {name: 7}


def test_what_templates_and_groups_read_is_kept() -> None:
    actions = [
        {"start-workflow": {"id": "w", "input": {"deep": ["{{events[0].data.first}}"]}}},
        {"webhook": "http://h/{{events[0].data.second}}"},
    ]
    assert kept(rule(actions=actions), {"large": LARGE, "first": 1, "second": 2, "user": "ann", "w": 3, "third": 4}) == {
        "first": 1, "second": 2, "user": "ann", "w": 3,
    }  # fmt: skip


def test_of_large_objects_and_lists_what_is_read_inside_is_kept() -> None:
    of = rule(confidence="events[0].data.order.items.map(i, i.price).size() > 2 ? 0.9 : 0.1")
    items = [{"price": number, "text": "x" * 100} for number in range(100)]
    assert kept(of, {"order": {"items": items, "text": LARGE}}) == {"order": {"items": [{"price": number} for number in range(100)]}}
    assert kept(of, {"order": {"price": 1, "items": [LARGE]}}) == {"order": {"price": 1}}
    assert kept(of, {"order": LARGE}) == {}
    assert kept(of, [LARGE]) == {}


NAMES = ["order", "price", "items", "x-y", "other", "ü"]


def some_json(chance: Random, depth: int) -> Any:
    kind = chance.choice(["object", "object", "list", "number", "text"] if depth else ["number", "text", "text"])
    match kind:
        case "object":
            return {name: some_json(chance, depth - 1) for name in chance.sample(NAMES, chance.randint(0, 6))}
        case "list":
            return [some_json(chance, depth - 1) for _ in range(chance.randint(0, 5))]
        case "text":
            return chance.choice('äx\\"') * chance.choice([1, 300, 2000])
        case _:
            return chance.choice([1, -2.5, None, True])


@given(st.integers(0, 2**32))
def test_it_never_exceeds_the_limit_and_says_nothing_that_is_not_so(seed: int) -> None:
    chance = Random(seed)
    payload = {"large": LARGE, **{name: some_json(chance, 4) for name in NAMES}}
    of = rule(confidence="events[0].data.order.items[0].price + events[0].data['x-y'] + events[0].data['ü'] > 2.0 ? 0.9 : 0.1")

    def part(less: Any, of: Any) -> bool:
        if isinstance(less, dict) and isinstance(of, dict):
            return all(name in of and part(value, of[name]) for name, value in less.items())
        if isinstance(less, list) and isinstance(of, list):
            return len(less) == len(of) and all(map(part, less, of))
        return bool(less == of)

    assert part(kept(of, payload), payload)


def test_confidence_and_insights_say_the_same_whether_the_rest_of_the_payload_is_large_or_not() -> None:
    document = {
        "id": "r", "events": {"e": {"type": "a"}}, "confidence": "events[0].data.v.total / 100.0",
        "correlation": {"type": "event_count", "timespan": "1m", "condition": {"gte": 1}, "grace": 0},
    }  # fmt: skip
    for value in ({"total": 25}, {"total": 25, "large": LARGE}):
        (said,) = feed(chain_of(document), [Record(0, "1", "a", "g", value)])
        assert said.confidence == 0.25
