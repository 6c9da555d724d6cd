from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.correlation.parse import parse_rule, validate
from streams.errors import InvalidDocument

EXAMPLES = sorted((Path(__file__).parents[4] / "examples" / "rules").glob("*.yaml"))


def document(**correlation: Any) -> dict[str, Any]:
    return {
        "id": "r",
        "events": {"a": {"type": "x"}, "b": {"type": "y"}},
        "correlation": {"type": "event_count", "events": ["a"], "timespan": "5m", "condition": {"gte": 3}, **correlation},
    }


def faults(given: Any) -> set[tuple[str, str]]:
    return {(fault.code, fault.pointer) for fault in validate(given)}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_are_rules(file: Path) -> None:
    for content in yaml.safe_load_all(file.read_text()):
        assert validate(content) == []


def test_everything_that_is_given_is_read() -> None:
    rule = parse_rule(
        {
            "id": "card-fraud", "title": "T", "description": "D", "tags": ["x"], "enabled": False, "severity": "critical",
            "events": {
                "login": {"topic": "t", "type": ["user.**", "u"], "source": "auth-*", "subject": "s", "severity": ["info"],
                          "where": "data.n > 1"}
            },
            "correlation": {
                "type": "event_count", "events": ["login"], "group-by": ["host", 'data["a.b"]'],
                "aliases": {"host": {"login": "data.host"}},
                "timespan": "PT1M", "grace": 1500, "condition": {"gte": 2, "gt": 1.5}, "after-match": "continue", "output": "final",
            },
            "suppress": "1h", "confidence": 0.9, "actions": [],
        }
    )  # fmt: skip
    (matcher,) = rule.matchers
    assert (matcher.topics, matcher.types, matcher.sources, matcher.severities) == (("t",), ("user.**", "u"), ("auth-*",), ("info",))
    assert (rule.timespan_us, rule.grace_us, rule.suppress_us) == (60_000_000, 1_500_000, 3_600_000_000)
    assert (rule.enabled, rule.after_match, rule.output, rule.confidence, rule.group_by) == (
        False,
        "continue",
        "final",
        0.9,
        ("host", 'data["a.b"]'),
    )


def test_defaults() -> None:
    rule = parse_rule(document())
    assert (rule.severity, rule.enabled, rule.grace_us, rule.window, rule.after_match, rule.output, rule.suppress_us, rule.confidence) == (
        "warning", True, 10_000_000, "sliding", "reset", "eager", 0, None,
    )  # fmt: skip


@pytest.mark.parametrize("given", [None, 1, "x", [], True])
def test_what_is_no_object_is_no_rule(given: Any) -> None:
    assert faults(given) == {("rule.invalid", "")}


def test_all_faults_at_once() -> None:
    wrong = {
        "id": "Not OK", "surprise": 1, "severity": "loud", "confidence": 2, "suppress": "soon",
        "actions": [{"dance": 1}, {"webhook": "x {{"}, {"emit": "{{composite.}}"}],
        "events": {"a": {"type": 5, "where": "data.x >", "kind": "x"}, "1": {}},
        "correlation": {
            "type": "event_count", "events": ["a", "zz"], "timespan": "400d", "condition": {"lt": 3, "gte": "x"}, "group-by": ["data..x"],
            "aliases": {"h": {"zz": "data.x"}}, "grace": -1, "output": "soon",
        },
    }  # fmt: skip
    assert faults(wrong) == {
        ("rule.id-invalid", "/id"),
        ("rule.field-unknown", "/surprise"),
        ("rule.value-invalid", "/severity"),
        ("rule.value-invalid", "/confidence"),
        ("duration.invalid", "/suppress"),
        ("rule.value-invalid", "/actions/0"),
        ("template.invalid", "/actions/1/webhook/url"),
        ("expression.invalid", "/actions/2/emit"),
        ("rule.field-unknown", "/events/a/kind"),
        ("rule.value-invalid", "/events/a/type"),
        ("expression.invalid", "/events/a/where"),
        ("rule.value-invalid", "/events/1"),
        ("rule.event-unknown", "/correlation/events/1"),
        ("rule.duration-range", "/correlation/timespan"),
        ("rule.condition-window", "/correlation/condition"),
        ("rule.value-invalid", "/correlation/condition/gte"),
        ("path.invalid", "/correlation/group-by/0"),
        ("rule.event-unknown", "/correlation/aliases/h/zz"),
        ("duration.invalid", "/correlation/grace"),
        ("rule.value-invalid", "/correlation/output"),
    }


