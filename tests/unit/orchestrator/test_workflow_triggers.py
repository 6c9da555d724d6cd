"""Triggers of a definition: their shape, and what may be wrong with them."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.definitions import parse, validate
from services.orchestrator.trial import run_scenario
from streams.errors import InvalidDocument, InvalidInput
from streams.schedules import Cron
from streams.triggers import CronTrigger, EventTrigger
from tests.unit.orchestrator.conftest import operation, workflow

OPERATIONS = {"work": ("a",)}


def triggered(*triggers: Any) -> dict[str, Any]:
    return workflow(operation("a"), triggers=list(triggers))


def test_they_are_read_with_their_defaults() -> None:
    found = parse(triggered({"event": "order.*"}, {"cron": "@daily", "timezone": "Europe/Berlin", "missed": "all", "input": 5}), OPERATIONS)
    assert found.triggers == (
        EventTrigger(index=0, event="order.*", where=None, topic="mplp.system.events", input={}),
        CronTrigger(index=1, cron=Cron("@daily", "Europe/Berlin"), missed="all", input=5),
    )


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        ({"event": "order.*", "where": "data.total > 100.0", "input": {"id": "${event.data.id}", "all": "${event}"}, "x-note": 1}, set()),
        ({"event": "order.*", "topic": "shop.orders", "description": "text"}, set()),
        ({"event": "sla.broken", "topic": "mplp.composite.events", "where": "confidence > 0.5 && rule_id == 'sla'"}, set()),
        ({"cron": "*/5 * * * *", "input": {"at": "${event.time}"}}, set()),
        ({}, {("schema.required", "")}),
        ("order.paid", {("schema.type", "")}),
        ({"event": "", "where": 1}, {("schema.minLength", "/event"), ("schema.type", "/where")}),
        ({"event": "a", "cron": "@daily"}, {("schema.additionalProperties", "/cron")}),
        ({"event": "a", "when": "true"}, {("schema.additionalProperties", "/when")}),
        ({"cron": "@daily", "where": "true"}, {("schema.additionalProperties", "/where")}),
        ({"event": "a", "where": "data.total >"}, {("expression.invalid", "/where")}),
        ({"event": "a", "where": "event.data.total > 1"}, {("expression.invalid", "/where")}),
        ({"event": "a", "where": "total(data) > 1"}, {("expression.invalid", "/where")}),
        ({"event": "a", "topic": "mplp.workflow.transitions"}, {("trigger.topic", "/topic")}),
        ({"event": "a", "topic": "mplp.control.rules"}, {("trigger.topic", "/topic")}),
        ({"cron": "every day"}, {("schema.format", "/cron")}),
        ({"cron": "0 0 30 2 *"}, {("schema.format", "/cron")}),
        ({"cron": "@daily", "timezone": "Mars/Olympus", "missed": "some"}, {("schema.format", "/timezone"), ("schema.enum", "/missed")}),
        ({"event": "a", "input": {"x": ["${input.y}"]}}, {("reference.unknown", "/input/x/0")}),
        ({"event": "a", "input": "${a.result}"}, {("reference.unknown", "/input")}),
        ({"event": "a", "input": {"x/y": "${event"}}, {("reference.syntax", "/input/x~1y")}),
    ],
)
def test_what_may_be_wrong_with_them(trigger: Any, expected: set[tuple[str, str]]) -> None:
    found = validate({"workflow": triggered({"event": "fine"}, trigger)}, OPERATIONS)
    assert {(fault.code, fault.pointer) for fault in found} == {(code, f"/workflow/triggers/1{pointer}") for code, pointer in expected}


ORDER = {"event": "order.*", "where": "data.total > 100.0", "input": {"id": "${event.data.id}"}}


def test_a_triggered_execution_sees_its_event() -> None:
    document = workflow(
        {"id": "a", "type": "transform", "value": "event.data.total > 1000.0 ? 'much' : 'little'"},
        triggers=[{"event": "bill.*"}, ORDER],
        output={"kind": "${a.result}", "who": "${event.subject}", "input": "${input}", "whole": "text ${event.data.id}"},
    )
    outcome = run_scenario(document, {"event": {"type": "order.paid", "subject": "ann", "data": {"id": "o-1", "total": 2000.0}}})
    assert outcome["output"] == {"kind": "much", "who": "ann", "input": {"id": "o-1"}, "whole": "text o-1"}
    started = outcome["transitions"][0]["data"]
    assert (started["trigger"], started["trigger_depth"], started["event"]["type"], started["input"]) == (1, 1, "order.paid", {"id": "o-1"})


def test_started_by_a_command_the_event_is_null() -> None:
    document = workflow(
        {"id": "a", "type": "transform", "value": "event == null"}, triggers=[ORDER], output={"a": "${a.result}", "e": "${event}"}
    )
    assert run_scenario(document, {})["output"] == {"a": True, "e": None}
    reading = workflow(operation("a", parameters={"x": "${event.data.x}"}), triggers=[ORDER])
    assert run_scenario(reading, {})["steps"]["a"]["error"]["code"] == "reference.missing"


@pytest.mark.parametrize("event", [{"type": "bill.sent", "data": {"total": 500}}, {"type": "order.paid", "data": {"total": 5}}, {}])
def test_an_event_that_no_trigger_takes_starts_nothing(event: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        run_scenario(triggered(ORDER), {"event": event})
    assert refused.value.code == "scenario.event"


def test_what_the_event_lacks_refuses_the_start() -> None:
    outcome = run_scenario(triggered(ORDER), {"event": {"type": "order.paid", "data": {"total": 500}}})
    (refused,) = outcome["transitions"]
    assert (refused["type"], refused["data"]["code"]) == ("command.refused", "reference.missing")


def test_input_and_event_exclude_each_other() -> None:
    with pytest.raises(InvalidDocument):
        run_scenario(triggered(ORDER), {"event": {"type": "order.paid"}, "input": {}})


def test_a_step_named_event_keeps_its_result() -> None:
    document = workflow({"id": "event", "type": "transform", "value": "5"}, operation("a", "event", parameters={"x": "${event.result}"}))
    assert run_scenario(document, {})["steps"]["a"]["parameters"] == {"x": 5}
