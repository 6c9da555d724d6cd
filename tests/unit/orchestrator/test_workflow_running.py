"""How a workflow runs: order, references, containers, limits, failure. Given a definition and answers, then what the log says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.orchestrator.trial import run_scenario
from streams import limits
from tests.unit.orchestrator.conftest import Run, error, falling_back, operation, result, started_at_ms, statuses, types, workflow

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "multi-agent-collaboration.json"


ANSWERS = {
    "context.create-context": [result({"contextId": "c"}, after="1s")],
    "role.assign-roles": [result({"assignments": ["r"]}, after="1s")],
    "plan.create-plan": [result({"planId": "p"}, after="1s")],
    "trace.start-monitoring": [result({"traceId": "t"}, after="1s")],
    "dialog.facilitate-communication": [result({"dialogId": "d"}, after="2s")],
}


def test_the_example_runs_to_completed() -> None:
    outcome = run_scenario(json.loads(EXAMPLE.read_text()), {"modules": ANSWERS})
    assert (outcome["status"], outcome["duration_ms"]) == ("completed", 5000)
    assert outcome["steps"]["plan-creation"]["parameters"] == {"contextId": "c", "assignedRoles": ["r"]}
    assert [item["value"] for item in outcome["output"]["execution-monitoring"]["results"]] == [{"traceId": "t"}, {"dialogId": "d"}]


def test_order_comes_from_dependencies_only(run: Run) -> None:
    outcome = run(workflow(operation("b", "a"), operation("a"), operation("c")), a=[result(after="1s")], c=[result(after="2s")])
    assert outcome["status"] == "completed"
    assert [started_at_ms(outcome, step) for step in ("a", "b", "c")] == [0, 1000, 0]
    assert outcome["duration_ms"] == 2000


def test_references_keep_types_alone_and_become_text_inside_a_text(run: Run) -> None:
    parameters = {
        "list": "${a.result.items}",
        "first": "${a.result.items[0].n}",
        "text": "n=${a.result.items[0].n}, ${input.who}, ${a.result.items}, $${literal}",
        "id": "${execution.id}",
        "key": '${a.result["odd key"]}',
    }
    outcome = run(
        workflow(operation("a"), operation("b", "a", parameters=parameters)),
        a=[result({"items": [{"n": 1.5}], "odd key": None})],
        input={"who": "you"},
    )
    assert outcome["steps"]["b"]["parameters"] == {
        "list": [{"n": 1.5}],
        "first": 1.5,
        "text": 'n=1.5, you, [{"n":1.5}], ${literal}',
        "id": "test",
        "key": None,
    }


def test_a_missing_path_is_an_error_of_the_step_and_is_not_tried_again(run: Run) -> None:
    retry = {"retry-policy": {"retryable": []}}
    outcome = run(workflow(operation("a"), operation("b", "a", parameters={"x": "${a.result.x}"}, error_handling=retry)))
    assert outcome["status"] == "failed"
    assert outcome["steps"]["b"]["error"]["code"] == outcome["error"]["code"] == "reference.missing"
    assert types(outcome, "b") == ["step.started", "step.failed"]


def test_a_skipped_step_is_null_and_has_nothing_below(run: Run) -> None:
    skip = {"fallback-actions": [{"condition": "error", "action": "skip"}]}
    whole = run(workflow(operation("a", error_handling=skip), operation("b", "a", parameters={"x": "${a.result}"})), a=[error()])
    assert whole["status"] == "completed"
    assert whole["steps"]["b"]["parameters"] == {"x": None}
    below = run(workflow(operation("a", error_handling=skip), operation("b", "a", parameters={"x": "${a.result.y}"})), a=[error()])
    assert below["steps"]["b"]["error"]["code"] == "reference.missing"


def test_under_a_limit_steps_start_in_the_order_in_which_they_became_ready(run: Run) -> None:
    steps = [operation("late", "first"), operation("x"), operation("first"), operation("y")]
    outcome = run(workflow(*steps, max_concurrency=1), x=[result(after="1s")], first=[result(after="1s")], y=[result(after="1s")])
    order = [event["step_id"] for event in outcome["transitions"] if event["type"] == "step.started"]
    assert order == ["x", "first", "y", "late"], "late became ready after y, although it stands before it"
    assert "step.scheduled" in types(outcome, "y")


def test_a_parallel_gathers_outcomes_and_completes_although_a_child_was_rejected(run: Run) -> None:
    both = {"id": "both", "type": "parallel", "steps": [operation("good"), operation("bad")]}
    after = operation("after", "both", parameters={"all": "${both.result}", "one": "${good.result.n}"})
    outcome = run(workflow(both, after), good=[result({"n": 1}, after="1s")], bad=[error()])
    assert outcome["status"] == "completed"
    rejected = {"code": "broken", "message": "broken!", "retryable": False}
    assert outcome["steps"]["after"]["parameters"] == {
        "all": {
            "status": "completed",
            "results": [
                {"stepId": "good", "status": "fulfilled", "value": {"n": 1}, "error": None},
                {"stepId": "bad", "status": "rejected", "value": None, "error": rejected},
            ],
        },
        "one": 1,
    }


def test_a_child_whose_dependency_was_rejected_is_cancelled_and_the_others_go_on(run: Run) -> None:
    both = {"id": "both", "type": "parallel", "steps": [operation("bad"), operation("after-bad", "bad"), operation("good")]}
    outcome = run(workflow(both), bad=[error()], good=[result(after="1s")])
    assert statuses(outcome) == {"both": "completed", "bad": "failed", "after-bad": "cancelled", "good": "completed"}
    assert outcome["output"]["both"]["results"][1]["error"]["code"] == "dependency.failed"


def test_fail_fast_cancels_the_others_at_once(run: Run) -> None:
    both = {"id": "both", "type": "parallel", "fail-fast": True, "steps": [operation("bad"), operation("slow")]}
    outcome = run(workflow(both), bad=[error(after="1s")], slow=[result(after="10s")])
    assert statuses(outcome) == {"both": "failed", "bad": "failed", "slow": "cancelled"}
    assert (outcome["status"], outcome["duration_ms"], outcome["error"]["code"]) == ("failed", 1000, "broken")
    assert types(outcome, "slow")[-1] == "step.answered_late"


def test_require_all_lets_all_end_first(run: Run) -> None:
    both = {"id": "both", "type": "parallel", "require": "all", "steps": [operation("bad"), operation("slow")]}
    outcome = run(workflow(both), bad=[error(after="1s")], slow=[result(after="10s")])
    assert statuses(outcome) == {"both": "failed", "bad": "failed", "slow": "completed"}
    assert outcome["duration_ms"] == 10_000


@pytest.mark.parametrize(
    ("condition", "taken"),
    [
        ({"type": "expression", "expression": 'steps["a"].result.n > 1'}, True),
        ({"type": "expression", "expression": "steps.a.result.n == 2 && steps.a.status == 'completed'"}, True),
        ({"type": "step-result", "stepId": "a", "path": "n", "operator": "eq", "value": 2.0}, True),
        ({"type": "step-result", "stepId": "a", "path": "zero", "operator": "eq", "value": False}, False),
        ({"type": "step-result", "stepId": "a", "path": "list", "operator": "contains", "value": 1.0}, True),
        ({"type": "step-result", "stepId": "a", "path": "list[0]", "operator": "in", "value": [True, "1"]}, False),
        ({"type": "step-result", "stepId": "a", "path": "text", "operator": "contains", "value": "b"}, True),
        ({"type": "step-result", "stepId": "a", "operator": "contains", "value": "nothing"}, True),
        ({"type": "step-result", "stepId": "a", "path": "nothing", "operator": "exists"}, True),
        ({"type": "step-result", "stepId": "a", "path": "nowhere", "operator": "exists"}, False),
        ({"type": "step-result", "stepId": "a", "path": "nowhere", "operator": "exists", "value": False}, True),
        ({"type": "step-result", "stepId": "a", "path": "text", "operator": "lt", "value": "abd"}, True),
        ({"type": "step-result", "stepId": "a", "path": "text", "operator": "lt", "value": 5}, False),
    ],
)
def test_a_conditional_takes_one_branch_and_skips_the_other(run: Run, condition: dict[str, Any], taken: bool) -> None:
    choose = {
        "id": "choose", "type": "conditional", "dependencies": ["a"], "condition": condition,
        "then": operation("yes"), "else": {"id": "no", "type": "parallel", "steps": [operation("inner")]},
    }  # fmt: skip
    data = {"n": 2, "zero": 0, "list": [1], "text": "abc", "nothing": None}
    outcome = run(workflow(operation("a"), choose), a=[result(data)], yes=[result({"was": "yes"})])
    assert outcome["status"] == "completed"
    assert (outcome["steps"]["yes"]["status"], outcome["steps"]["inner"]["status"]) == (
        ("completed", "skipped") if taken else ("skipped", "completed")
    )
    assert (outcome["output"]["choose"] == {"was": "yes"}) is taken


def test_a_conditional_without_else_has_no_result(run: Run) -> None:
    choose = {
        "id": "choose",
        "type": "conditional",
        "condition": {"type": "expression", "expression": "false"},
        "thenStep": operation("yes"),
    }
    outcome = run(workflow(choose))
    assert outcome["output"] == {"choose": None}
    assert statuses(outcome) == {"choose": "completed", "yes": "skipped"}


def test_an_expression_without_a_value_fails_its_step(run: Run) -> None:
    choose = {
        "id": "choose",
        "type": "conditional",
        "condition": {"type": "expression", "expression": "input.x > 1"},
        "then": operation("yes"),
    }
    assert run(workflow(choose))["error"]["code"] == "expression.failed"


def test_a_failed_step_lets_running_ones_end_and_starts_nothing_more(run: Run) -> None:
    outcome = run(
        workflow(operation("bad"), operation("slow"), operation("later", "slow")), bad=[error(after="1s")], slow=[result(after="5s")]
    )
    assert statuses(outcome) == {"bad": "failed", "slow": "completed", "later": "cancelled"}
    assert (outcome["status"], outcome["duration_ms"], outcome["error"]["code"]) == ("failed", 5000, "broken")


def test_on_failure_cancel_ends_at_once(run: Run) -> None:
    steps = operation("bad"), {"id": "box", "type": "parallel", "steps": [operation("slow")]}
    outcome = run(workflow(*steps, on_failure="cancel"), bad=[error(after="1s")], slow=[result(after="5s")])
    assert statuses(outcome) == {"bad": "failed", "box": "cancelled", "slow": "cancelled"}
    assert outcome["duration_ms"] == 1000


def test_inside_a_failing_workflow_nothing_is_tried_again_and_nothing_new_starts(run: Run) -> None:
    retry = {"retry-policy": {"initial-interval": "1m"}}
    box = {"id": "box", "type": "parallel", "max-concurrency": 1, "steps": [operation("slow", error_handling=retry), operation("queued")]}
    delayed = operation("delayed", error_handling=retry)
    outcome = run(
        workflow(operation("bad"), box, delayed),
        bad=[error(after="1s")],
        slow=[error("unavailable", after="5s")],
        delayed=[error("unavailable")],
    )
    assert statuses(outcome) == {"bad": "failed", "box": "cancelled", "slow": "failed", "queued": "cancelled", "delayed": "cancelled"}
    assert outcome["steps"]["delayed"]["attempts"] == outcome["steps"]["slow"]["attempts"] == 1


def test_output_names_references_expressions_and_values(run: Run) -> None:
    output = {
        "ref": "${a.result.n}",
        "text": "n is ${a.result.n}",
        "cel": "steps.a.result.n + 1",
        "value": [1, "x"],
        "inside": "${c.result}",
    }
    box = {"id": "box", "type": "parallel", "steps": [operation("c")]}
    outcome = run(workflow(operation("a"), box, output=output), a=[result({"n": 4})], c=[result("deep")])
    assert outcome["output"] == {"ref": 4, "text": "n is 4", "cel": 5, "value": [1, "x"], "inside": "deep"}


def test_an_output_that_leads_nowhere_fails_the_execution(run: Run) -> None:
    assert run(workflow(operation("a"), output={"x": "${a.result.x}"}))["error"]["code"] == "reference.missing"


def test_steps_without_modules(run: Run) -> None:
    steps = (
        {"id": "t", "type": "transform", "value": "input.n * 2"},
        {"id": "w", "type": "wait", "for": "${input.delay}", "dependencies": ["t"]},
        {"id": "e", "type": "emit", "event": {"type": "order.paid", "subject": "o-1", "data": {"n": "${t.result}"}}, "dependencies": ["w"]},
    )
    outcome = run(workflow(*steps), input={"n": 21, "delay": "2d"})
    assert outcome["duration_ms"] == 2 * 86_400_000
    assert outcome["events"] == [{"type": "order.paid", "severity": "info", "subject": "o-1", "data": {"n": 42}}]
    assert outcome["output"] == {"t": 42, "w": None, "e": None}


def test_waiting_until_a_time_that_is_over_ends_at_once(run: Run) -> None:
    over = {"id": "over", "type": "wait", "until": "2025-12-31T23:00:00-00:30"}
    ahead = {"id": "ahead", "type": "wait", "until": "2026-01-01T01:00:00+00:30"}
    assert run(workflow(over))["duration_ms"] == 0
    assert run(workflow(ahead))["duration_ms"] == 30 * 60_000


@pytest.mark.parametrize("spare", [0, 20, 200])
@pytest.mark.parametrize(
    "step",
    [
        operation("a", parameters={"one": "${input.big}"}),
        {"id": "a", "type": "approval", "title": "${input.big}"},
        {"id": "a", "type": "approval", "title": "${input.big} or ${input.big}", "assignees": ["${input.big}"]},
        operation("a", error_handling=falling_back({"condition": "error", "action": "escalate-to-human", "title": "${input.big}"})),
        operation("a", error_handling=falling_back({"condition": "error", "action": "escalate-to-human"})),
        {"id": "a", "type": "transform", "value": "input.big"},
    ],
)
def test_whatever_a_step_is_about_its_records_can_be_written(run: Run, step: dict[str, Any], spare: int) -> None:
    """One that cannot be is decided again and again, and nothing else in its partition."""
    big = "x" * (limits.PAYLOAD_BYTES_MAX - spare - 2)
    broken = {"error": {"code": "broken", "message": big, "retryable": False}}
    outcome = run(workflow(step), input={"big": big}, a=[broken])
    written = [len(orjson.dumps(event["data"])) for event in outcome["transitions"] if event["type"] != "execution.started"]
    assert max(written) <= limits.PAYLOAD_BYTES_MAX
    assert outcome["status"] in ("failed", "running")


def test_a_payload_that_is_too_large_fails_its_step(run: Run) -> None:
    big = "x" * 700_000
    outcome = run(workflow(operation("a", parameters={"one": "${input.big}", "two": "${input.big}"})), input={"big": big})
    assert outcome["error"]["code"] == "payload.too-large"


def test_long_chains_of_instant_steps_are_no_recursion(run: Run) -> None:
    steps = [{"id": f"t{n}", "type": "transform", "value": "1", "dependencies": [f"t{n - 1}"] if n else []} for n in range(300)]
    assert run(workflow(*steps))["status"] == "completed"
