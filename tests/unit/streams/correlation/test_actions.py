"""What a rule intends to do for a composite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from streams.correlation.actions import IntendedCall, IntendedEvent, IntendedSignal, IntendedStart, Unrendered, as_json, render
from streams.correlation.confidence import event_values
from streams.correlation.explain import composite
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule, Rule
from streams.correlation.seen import Draft, Found, Seen
from streams.records import CompositeEvent

RECORDS = tuple(Seen(1_700_000_000_000_000 + n, f"e{n}", "x", data=f'{{"n":{n}}}') for n in range(3))


def rule(*actions: Any) -> Rule:
    of = {"type": "event_count", "group-by": ["data.u", "execution_id"], "timespan": "1m", "condition": {"gte": 3}}
    return parse_rule({"id": "r", "title": "T", "tags": ["x"], "events": {"e": {}}, "correlation": of, "actions": list(actions)})


def said(of: Rule) -> CompositeEvent:
    found = Found("e2", RECORDS[0].time_us, RECORDS[2].time_us, RECORDS, 3, 3)
    return composite(ActiveRule(rule=of, version=2, order=0), Draft("r", '[7,"ex"]', "composite-id", found))


def intended(*actions: Any) -> list[Any]:
    of = rule(*actions)
    return render(of, said(of), event_values(RECORDS))


def test_a_text_that_is_one_template_keeps_its_type() -> None:
    values = {
        "number": "{{composite.event_count}}", "list": "{{events.map(e, e.data.n)}}", "map": "{{group}}", "text": "{{rule.title}}!",
        "mixed": "{{composite.event_count}} of {{group}}", "deep": [{"truth": "{{composite.confidence > 0.1}}"}], "plain": 5,
        "time": "{{events[0].time}}", "tags": "{{rule.tags}}", "spaced": "{{ rule.version }}", "quoted": '{{group["data.u"]}}',
    }  # fmt: skip
    (start,) = intended({"start-workflow": {"id": "w-{{group.execution_id}}", "input": values}})
    assert isinstance(start, IntendedStart)
    assert start.workflow_id == "w-ex"
    assert start.input == {
        "number": 3, "list": [0, 1, 2], "map": {"data.u": "7", "execution_id": "ex"}, "text": "T!",
        "mixed": '3 of {"data.u":"7","execution_id":"ex"}', "deep": [{"truth": True}], "plain": 5,
        "time": "2023-11-14T22:13:20.000000Z", "tags": ["x"], "spaced": 2, "quoted": "7",
    }  # fmt: skip
    assert type(start.input["number"]) is int


def test_each_kind_and_its_own_key() -> None:
    actions = [
        {"emit": "fraud.suspected"}, {"signal-workflow": {"execution": "{{group.execution_id}}", "name": "stop", "data": {"n": 1}}},
        {"webhook": "https://x/{{rule.id}}"},
        {"webhook": {"url": "https://y", "headers": {"x": "{{rule.id}}"}, "body": {"a": "{{rule.id}}"}}},
    ]  # fmt: skip
    event, signal, call, other = intended(*actions)
    composite_event = said(rule())
    assert event == IntendedEvent(key=event.key, type="fraud.suspected", subject=composite_event.subject, data=composite_event.data)
    assert signal == IntendedSignal(key=signal.key, execution_id="ex", name="stop", data={"n": 1})
    assert call == IntendedCall(key=call.key, url="https://x/r", headers={}, body=as_json(composite_event), whole=True)
    assert other == IntendedCall(key=other.key, url="https://y", headers={"x": "r"}, body={"a": "r"})
    assert len({event.key, signal.key, call.key, other.key}) == 4
    assert [each.key for each in intended(*actions)] == [event.key, signal.key, call.key, other.key]


def test_what_has_no_value_is_said_and_stops_no_other() -> None:
    failed, wrong, good = intended({"emit": "{{events[9].id}}"}, {"emit": "{{composite.event_count}}"}, {"emit": "x"})
    assert (type(failed), failed.code, failed.index) == (Unrendered, "action.unrendered", 0)
    assert (type(wrong), wrong.index) == (Unrendered, 1)
    assert isinstance(good, IntendedEvent)


@pytest.mark.parametrize("expression", ["1.0 / 0.0", "-1.0 / 0.0", "0.0 / 0.0", "[1.0 / 0.0]", "{'x': 0.0 / 0.0}"])
def test_a_number_that_json_does_not_have_is_refused(expression: str) -> None:
    for value in (f"{{{{ {expression} }}}}", f"about {{{{ {expression} }}}}"):
        (found,) = intended({"start-workflow": {"id": "w", "input": {"number": value}}})
        assert isinstance(found, Unrendered)
        assert (found.code, found.message.partition("JSON has no ")[2] in {"inf", "-inf", "nan"}) == ("action.unrendered", True)


def test_only_the_first_saying_acts() -> None:
    of = rule({"emit": "x"})
    for change in ({"revision": 1}, {"revision": 1, "retracted": True}):
        assert render(of, replace(said(of), **change), []) == []  # type: ignore[arg-type]