@pytest.mark.parametrize("operator", ["lt", "lte", "eq", "neq"])
def test_sliding_windows_have_lower_bounds_only(operator: str) -> None:
    assert faults(document(condition={operator: 3})) == {("rule.condition-window", "/correlation/condition")}
    assert faults(document(condition={operator: 3, "gte": 1})) == {("rule.condition-window", "/correlation/condition")}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"type": "anomaly"}, ("rule.option-refused", "/correlation/condition")),
        ({"type": "anomaly", "condition": {"threshold": 1}}, ("rule.value-invalid", "/correlation/condition/threshold")),
        ({"type": "anomaly", "condition": {"threshold": 0}}, ("rule.value-invalid", "/correlation/condition/threshold")),
        ({"type": "anomaly", "condition": {"percentile": 95}}, ("rule.option-refused", "/correlation/condition/percentile")),
        ({"type": "anomaly", "condition": {}, "timespan": None}, ("rule.field-missing", "/correlation/timespan")),
        ({"type": "anomaly", "condition": {}, "window": "sliding"}, ("rule.window-refused", "/correlation/window")),
        (
            {"type": "anomaly", "condition": {"field": "data.v"}, "timespan": None, "window": "tumbling"},
            ("rule.field-missing", "/correlation/timespan"),
        ),
        ({"type": "nonsense"}, ("rule.type-unknown", "/correlation/type")),
        ({"window": "session"}, ("rule.field-missing", "/correlation/gap")),
        ({"gap": "1m"}, ("rule.option-refused", "/correlation/gap")),
        ({"until": "b"}, ("rule.option-refused", "/correlation/until")),
        ({"condition": {"gte": 3, "field": "data.x"}}, ("rule.option-refused", "/correlation/condition/field")),
        ({"condition": {"gte": 3, "baseline": 2}}, ("rule.option-refused", "/correlation/condition/baseline")),
        ({"condition": {"gte": 3, "threshold": 2}}, ("rule.option-refused", "/correlation/condition/threshold")),
        ({"condition": {"gte": 10**400}}, ("rule.value-invalid", "/correlation/condition/gte")),
        ({"events": [{"event": "a", "times": 2}]}, ("rule.value-invalid", "/correlation/events/0")),
        ({"type": "value_sum"}, ("rule.field-missing", "/correlation/condition/field")),
        (
            {"type": "value_percentile", "condition": {"gte": 3, "field": "data.x"}},
            ("rule.field-missing", "/correlation/condition/percentile"),
        ),
        (
            {"type": "value_percentile", "condition": {"gte": 3, "field": "data.x", "percentile": 101}},
            ("rule.value-invalid", "/correlation/condition/percentile"),
        ),
        ({"type": "rate_change"}, ("rule.field-missing", "/correlation/condition/baseline")),
        (
            {"type": "rate_change", "window": "sliding", "condition": {"gte": 3, "baseline": 2}},
            ("rule.window-refused", "/correlation/window"),
        ),
        ({"type": "rate_change", "condition": {"gte": 3, "baseline": 1.5}}, ("rule.value-invalid", "/correlation/condition/baseline")),
        ({"type": "temporal"}, ("rule.option-refused", "/correlation/condition")),
        ({"type": "temporal", "condition": None, "window": "tumbling"}, ("rule.option-refused", "/correlation/window")),
        ({"type": "absence", "condition": None, "events": ["a", "b", "a"]}, ("rule.value-invalid", "/correlation/events")),
        ({"type": "temporal_ordered", "condition": None, "events": [{"not": "a"}, "b"]}, ("rule.value-invalid", "/correlation/events/0")),
        (
            {"type": "temporal_ordered", "condition": None, "events": ["a", {"not": "z"}]},
            ("rule.event-unknown", "/correlation/events/1/not"),
        ),
        (
            {"type": "temporal_ordered", "condition": None, "events": [{"event": "a", "times": 0}]},
            ("rule.value-invalid", "/correlation/events/0/times"),
        ),
        (
            {"type": "temporal_ordered", "condition": None, "events": [{"event": "a", "times": 60}, {"event": "b", "times": 60}]},
            ("rule.value-invalid", "/correlation/events"),
        ),
        ({"type": "temporal_ordered", "condition": None, "until": "zz"}, ("rule.event-unknown", "/correlation/until")),
        ({"type": None}, ("rule.field-missing", "/correlation/type")),
        ({"timespan": None}, ("rule.field-missing", "/correlation/timespan")),
        ({"timespan": 0}, ("rule.duration-range", "/correlation/timespan")),
        ({"condition": None}, ("rule.field-missing", "/correlation/condition")),
        ({"condition": {}}, ("rule.field-missing", "/correlation/condition")),
        ({"condition": {"gte": float("nan")}}, ("rule.value-invalid", "/correlation/condition/gte")),
        ({"condition": {"gte": True}}, ("rule.value-invalid", "/correlation/condition/gte")),
        ({"events": []}, ("rule.value-invalid", "/correlation/events")),
    ],
)
def test_one_fault(change: dict[str, Any], expected: tuple[str, str]) -> None:
    assert expected in faults(document(**change))


