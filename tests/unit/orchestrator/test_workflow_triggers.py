"""Triggers of a definition: their shape, and what may be wrong with them."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.definitions import parse, validate
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
