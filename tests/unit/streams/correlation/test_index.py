from __future__ import annotations

from typing import Any

import orjson

from streams.correlation.index import RuleIndex
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule
from streams.matching.matchers import RecordView
from streams.topics import COMPOSITES, SYSTEM_EVENTS, TRANSITIONS


def index(*rules: dict[str, Any]) -> RuleIndex:
    return RuleIndex([ActiveRule(rule=parse_rule(rule), version=1, order=order) for order, rule in enumerate(rules)])


def rule(matchers: dict[str, Any], id: str = "r", **correlation: Any) -> dict[str, Any]:
    return {"id": id, "events": matchers, "correlation": {"type": "event_count", "timespan": 1000, "condition": {"gte": 1}, **correlation}}


def record(type: str = "x", data: Any = None, **fields: Any) -> RecordView:
    plain = {
        "id": "1",
        "type": type,
        "source": "",
        "subject": "",
        "time": 0,
        "data": orjson.dumps(data if data is not None else {}).decode(),
        **fields,
    }
    return RecordView(plain)


def hits(of: RuleIndex, view: RecordView, topic: str | None = SYSTEM_EVENTS) -> list[tuple[str, tuple[str, ...], str]]:
    return [(hit.active.id, hit.names, hit.group_key) for hit in of.hits(topic, view)]


def test_all_given_parts_must_hold() -> None:
    of = index(rule({"e": {"type": "order.*", "source": "shop-*", "subject": "o.**", "severity": ["error"], "where": "data.n > 1"}}))
    good = {"source": "shop-1", "subject": "o.1", "severity": "error"}
    assert hits(of, record("order.failed", {"n": 2}, **good)) == [("r", ("e",), "[]")]
    for change in ({"source": "Shop-1"}, {"subject": "p"}, {"severity": "info"}):
        assert hits(of, record("order.failed", {"n": 2}, **{**good, **change})) == []
    assert hits(of, record("order.failed", {"n": 1}, **good)) == []
    assert hits(of, record("order.failed.late", {"n": 2}, **good)) == []


def test_default_topics_and_named_ones() -> None:
    of = index(rule({"e": {}}), rule({"e": {"topic": "mine"}}, id="other"))
    assert [name for name, _, _ in hits(of, record(), SYSTEM_EVENTS)] == ["r"]
    assert [name for name, _, _ in hits(of, record(), TRANSITIONS)] == ["r"]
    assert [name for name, _, _ in hits(of, record(), "mine")] == ["other"]
    assert of.topics == {SYSTEM_EVENTS, TRANSITIONS, "mine"}


def test_in_a_trial_a_record_without_topic_fits_any() -> None:
    of = index(rule({"e": {}}), rule({"e": {"topic": "mine"}}, id="other"))
    assert [name for name, _, _ in hits(of, record(), None)] == ["r", "other"]
    assert hits(of, record(), "theirs") == []


def test_groups_are_compared_as_json_values() -> None:
    of = index(rule({"e": {}}, **{"group-by": ["data.u", "type"]}))
    keys = {hits(of, record("x", {"u": value}))[0][2] for value in (1, 1.0)}
    assert keys == {'[1,"x"]'}
    assert hits(of, record("x", {"u": "1"}))[0][2] == '["1","x"]'
    assert hits(of, record("x", {"u": None})) == []
    assert hits(of, record("x", {})) == []


def test_aliases_let_matchers_name_the_same_thing_differently() -> None:
    of = index(
        rule(
            {"login": {"type": "login"}, "pay": {"type": "pay"}, "other": {"type": "other"}},
            **{"group-by": ["host"], "aliases": {"host": {"login": "data.hostname", "pay": "data.client"}}},
        )
    )
    assert hits(of, record("login", {"hostname": "h"})) == [("r", ("login",), '["h"]')]
    assert hits(of, record("pay", {"client": "h"})) == [("r", ("pay",), '["h"]')]
    assert hits(of, record("other", {"hostname": "h", "client": "h"})) == []


