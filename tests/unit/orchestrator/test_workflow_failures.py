"""What follows from failures: retries, time-outs, fallbacks, people, compensations."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.definition import RetryPolicy
from services.orchestrator.retries import delay_ms, is_retryable
from services.orchestrator.state import Error
from tests.unit.orchestrator.conftest import Run, error, falling_back, operation, result, retrying, started_at_ms, statuses, types, workflow

# --- retries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (RetryPolicy(strategy="fixed", initial_interval_ms=300), [300, 300, 300]),
        (RetryPolicy(strategy="linear", initial_interval_ms=300), [300, 600, 900]),
        (RetryPolicy(initial_interval_ms=1000, multiplier=1.2), [1000, 1200, 1440]),
        (RetryPolicy(), [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000]),
        (RetryPolicy(initial_interval_ms=0), [0, 0]),
    ],
)
def test_delays(policy: RetryPolicy, delays: list[int]) -> None:
    assert [delay_ms(policy, retry, "") for retry in range(1, len(delays) + 1)] == delays


def test_the_delay_of_the_millionth_retry_is_found_at_once() -> None:
    assert delay_ms(RetryPolicy(), 1_000_000, "") == 60_000
    assert delay_ms(RetryPolicy(multiplier=0.5), 1_000_000, "") == 0


def test_jitter_is_decided_by_execution_step_and_attempt() -> None:
    policy = RetryPolicy(strategy="fixed", initial_interval_ms=10_000, jitter=0.5)
    # Computed here another way: 64 bits of the digest less the last 11, and the product rounded up before it is taken off.
    import hashlib

    unit = int.from_bytes(hashlib.sha256(b"e/s/1").digest()[:8], "big") >> 11
    assert delay_ms(policy, 1, "e/s/1") == 10_000 - -(-5_000 * unit // 2**53)
    assert delay_ms(policy, 1, "e/s/1") != delay_ms(policy, 1, "e/s/2")


@pytest.mark.parametrize(
    ("code", "flag", "retryable", "non_retryable", "expected"),
    [
        ("odd", True, (), (), True),
        ("odd", False, (), (), False),
        ("odd", False, ("odd",), (), True),
        ("odd", True, ("odd",), ("odd",), False),
        ("unavailable", False, (), (), True),
        ("timeout", False, (), ("timeout",), False),
        ("not-found", True, (), (), False),
        ("not-found", False, ("not-found",), (), True),
        ("reference.missing", True, (), (), False),
    ],
)
def test_what_is_worth_another_attempt(
    code: str, flag: bool, retryable: tuple[str, ...], non_retryable: tuple[str, ...], expected: bool
) -> None:
    policy = RetryPolicy(retryable=frozenset(retryable), non_retryable=frozenset(non_retryable))
    assert is_retryable(policy, Error(code=code, message="", retryable=flag)) is expected


def test_attempts_are_made_until_one_succeeds(run: Run) -> None:
    outcome = run(workflow(operation("a"), error_handling=retrying()), a=[error("unavailable"), error("unavailable"), result({"n": 1})])
    assert (outcome["status"], outcome["duration_ms"], outcome["steps"]["a"]["attempts"]) == ("completed", 3000, 3)
    assert types(outcome, "a") == ["step.started", "step.retried", "step.started", "step.retried", "step.started", "step.completed"]
    assert outcome["steps"]["a"]["error"] is None


def test_retries_end_and_the_last_error_counts(run: Run) -> None:
    outcome = run(workflow(operation("a", error_handling=retrying(max_retries=1))), a=[error("unavailable"), error("odd", retryable=True)])
    assert (outcome["status"], outcome["error"]["code"], outcome["steps"]["a"]["attempts"]) == ("failed", "odd", 2)


def test_without_a_policy_nothing_is_retried(run: Run) -> None:
    assert run(workflow(operation("a")), a=[error("unavailable")])["steps"]["a"]["attempts"] == 1


def test_a_container_tried_again_runs_all_of_it_again(run: Run) -> None:
    box = {
        "id": "box", "type": "parallel", "require": "all", "steps": [operation("good"), operation("bad")],
        "error-handling": retrying(retryable=["broken"], max_retries=1),
    }  # fmt: skip
    outcome = run(workflow(box), bad=[error(), result({"n": 2})], good=[result({"n": 1})])
    assert outcome["status"] == "completed"
    assert {name: step["attempts"] for name, step in outcome["steps"].items()} == {"box": 2, "good": 2, "bad": 2}


# --- time-outs --------------------------------------------------------------------------------------------------------


def test_default_time_outs(run: Run) -> None:
    box = {"id": "box", "type": "parallel", "steps": [operation("child")]}
    outcome = run(workflow(operation("a"), box), a=["never"], child=["never"])
    assert statuses(outcome) == {"a": "timed_out", "box": "completed", "child": "timed_out"}
    ended = {event["step_id"]: event["time"] for event in outcome["transitions"] if event["type"] == "step.timed_out"}
    assert (ended["a"][11:19], ended["child"][11:19]) == ("00:05:00", "00:00:30")
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "timeout")


def test_an_attempts_time_out_is_tried_again_and_the_steps_is_not(run: Run) -> None:
    step = operation(
        "a", attempt_timeout="2s", timeout="PT10S", error_handling=retrying(backoff_strategy="fixed", initial_interval="1s", max_retries=9)
    )
    outcome = run(workflow(step), a=["never"])
    assert [started_at_ms(outcome, "a", attempt) for attempt in (1, 2, 3, 4)] == [0, 3000, 6000, 9000]
    assert outcome["duration_ms"] == 10_000
    assert types(outcome, "a")[-1] == "step.timed_out"


def test_a_time_out_ends_a_step_between_two_attempts(run: Run) -> None:
    outcome = run(
        workflow(operation("a", timeout="5s", error_handling=retrying(initial_interval="1h", max_interval="1h"))), a=[error("unavailable")]
    )
    assert (outcome["duration_ms"], statuses(outcome)["a"], outcome["steps"]["a"]["attempts"]) == (5000, "timed_out", 1)


def test_an_answer_at_the_very_moment_of_a_time_out_counts(run: Run) -> None:
    assert run(workflow(operation("a", timeout="5s")), a=[result(after="5s")])["status"] == "completed"


def test_a_late_answer_is_recorded_and_ignored(run: Run) -> None:
    outcome = run(
        workflow(
            operation("a", timeout="5s", error_handling=falling_back({"condition": "timeout", "action": "skip"})), operation("b", "a")
        ),
        a=[result({"n": 1}, after="6s")],
        b=[result(after="9s")],
    )
    assert outcome["status"] == "completed"
    assert types(outcome, "a") == ["step.started", "fallback.applied", "step.skipped", "step.answered_late"]
    assert outcome["output"]["a"] is None


def test_a_container_that_times_out_cancels_what_is_inside(run: Run) -> None:
    box = {"id": "box", "type": "parallel", "timeout": "1s", "steps": [operation("slow")]}
    outcome = run(workflow(box), slow=[result(after="5s")])
    assert statuses(outcome) == {"box": "timed_out", "slow": "cancelled"}
    assert (outcome["status"], outcome["duration_ms"]) == ("failed", 1000)


def test_the_workflows_time_out_ends_everything_and_compensates(run: Run) -> None:
    steps = operation("a", compensation=operation("undo-a")), operation("b", "a")
    outcome = run(workflow(*steps, timeout="10s"), b=["never"], undo_a=[result(after="2s")])
    assert (outcome["status"], outcome["duration_ms"], outcome["compensated"]) == ("timed_out", 12_000, True)
    assert statuses(outcome) == {"a": "completed", "b": "cancelled", "undo-a": "completed"}


# --- fallbacks and people ---------------------------------------------------------------------------------------------


def test_the_first_fallback_whose_condition_holds_is_taken(run: Run) -> None:
    actions = falling_back(
        {"condition": "timeout", "action": "fail"},
        {"condition": "other.code", "action": "fail"},
        {"condition": "error.code == 'broken' && input.use", "action": "use-value", "value": {"from": "${execution.id}"}},
        {"condition": "error", "action": "skip"},
    )
    used = run(workflow(operation("a", error_handling=actions)), a=[error()], input={"use": True})
    assert used["output"] == {"a": {"from": "test"}}
    assert run(workflow(operation("a", error_handling=actions)), a=[error()], input={"use": False})["steps"]["a"]["status"] == "skipped"
    assert run(workflow(operation("a", error_handling=actions)), a=["never"])["status"] == "failed"


def test_run_step_takes_the_place_of_the_failed_one(run: Run) -> None:
    actions = falling_back({"condition": "error", "action": "run-step", "step": operation("other")})
    outcome = run(
        workflow(operation("a", error_handling=actions), operation("b", "a", parameters={"x": "${a.result.n}"})),
        a=[error()],
        other=[result({"n": 7})],
    )
    assert outcome["steps"]["b"]["parameters"] == {"x": 7}
    both = run(workflow(operation("a", error_handling=actions)), a=[error()], other=[error("worse")])
    assert (both["status"], both["error"]["code"]) == ("failed", "worse")


def test_a_steps_error_handling_overrides_the_workflows_by_part(run: Run) -> None:
    shared = {**retrying(max_retries=1, retryable=["broken"]), **falling_back({"condition": "error", "action": "skip"})}
    own = operation("a", error_handling=falling_back({"condition": "error", "action": "use-value", "value": 1}))
    outcome = run(workflow(own, operation("b"), error_handling=shared), a=[error()], b=[error()])
    assert outcome["output"] == {"a": 1, "b": None}
    assert outcome["steps"]["a"]["attempts"] == outcome["steps"]["b"]["attempts"] == 2


ESCALATING = {"error-handling": falling_back({"condition": "error", "action": "escalate-to-human"})}


@pytest.mark.parametrize(
    ("answer", "status", "output"),
    [
        ({"choice": "retry"}, "completed", {"n": 1}),
        ({"choice": "skip"}, "completed", None),
        ({"choice": "use-value", "value": [2]}, "completed", [2]),
        ({"choice": "fail", "why": "no"}, "failed", None),
    ],
)
def test_people_decide_about_a_failed_step(run: Run, answer: dict[str, Any], status: str, output: Any) -> None:
    step = {**operation("a", timeout="10s"), **ESCALATING}
    at = [
        {"time": "3d", "answer": {"step": "a", "by": "ann", **answer}},
        {"time": "4d", "answer": {"step": "a", "by": "bob", "choice": "skip"}},
    ]
    outcome = run(workflow(step), a=[error(), result({"n": 1}, after="5s")], at=at)
    assert outcome["status"] == status
    assert outcome["output"] == (None if status == "failed" else {"a": output})
    assert [event["data"]["code"] for event in outcome["transitions"] if event["type"] == "command.refused"] == [
        "approval.already-answered"
    ]
    if status == "failed":
        assert outcome["error"]["code"] == "broken"


def test_a_step_waits_for_people_without_any_time_out(run: Run) -> None:
    outcome = run(workflow({**operation("a", timeout="1s"), **ESCALATING}), a=["never"])
    assert (outcome["status"], statuses(outcome)["a"], outcome["duration_ms"]) == ("running", "waiting", None)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"step": "nowhere", "choice": "skip", "by": "ann"}, "approval.unknown"),
        ({"step": "a", "choice": "maybe", "by": "ann"}, "approval.choice"),
        ({"step": "a", "choice": "skip"}, "command.invalid"),
        ({"step": "a", "choice": "use-value", "by": "ann"}, "command.invalid"),
        ({"choice": "skip", "by": "ann"}, "command.invalid"),
    ],
)
def test_an_answer_that_fits_no_question_is_refused_and_changes_nothing(run: Run, answer: dict[str, Any], code: str) -> None:
    outcome = run(workflow({**operation("a"), **ESCALATING}), a=[error()], at=[{"time": "1m", "answer": answer}])
    assert [event["data"]["code"] for event in outcome["transitions"] if event["type"] == "command.refused"] == [code]
    assert statuses(outcome)["a"] == "waiting"


def test_an_escalation_may_have_a_deadline(run: Run) -> None:
    actions = falling_back({"condition": "error", "action": "escalate-to-human", "deadline": "1h"})
    outcome = run(workflow(operation("a", error_handling=actions)), a=[error()])
    assert (statuses(outcome)["a"], outcome["duration_ms"], outcome["status"]) == ("timed_out", 3_600_000, "failed")


def test_an_approval_has_its_choice_as_result(run: Run) -> None:
    ask = {"id": "ask", "type": "approval", "title": "May ${input.who}?", "choices": ["yes", "no"]}
    answer = {"step": "ask", "choice": "no", "by": "ann", "why": "because"}
    outcome = run(workflow(ask), input={"who": "we"}, at=[{"time": "1h", "answer": answer}])
    assert outcome["output"] == {"ask": {"choice": "no", "by": "ann", "why": "because"}}
    assert outcome["steps"]["ask"]["parameters"]["title"] == "May we?"


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ({"type": "expression", "expression": "input.gone > 1"}, "expression.failed"),
        ({"type": "step-result", "stepId": "a", "path": "gone", "operator": "eq", "value": 1}, "reference.missing"),
    ],
)
@pytest.mark.parametrize("action", [None, "skip"])
def test_a_condition_that_fails_cancels_both_branches(run: Run, condition: Any, code: str, action: str | None) -> None:
    inner = {"id": "box", "type": "parallel", "steps": [operation("deep")]}
    branches: dict[str, Any] = {"then": inner, "else": operation("other")}
    handling = {"error-handling": falling_back({"condition": "error", "action": action})} if action else {}
    choose = {"id": "choose", "type": "conditional", "dependencies": ["a"], "condition": condition, **branches, **handling}
    outcome = run(workflow(operation("a"), choose))
    ended = {name: statuses(outcome)[name] for name in ("choose", "box", "deep", "other")}
    assert ended == {"choose": "skipped" if action else "failed", "box": "cancelled", "deep": "cancelled", "other": "cancelled"}
    assert all(types(outcome, name) == ["step.cancelled"] for name in ("box", "deep", "other"))
    assert [event["data"]["error"]["code"] for event in outcome["transitions"] if event["type"] in ("step.failed", "fallback.applied")] == [
        code
    ]


def test_a_branch_that_was_cancelled_runs_when_people_try_again(run: Run) -> None:
    choose = {
        "id": "choose", "type": "conditional", "condition": {"type": "expression", "expression": "input.gone > 1"}, "then": operation("b"),
        "error-handling": falling_back({"condition": "error", "action": "escalate-to-human"}),
    }  # fmt: skip
    outcome = run(workflow(choose), at=[{"time": "1m", "answer": {"step": "choose", "choice": "retry", "by": "ann"}}])
    assert (statuses(outcome), outcome["steps"]["choose"]["attempts"]) == ({"choose": "waiting", "b": "cancelled"}, 2)


@pytest.mark.parametrize("action", [{"action": "skip"}, {"action": "use-value", "value": 1}])
def test_a_step_that_ended_well_by_a_fallback_has_no_error(run: Run, action: dict[str, Any]) -> None:
    outcome = run(workflow(operation("a", error_handling=falling_back({"condition": "error", **action}))), a=[error()])
    assert (outcome["status"], outcome["steps"]["a"]["error"]) == ("completed", None)


def test_the_step_of_the_workflows_own_fallback_does_not_fall_back_to_itself(run: Run) -> None:
    instead = {"id": "instead", "type": "module-operation", "module": "work", "operation": "instead"}
    handling = {
        **retrying(max_retries=1, initial_interval="1s"),
        **falling_back({"condition": "error", "action": "run-step", "step": instead}),
    }
    outcome = run(workflow(operation("a"), operation("b"), error_handling=handling), a=[error()], instead=[error("unavailable"), result(7)])
    assert (outcome["status"], outcome["output"]) == ("completed", {"a": 7, "b": {}})
    assert outcome["steps"]["a~instead"]["attempts"] == 2
    failing = run(workflow(operation("a"), error_handling=handling), a=[error()], instead=[error("worse")])
    assert (failing["status"], failing["error"]["code"], failing["steps"]["a~instead"]["attempts"]) == ("failed", "worse", 1)
