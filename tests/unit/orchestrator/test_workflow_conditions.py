"""Conditions that a module answers: what it is asked, what its answer chooses, and what its failure means."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.definitions import validate
from tests.unit.orchestrator.conftest import Run, error, operation, result, retrying, started_at_ms, statuses, types, workflow

OPERATIONS = {"work": ("a", "b", "c", "check")}


def choice(*dependencies: str, handler: str = "work.check", **fields: Any) -> dict[str, Any]:
    return {
        "id": "choice", "type": "conditional", "condition": {"type": "custom", "handler": handler}, "dependencies": list(dependencies),
        "then": operation("b"), "else": operation("c"), **{name.replace("_", "-"): value for name, value in fields.items()},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "taken", "left"), [(True, "b", "c"), (False, "c", "b"), ({"value": True}, "b", "c"), ({"value": False, "x": 1}, "c", "b")]
)
def test_the_answer_chooses_the_branch(run: Run, answer: Any, taken: str, left: str) -> None:
    outcome = run(workflow(choice()), check=[result(answer)], **{taken: [result("done")]})
    assert outcome["status"] == "completed"
    assert statuses(outcome) == {"choice": "completed", taken: "completed", left: "skipped"}
    assert outcome["steps"]["choice"]["result"] == "done"
    assert types(outcome, "choice") == ["step.started", "condition.answered", "step.completed"]


def test_without_an_else_a_false_answer_completes_with_null(run: Run) -> None:
    step = choice()
    del step["else"]
    outcome = run(workflow(step), check=[{"result": False}])
    assert (outcome["status"], outcome["output"], statuses(outcome)["b"]) == ("completed", {"choice": None}, "skipped")


def test_it_is_asked_what_is_certain_to_have_ended(run: Run) -> None:
    outcome = run(workflow(operation("a"), operation("late"), choice("a")), input={"n": 1}, a=[result(5)], check=[result(True)])
    asked = next(event for event in outcome["transitions"] if event["type"] == "step.started" and event["step_id"] == "choice")
    assert asked["data"]["parameters"] == {"input": {"n": 1}, "steps": {"a": {"status": "completed", "result": 5}}}
    assert (asked["data"]["module"], asked["data"]["operation"]) == ("work", "check")


def test_what_is_no_truth_value_fails_the_step(run: Run) -> None:
    for answer in ({}, "true", 1, {"value": 1}, {"value": None}):
        outcome = run(workflow(choice()), check=[{"result": answer}])
        assert outcome["status"] == "failed"
        assert outcome["steps"]["choice"]["error"]["code"] == "invalid"
        assert statuses(outcome) == {"choice": "failed", "b": "cancelled", "c": "cancelled"}


def test_its_errors_are_retried_and_fallen_back_from(run: Run) -> None:
    handling = retrying(max_retries=1, initial_interval="1s") | {
        "fallback-actions": [{"condition": "error", "action": "use-value", "value": 7}]
    }
    again = run(workflow(choice(error_handling=handling)), check=[error("unavailable"), result(True)])
    assert (again["status"], again["steps"]["choice"]["attempts"], started_at_ms(again, "b")) == ("completed", 2, 1000)
    never = run(workflow(choice(error_handling=handling)), check=[error("unavailable")])
    assert (never["status"], never["output"]) == ("completed", {"choice": 7})


def test_a_question_has_the_patience_of_a_module_operation_and_the_branch_has_not(run: Run) -> None:
    silent = run(workflow(choice()), check=["never"])
    assert (silent["status"], silent["duration_ms"], statuses(silent)["choice"]) == ("failed", 300_000, "timed_out")
    slow = run(workflow(choice()), check=[result(True, after="4m")], b=[result(after="4m")])
    assert (slow["status"], slow["duration_ms"]) == ("completed", 480_000)
    own = run(workflow(choice(attempt_timeout="5m")), check=[result(True, after="4m")], b=[result(after="4m")])
    assert (own["status"], own["duration_ms"], statuses(own)["choice"]) == ("failed", 300_000, "timed_out")


def test_an_answer_in_a_pause_is_kept_and_the_branch_begins_after_it(run: Run) -> None:
    at = [{"time": "1s", "pause": {}}, {"time": "10s", "resume": {}}]
    outcome = run(workflow(choice()), at=at, check=[result(True, after="5s")])
    assert (outcome["status"], started_at_ms(outcome, "b")) == ("completed", 10_000)


def test_a_cancelled_question_is_not_answered_any_more(run: Run) -> None:
    outcome = run(workflow(choice()), at=[{"time": "1s", "cancel": {}}], check=[result(True, after="5s")])
    assert outcome["status"] == "cancelled"
    assert types(outcome, "choice")[-1] == "step.answered_late"
    assert statuses(outcome) == {"choice": "cancelled", "b": "cancelled", "c": "cancelled"}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"type": "custom", "handler": "work.check"}, set()),
        ({"type": "custom", "handler": "kitchen.check"}, {("module.unknown", "/steps/0/condition/handler")}),
        ({"type": "custom", "handler": "work.bake"}, {("operation.unknown", "/steps/0/condition/handler")}),
        ({"type": "custom", "handler": "check"}, {("schema.pattern", "/steps/0/condition/handler")}),
        ({"type": "custom"}, {("schema.required", "/steps/0/condition")}),
        ({"type": "custom", "handler": "work.check", "x": 1}, {("schema.additionalProperties", "/steps/0/condition/x")}),
        ({"type": "oracle", "handler": "work.check"}, {("schema.enum", "/steps/0/condition/type")}),
    ],
)
def test_what_may_be_wrong_with_it(condition: Any, expected: set[tuple[str, str]]) -> None:
    found = validate(workflow({**choice(), "condition": condition}), OPERATIONS)
    assert {(fault.code, fault.pointer) for fault in found} == expected


def test_an_unknown_type_of_condition_is_named() -> None:
    (fault,) = validate(workflow({**choice(), "condition": {"type": "oracle"}}), OPERATIONS)
    assert "oracle" in fault.message