def test_a_sequence_is_written_out() -> None:
    events = ["a", {"not": "b"}, {"event": "a", "times": 2}, {"not": "b"}]
    rule = parse_rule(document(type="temporal_ordered", condition=None, events=events, until="b"))
    assert [(step.name, set(step.barred)) for step in rule.steps] == [("a", set()), ("a", {"b"}), ("a", set())]
    assert (rule.barred_last, rule.until, rule.names, rule.timed) == ({"b"}, "b", ("a", "b"), True)


@pytest.mark.parametrize(
    ("change", "timed"),
    [
        ({}, False),
        ({"window": "tumbling"}, False),
        ({"window": "tumbling", "condition": {"lt": 3}}, True),
        ({"window": "session", "gap": 5, "timespan": None}, False),
        ({"window": "session", "gap": 5, "type": "value_min", "condition": {"gte": 3, "field": "data.x"}}, True),
        ({"window": "tumbling", "type": "value_max", "condition": {"gte": 3, "field": "data.x"}}, False),
        ({"type": "rate_change", "condition": {"gte": 3, "baseline": 2}}, True),
        ({"type": "absence", "condition": None}, True),
        ({"type": "temporal", "condition": None}, False),
    ],
)
def test_which_rules_speak_at_instants(change: dict[str, Any], timed: bool) -> None:
    assert parse_rule(document(**change)).timed is timed


def test_matching_the_composites_of_other_rules() -> None:
    of = document()
    of["events"]["a"] = {"rule": ["other", "another"], "where": "data.count > 3"}
    assert parse_rule(of).upstream == {"other", "another"}
    of["events"]["a"] = {"rule": "No Id", "topic": "t"}
    assert faults(of) == {("rule.value-invalid", "/events/a/rule"), ("rule.option-refused", "/events/a/topic")}