def test_one_record_several_names_one_hit_per_group() -> None:
    events = {"a": {"type": "x"}, "b": {"where": "data.n > 0"}}
    assert hits(index(rule(events)), record("x", {"n": 1})) == [("r", ("a", "b"), "[]")]
    apart = index(rule(events, **{"group-by": ["who"], "aliases": {"who": {"a": "data.p", "b": "data.q"}}}))
    assert hits(apart, record("x", {"n": 1, "p": 1, "q": 2})) == [("r", ("a",), "[1]"), ("r", ("b",), "[2]")]


def test_matchers_that_the_correlation_does_not_name_take_no_part() -> None:
    assert hits(index(rule({"a": {"type": "x"}, "b": {"type": "y"}}, events=["a"])), record("y")) == []


def test_a_failing_expression_is_no_match_and_counted_once_per_record() -> None:
    of = index(rule({"a": {"where": "data.n > 1"}, "b": {"where": "data.m > 1"}}))
    assert hits(of, record("x", {})) == []
    assert of.errors == {"r": 1}
    assert hits(of, record("x", {"n": 2})) == [("r", ("a",), "[]")]


def test_a_payload_that_cannot_be_read_is_no_match() -> None:
    of = index(rule({"a": {}}, **{"group-by": ["data.x"]}))
    assert hits(of, RecordView({"id": "1", "type": "x", "time": 0, "data": "no json"})) == []
    assert of.errors == {"r": 1}


def test_required_texts_are_looked_up_and_the_rest_of_the_expression_still_holds() -> None:
    rules = [rule({"e": {"where": f'data.kind == "k{n}" && data.v > 1'}}, id=f"r{n}") for n in range(20)]
    of = index(*rules, rule({"e": {"where": '"k3" == data.kind'}}, id="turned"), rule({"e": {}}, id="open"))
    assert [name for name, _, _ in hits(of, record("x", {"kind": "k3", "v": 2}))] == ["r3", "turned", "open"]
    assert [name for name, _, _ in hits(of, record("x", {"kind": "k3", "v": 1}))] == ["turned", "open"]
    assert [name for name, _, _ in hits(of, record("x", {"kind": 3, "v": 2}))] == ["open"]
    assert of.errors == {}


def test_a_required_field_that_does_not_exist_is_an_error_of_each_rule_that_requires_it() -> None:
    of = index(
        rule({"e": {"where": 'data.kind == "a"'}}, id="one"), rule({"e": {"where": 'data.kind == "b"'}}, id="two"),
        rule({"e": {"where": 'data.kind == "a"'}, "f": {"where": "data.n > 0"}}, id="both"), rule({"e": {"type": "y"}}, id="other"),
    )  # fmt: skip
    assert hits(of, record("x", {})) == []
    assert of.errors == {"one": 1, "two": 1, "both": 1}
    assert hits(of, record("x", {"kind": None, "n": 1})) == [("both", ("f",), "[]")], "null is a value that equals no text"
    assert of.errors == {"one": 1, "two": 1, "both": 1}
    assert hits(of, RecordView({"id": "1", "type": "x", "time": 0, "data": "no json"})) == []
    assert of.errors == {"one": 2, "two": 2, "both": 2}


def test_values_come_with_the_hit_and_without_one_there_is_no_hit() -> None:
    of = index(rule({"e": {}}, type="value_sum", condition={"gte": 1, "field": "data.v"}))
    assert [hit.value for hit in of.hits(SYSTEM_EVENTS, record("x", {"v": 2.5}))] == [2.5]
    for value in (None, "2", True, [2]):
        assert of.hits(SYSTEM_EVENTS, record("x", {"v": value})) == []
    assert of.hits(SYSTEM_EVENTS, RecordView({"id": "1", "type": "x", "time": 0, "data": "no json"})) == []
    assert of.errors == {"r": 1}


def test_composites_are_for_matchers_that_name_their_rule() -> None:
    of = index(rule({"e": {"rule": "up"}}, id="down"), rule({"e": {"type": "composite.**"}}, id="other"))
    said = record("composite.up", {"count": 3})
    assert [name for name, _, _ in hits(of, said, COMPOSITES)] == ["down"]
    assert hits(of, record("composite.up2"), COMPOSITES) == []
    assert [name for name, _, _ in hits(of, said, None)] == ["down", "other"], "in a trial's file a record may be given as anything"
    assert COMPOSITES in of.topics
