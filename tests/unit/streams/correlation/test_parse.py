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
        "id": "Not OK", "surprise": 1, "severity": "loud", "confidence": 2, "suppress": "soon", "actions": [{"dance": 1}, {"webhook": "x"}],
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
        ("rule.action-unsupported", "/actions/1"),
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
        ({"type": "temporal"}, ("rule.type-unsupported", "/correlation/type")),
        ({"type": "nonsense"}, ("rule.type-unknown", "/correlation/type")),
        ({"window": "session", "gap": "1m"}, ("rule.type-unsupported", "/correlation/window")),
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


def test_matching_composites_is_refused_as_long_as_it_does_not_run() -> None:
    wrong = document()
    wrong["events"]["a"] = {"rule": "other"}
    assert faults(wrong) == {("rule.type-unsupported", "/events/a/rule")}


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