def test_actions_are_read_and_their_templates_checked() -> None:
    actions: list[Any] = [
        "none", {"none": None}, {"emit": "x.{{group.user}}"}, {"start-workflow": {"id": "w", "input": {"a": ["{{events[0].id}}"]}}},
        {"signal-workflow": {"id": "{{group.execution_id}}", "name": "s"}}, {"webhook": {"url": "https://x", "headers": {"a": "b"}}},
    ]  # fmt: skip
    assert [type(action).__name__ for action in parse_rule({**document(), "actions": actions}).actions] == [
        "Emit", "StartWorkflow", "SignalWorkflow", "Webhook",
    ]  # fmt: skip
    wrong = [
        {"emit": 5}, {"start-workflow": {"input": 1}}, {"start-workflow": {"id": "{{nobody.x}}", "extra": 1}}, {"webhook": 5}, "emit",
        {"webhook": {"url": "x", "headers": {"a": 1}}}, {"emit": "{{events.map(e, e.id)}}"},
    ]  # fmt: skip
    assert faults({**document(), "actions": wrong}) == {
        ("rule.value-invalid", "/actions/0/emit"),
        ("rule.field-missing", "/actions/1/start-workflow/id"),
        ("expression.unknown-name", "/actions/2/start-workflow/id"),
        ("rule.field-unknown", "/actions/2/start-workflow/extra"),
        ("rule.value-invalid", "/actions/3/webhook"),
        ("rule.value-invalid", "/actions/4"),
        ("rule.value-invalid", "/actions/5/webhook/headers/a"),
        ("webhook.url-invalid", "/actions/5/webhook/url"),
    }


def test_confidence_reads_what_it_may() -> None:
    assert faults({**document(), "confidence": "group.x"}) == {("expression.unknown-name", "/confidence")}


@pytest.mark.parametrize("topic", ["mplp.composite.events", "mplp.internal.matches", "mplp.control.rules", "mplp.system.events.dlq"])
def test_topics_that_rules_cannot_read(topic: str) -> None:
    wrong = document()
    wrong["events"]["a"]["topic"] = topic
    assert faults(wrong) == {("rule.topic-refused", "/events/a/topic")}


def test_parse_raises_with_all_faults() -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse_rule({"id": "r"})
    assert caught.value.code == "rule.invalid"
    assert [violation.pointer for violation in caught.value.violations] == ["/events", "/correlation"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_whatever_is_put_anywhere_gives_faults_and_never_an_exception(data: st.DataObject) -> None:
    given = copy.deepcopy(document(**{"group-by": ["data.x"], "aliases": {"h": {"a": "data.y"}}, "grace": "1s"}))
    given |= {"suppress": "1m", "confidence": 0.5, "actions": ["none"], "tags": ["t"]}
    at: Any = given
    while isinstance(at, (dict, list)) and at:
        key = data.draw(st.sampled_from(sorted(at))) if isinstance(at, dict) else data.draw(st.integers(0, len(at) - 1))
        if data.draw(st.booleans()) or not isinstance(at[key], (dict, list)):
            at[key] = data.draw(JSON)
            break
        at = at[key]
    if not validate(given):
        parse_rule(given)


def acting(actions: list[Any]) -> dict[str, Any]:
    return {**document(), "actions": actions}


@pytest.mark.parametrize(
    ("action", "code", "pointer"),
    [
        ({"webhook": "ftp://x/"}, "webhook.url-invalid", "/actions/0/webhook/url"),
        ({"webhook": {"url": "https://user:secret@x/"}}, "webhook.url-invalid", "/actions/0/webhook/url"),
        ({"webhook": {"url": "https://x/", "headers": {"Webhook-Id": "1"}}}, "rule.value-invalid", "/actions/0/webhook/headers/Webhook-Id"),
        ({"webhook": {"url": "https://x/", "headers": {"a b": "1"}}}, "rule.value-invalid", "/actions/0/webhook/headers/a b"),
        ({"webhook": {"url": "https://x/", "headers": {"a/b\n": "1"}}}, "rule.value-invalid", "/actions/0/webhook/headers/a~1b\n"),
    ],
)
def test_what_a_webhook_cannot_have_is_refused_where_it_stands(action: Any, code: str, pointer: str) -> None:
    assert faults(acting([action])) == {(code, pointer)}


def test_a_webhook_may_take_its_address_from_the_composite_and_a_rule_has_so_many_actions() -> None:
    assert faults(acting([{"webhook": {"url": "https://{{group.host}}/", "headers": {"X-A": "1"}}}])) == set()
    assert faults(acting(["none"] * 20)) == set()
    assert faults(acting(["none"] * 21)) == {("rule.value-invalid", "/actions")}
