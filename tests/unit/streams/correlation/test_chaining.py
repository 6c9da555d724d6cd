"""Chaining: levels, cycles, and composites as records, against the oracle run rule by rule."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.correlation.control import check
from streams.correlation.engine import Engine
from streams.correlation.levels import cycles, lags, levels
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule
from streams.correlation.running import BEGINNING_US
from streams.correlation.seen import Seen
from streams.errors import InvalidDocument
from streams.records import CompositeEvent
from tests.unit.streams.correlation.oracle import Match, Record, truth
from tests.unit.streams.correlation.strategies import (
    SECOND,
    arrivals,
    as_matches,
    chain_of,
    comparable,
    document,
    feed,
    finish,
    records,
    rules,
    standing,
)

#: The downstream rule reads composites of `r` as type `x` and records of type `c`; the oracle gets the composites as records of type x.
DOWN_EVENTS = {"x": {"rule": "r"}, "c": {"type": ["c", "bc"]}}
ORACLE_EVENTS = {"x": {"type": ["x"]}, "c": {"type": ["c", "bc"]}}


def rule(id: str, reads: str | None = None, **correlation: Any) -> dict[str, Any]:
    matcher = {"type": "a"} if reads is None else {"rule": reads}
    return {
        "id": id,
        "events": {"e": matcher},
        "correlation": {"type": "event_count", "timespan": 5000, "condition": {"gte": 1}, **correlation},
    }


def test_levels_grow_by_one_along_the_way() -> None:
    of = [parse_rule(each) for each in (rule("z", "y"), rule("y", "x"), rule("x"), rule("alone"), rule("lost", "nowhere"))]
    assert levels(of) == {"z": 2, "y": 1, "x": 0, "alone": 0, "lost": 0}
    assert cycles(of) == []


def test_a_rule_settles_not_before_the_rules_that_it_reads() -> None:
    of = [parse_rule(each) for each in (rule("z", "y", grace=0), rule("y", "x", grace=7000), rule("x", grace=3000))]
    assert lags(of, levels(of)) == {"x": 3 * SECOND, "y": 7 * SECOND, "z": 7 * SECOND}


def test_circles_are_found_also_of_one() -> None:
    of = [parse_rule(each) for each in (rule("a", "b"), rule("b", "a"), rule("c", "c"), rule("d", "a"))]
    assert cycles(of) == [("a", "b"), ("c",)]
    assert levels(of)["a"] == levels(of)["b"] < levels(of)["d"]


def test_a_circle_that_two_changes_made_feeds_nothing_and_hangs_nothing() -> None:
    of = rule("a")
    of["events"] = {"e": {"type": "a"}, "loop": {"rule": "a"}}
    chain = chain_of(document({**of, "correlation": {**of["correlation"], "timespan": 5, "grace": 0}}))
    assert len(feed(chain, [Record(0, "1")]) + finish(chain)) == 1


def test_a_composite_is_read_with_what_it_says() -> None:
    up = rule("r", grace=0, **{"group-by": ["data.g"]})
    down = rule("down", "r", grace=0, **{"group-by": ['data.group["data.g"]']})
    down["events"]["e"]["where"] = "data.count == 1 && data.severity == 'warning' && subject == 'data.g=g' && type == 'composite.r'"
    said = feed(chain_of(up, down), [Record(0, "1")])
    assert [(each.rule_id, each.event_ids) for each in said] == [("r", ("1",)), ("down", (said[0].id,))]
    assert said[1].group_key == {'data.group["data.g"]': "g"}


def test_it_comes_after_the_record_that_fired_it_and_before_the_next() -> None:
    up = rule("r", grace=0)
    down = {
        "id": "down", "events": {"x": {"rule": "r"}, "a": {"type": "a"}, "b": {"type": "b"}},
        "correlation": {"type": "temporal_ordered", "events": ["a", "x", "b"], "timespan": 5000, "grace": 0},
    }  # fmt: skip
    arrived = [Record(0, "z", "a"), Record(0, "y", "b")]
    for output in ("eager", "final"):
        for order in ("eager", "final"):
            chain = chain_of(
                {**up, "correlation": {**up["correlation"], "output": order}},
                {**down, "correlation": {**down["correlation"], "output": output}},
            )
            ids = [("n1", "a"), ("n2", "b")] if output == "final" or order == "final" else [("z", "a"), ("y", "b")]
            of = [Record(0, id_, kind) for id_, kind in ids] if (output, order) != ("eager", "eager") else arrived
            said = feed(chain, of) + finish(chain)
            assert [each.event_count for each in standing(said) if each.rule_id == "down"] == [3], (output, order)


def composites_as_records(upstream: list[Match], arrived: list[Record], said: list[CompositeEvent]) -> list[Record]:
    """The composites of the upstream rule as records of type x, placed behind the record that fired them."""
    order = {record.id: (place, record.id) for place, record in enumerate(arrived, 1)}
    known = {(each.group_key.get("data.g"), each.window_end, each.event_ids): each.id for each in said if each.rule_id == "r"}
    found = []
    for match in upstream:
        composite_id = next(id_ for (group, _, ids), id_ in known.items() if (group, ids) == (match.group, match.ids))
        place = order[match.firing][0] if match.firing else -1
        found.append(Record(match.end, composite_id, "x", match.group, order=(place, 1, composite_id)))
    return found


@st.composite
def downstream(draw: st.DrawFn) -> dict[str, Any]:
    of = draw(
        st.sampled_from(
            [
                {"type": "event_count", "condition": {"gte": 2}, "events": ["x"]},
                {"type": "event_count", "condition": {"gte": 1}, "events": ["x"], "window": "tumbling"},
                {"type": "temporal", "events": ["x", "c"]},
                {"type": "temporal_ordered", "events": ["c", "x"]},
                {"type": "temporal_ordered", "events": ["x", {"not": "c"}, "x"]},
                {"type": "absence", "events": ["x", "c"]},
            ]
        )
    )  # fmt: skip
    after = draw(st.sampled_from(["reset", "continue"]))
    grace = draw(st.sampled_from([0, 2, 7]))
    return {
        "id": "down",
        "events": ORACLE_EVENTS,
        "correlation": {**of, "timespan": draw(st.sampled_from([3, 6])), "grace": grace, "after-match": after},
    }


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_rules_on_composites_stand_where_the_oracle_says(data: st.DataObject) -> None:
    up, down = data.draw(rules()), data.draw(downstream())
    grace = min(up["correlation"]["grace"], down["correlation"]["grace"])
    arrived = data.draw(arrivals(data.draw(records(most=10)), grace))
    # Ids sort as the records arrive, so that eager and final order ties alike.
    arrived = [Record(each.time, f"n{n:02}", each.type, each.group, each.value, (n, 0, "")) for n, each in enumerate(arrived, 1)]
    outputs = data.draw(st.tuples(st.sampled_from(["eager", "final"]), st.sampled_from(["eager", "final"])))

    down_document = document({**down, "events": DOWN_EVENTS}, output=outputs[1])
    down_document["correlation"]["group-by"] = ["g"]
    down_document["correlation"]["aliases"] = {"g": {"x": 'data.group["data.g"]', "c": "data.g"}}
    chain = chain_of(document(up, output=outputs[0]), down_document)
    said = standing(feed(chain, arrived) + finish(chain))

    expected_up = truth(up, arrived)
    assert comparable(as_matches(each for each in said if each.rule_id == "r")) == comparable(expected_up)
    fed = composites_as_records(expected_up, arrived, said)
    # The oracle's clock is that of the records; composites are never late and move nothing.
    merged = sorted([*arrived, *fed], key=lambda each: (each.time, each.order))
    expected = truth({**down, "correlation": {**down["correlation"], "grace": 10_000}}, merged)
    got = [(each.group_key["g"], each.event_ids, each.event_count) for each in said if each.rule_id == "down"]
    assert sorted(got) == sorted((match.group, match.ids, len(match.ids)) for match in expected)


def test_a_circle_is_refused_when_rules_are_checked_also_with_those_in_force() -> None:
    def refused(documents: list[Any], in_force: list[Any]) -> list[tuple[str, str]]:
        with pytest.raises(InvalidDocument) as caught:
            check(documents, in_force)
        return [(fault.code, fault.pointer) for fault in caught.value.violations]

    assert refused([rule("a", "a")], []) == [("rule.cycle", "/events/e/rule")]
    assert refused([rule("x"), rule("a", "b"), rule("b", "a")], []) == [
        ("rule.cycle", "/1/events/e/rule"),
        ("rule.cycle", "/2/events/e/rule"),
    ]
    assert refused([rule("a", "b")], [rule("b", "c"), rule("c", "a")]) == [("rule.cycle", "/events/e/rule")]
    check([rule("a", "b")], [rule("b", "c")])
    check([rule("a", "b")], [rule("b", "a") | {"correlation": {"type": "of-the-future"}}])


def active(document: dict[str, Any], order: int = 0) -> ActiveRule:
    return ActiveRule(rule=parse_rule(document), version=1, order=order)


def test_a_new_rule_begins_with_the_clock_of_its_level_not_with_that_of_the_records() -> None:
    engine = Engine()
    engine.use(active(rule("x", grace=0)))
    engine.advance(50 * SECOND, 0)
    engine.use(active(rule("y", "x", output="final", grace=0)))
    assert (engine.clocks_us, engine.floors_us()["y"]) == ((50 * SECOND, BEGINNING_US), BEGINNING_US)
    # A composite that comes behind one that is newer is still put in its place.
    for second in (60, 40):
        assert engine.feed("y", "[]", Seen(second * SECOND, f"c{second}", after=((), "", 0), names=("e",)), ()) == []
    assert [draft.found.firing for draft in engine.advance(100 * SECOND, 1)] == ["c40", "c60"]


def test_a_rule_that_moves_to_another_level_does_not_go_back_behind_what_it_has_settled() -> None:
    engine = Engine()
    engine.use(active(rule("y", "x", grace=0)))
    engine.advance(50 * SECOND, 0)
    engine.use(active(rule("x", grace=0)))
    assert (engine.level("y"), engine.floors_us()["y"]) == (1, 50 * SECOND)
    resumed = Engine()
    for each in engine.rules():
        resumed.use(each)
    resumed.resume(engine.clocks_us, engine.floors_us())
    assert (resumed.clocks_us, resumed.floors_us()) == (engine.clocks_us, engine.floors_us())


def test_only_rules_on_higher_levels_are_readers() -> None:
    engine = Engine()
    for order, each in enumerate((rule("x"), rule("y", "x"), rule("a", "b"), rule("b", "a"))):
        engine.use(active(each, order))
    assert engine.chained
    assert {id: dict(engine.readers(id)) for id in "xyab"} == {"x": {"y": 1}, "y": {}, "a": {}, "b": {}}
    engine.drop("y")
    assert not engine.chained


def test_what_one_record_makes_two_levels_say_comes_in_the_order_of_revisions() -> None:
    """A record that completes something of the rule on top and at the same time takes back what that reads."""
    group = {"group-by": ["g"], "output": "eager"}
    up = {
        "id": "r", "events": {"e": {"type": ["ab", "bc", "a"]}},
        "correlation": {
            "type": "event_count", "window": "session", "gap": 6000, "grace": 6000, "condition": {"gte": 2}, "events": ["e"],
            "after-match": "continue", "output": "eager", "group-by": ["data.g"],
        },
    }  # fmt: skip
    of_records, of_composites = "data.g", 'data.group["data.g"]'
    middle = {
        "id": "middle", "events": {"c": {"type": "bc"}, "x": {"rule": "r"}},
        "correlation": {
            "type": "temporal", "events": ["x", "c"], "timespan": 3000, "grace": 4000, "after-match": "reset", **group,
            "aliases": {"g": {"c": of_records, "x": of_composites}},
        },
    }  # fmt: skip
    top = {
        "id": "top", "events": {"c": {"type": "ab"}, "x": {"rule": "middle"}, "y": {"rule": "r"}},
        "correlation": {
            "type": "temporal", "events": ["x", "y", "c"], "timespan": 3000, "grace": 7000, "after-match": "continue", **group,
            "aliases": {"g": {"c": of_records, "x": "data.group.g", "y": of_composites}},
        },
    }  # fmt: skip
    came = [Record(4, "late", "bc", "g"), Record(1, "early", "a", "g"), Record(3, "between", "ab", "g")]
    said = feed(chain_of(up, middle, top), came)
    assert any(each.retracted for each in said)
    assert {each.rule_id for each in standing(said)} == {"r", "middle", "top"}


def test_a_rule_that_reads_another_twice_says_its_revisions_in_their_order() -> None:
    # given `top`, which reads `up` itself and by way of `middle`
    up = document(
        {
            "id": "up", "events": {"a": {"type": "a"}, "b": {"type": "b"}},
            "correlation": {"type": "absence", "events": ["a", "b"], "timespan": 3, "grace": 6, "after-match": "continue"},
        }, output="final",
    )  # fmt: skip
    both = {"timespan": 6000, "grace": 7000, "after-match": "continue", "output": "eager", "group-by": ["g"]}
    middle = {
        "id": "middle", "events": {"c": {"type": "c"}, "x": {"rule": "up"}}, "suppress": 2000,
        "correlation": {**both, "type": "temporal", "events": ["x", "c"], "aliases": {"g": {"c": "data.g", "x": 'data.group["data.g"]'}}},
    }  # fmt: skip
    aliases = {"g": {"x": "data.group.g", "y": 'data.group["data.g"]'}}
    top = {
        "id": "top", "events": {"x": {"rule": "middle"}, "y": {"rule": "up"}}, "suppress": 2000,
        "correlation": {**both, "type": "event_count", "condition": {"gte": 2}, "events": ["x", "y"], "aliases": aliases},
    }  # fmt: skip
    happened = [(7, "first", "a"), (14, "c", "c"), (8, "late", "a"), (10_000, "end", "other")]
    # when a composite of `up` that comes late revises both
    chain = chain_of(up, middle, top)
    said = feed(chain, [Record(time, id, type, "h", None) for time, id, type in happened])
    # then each revision comes after the one that it revises (`standing` looks)
    assert any(composite.rule_id == "top" and composite.revision == 2 for composite in said)
    assert {composite.rule_id for composite in standing(said)} == {"up", "middle", "top"}
