"""`priority` and `resources`: what they change, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.definitions import validate
from tests.unit.orchestrator.conftest import Run, operation, result, workflow


def order(outcome: dict[str, Any]) -> list[str]:
    return [event["step_id"] for event in outcome["transitions"] if event["type"] == "step.started"]


def test_under_a_limit_the_greater_priority_starts_first(run: Run) -> None:
    steps = [operation("a"), operation("b", priority="low"), operation("c", priority="high"), operation("d", priority=11), operation("e")]
    outcome = run(workflow(*steps, max_concurrency=1), **{name: [result(after="1s")] for name in "abcde"})
    assert order(outcome) == ["d", "c", "a", "e", "b"]


def test_steps_of_equal_priority_start_as_they_became_ready(run: Run) -> None:
    # `late` is ready before `d`, which comes first in the list; `urgent` is ready last and overtakes both.
    steps = [
        operation("d", "b", priority=1), operation("a", priority=9), operation("b", priority=8), operation("late", "a", priority=1),
        operation("urgent", "b", priority="urgent"),
    ]  # fmt: skip
    answers = {"a": [result(after="1s")], "b": [result(after="2s")], "late": [result(after="1s")]}
    outcome = run(workflow(*steps, max_concurrency=1), **answers)
    assert order(outcome) == ["a", "b", "urgent", "late", "d"]


def test_the_workflows_priority_is_that_of_steps_without_one(run: Run) -> None:
    steps = [operation("a"), operation("b", priority="normal"), operation("c")]
    assert order(run(workflow(*steps, max_concurrency=1, priority="low"))) == ["b", "a", "c"]
    assert order(run(workflow(*steps, max_concurrency=1, priority="high"))) == ["a", "c", "b"]


def test_resources_are_recorded_with_each_attempt(run: Run) -> None:
    wanted = {"gpu": 1, "memory": "4Gi", "model": {"name": "large"}}
    outcome = run(workflow(operation("a", resources=wanted), resources={"budget": 12.5}))
    begun = {event["type"]: event["data"] for event in outcome["transitions"]}
    assert begun["step.started"]["resources"] == wanted
    assert begun["execution.started"]["resources"] == {"budget": 12.5}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"priority": "whenever"}, {("schema.enum", "/priority")}),
        ({"priority": 1.5}, {("schema.type", "/priority")}),
        ({"priority": None}, {("schema.type", "/priority")}),
        ({"resources": []}, {("schema.type", "/resources")}),
        ({"resources": {"gpu": 0}}, {("schema.exclusiveMinimum", "/resources/gpu")}),
        ({"resources": {"gpu": True}}, {("schema.type", "/resources/gpu")}),
        ({"resources": {"gpu": ""}}, {("schema.minLength", "/resources/gpu")}),
        ({"resources": {"gpu": {}}}, {("schema.minProperties", "/resources/gpu")}),
    ],
)
def test_what_may_be_wrong_with_them(fields: Any, expected: set[tuple[str, str]]) -> None:
    on_workflow = validate(workflow(operation("a")) | fields, {"work": ("a",)})
    on_step = validate(workflow(operation("a") | fields), {"work": ("a",)})
    assert {(fault.code, fault.pointer) for fault in on_workflow} == expected
    assert {(fault.code, fault.pointer) for fault in on_step} == {(code, f"/steps/0{pointer}") for code, pointer in expected}
