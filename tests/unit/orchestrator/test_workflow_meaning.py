"""The description of the language read sentence by sentence, where it says when: times are exact to the millisecond."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.orchestrator.conftest import Run, error, falling_back, operation, result, retrying, started_at_ms, statuses, types, workflow


def parallel(id: str, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": id, "type": "parallel", "steps": list(steps), **{name.replace("_", "-"): value for name, value in fields.items()}}


def wait(id: str, span: str, *dependencies: str) -> dict[str, Any]:
    return {"id": id, "type": "wait", "for": span, "dependencies": list(dependencies)}


def test_a_step_that_is_between_two_attempts_keeps_its_place_under_a_limit(run: Run) -> None:
    outcome = run(
        workflow(operation("a", error_handling=retrying(initial_interval="5s")), operation("b"), max_concurrency=1),
        a=[error("unavailable", after="1s"), result(after="1s")],
    )
    assert started_at_ms(outcome, "b") == 7000


def test_a_limit_counts_the_steps_of_its_own_list_not_what_is_inside_them(run: Run) -> None:
    box = parallel("box", *(wait(f"w{number}", "1s") for number in range(3)))
    outcome = run(workflow(box, wait("after", "1s"), max_concurrency=1))
    assert [started_at_ms(outcome, step) for step in ("w0", "w1", "w2", "after")] == [0, 0, 0, 1000]


def test_at_one_moment_answers_come_before_commands_and_commands_before_timers(run: Run) -> None:
    moment = {"time": "5s", "pause": {}}
    outcome = run(workflow(operation("a", timeout="5s"), wait("w", "5s"), operation("b", "a")), a=[result(after="5s")], at=[moment])
    assert statuses(outcome) == {"a": "completed", "w": "waiting", "b": "completed"}
    order = [event["type"] for event in outcome["transitions"] if event["time"][17:19] == "05"]
    assert order == ["step.completed", "step.started", "step.completed", "execution.paused"]


def test_a_failed_step_fails_its_list_whether_or_not_another_depends_on_it(run: Run) -> None:
    outcome = run(
        workflow(operation("bad"), operation("slow"), operation("later", "slow")), bad=[error(after="1s")], slow=[result(after="9s")]
    )
    assert statuses(outcome) == {"bad": "failed", "slow": "completed", "later": "cancelled"}
    assert (outcome["status"], outcome["duration_ms"]) == ("failed", 9000)


def test_after_a_failure_nothing_is_tried_again_and_loud_fallbacks_are_not_taken(run: Run) -> None:
    steps = (
        operation("bad"),
        operation("between", error_handling=retrying(initial_interval="1m")),
        operation("asks", error_handling=falling_back({"condition": "error", "action": "escalate-to-human"})),
        operation("skips", error_handling=falling_back({"condition": "error", "action": "skip"})),
    )
    outcome = run(
        workflow(*steps),
        bad=[error(after="2s")],
        between=[error("unavailable", after="1s")],
        asks=[error(after="3s")],
        skips=[error(after="4s")],
    )
    assert statuses(outcome) == {"bad": "failed", "between": "cancelled", "asks": "failed", "skips": "skipped"}
    assert outcome["duration_ms"] == 4000


def test_on_failure_cancel_ends_what_runs_at_once(run: Run) -> None:
    outcome = run(workflow(operation("bad"), operation("slow"), on_failure="cancel"), bad=[error(after="1s")], slow=[result(after="9s")])
    assert (statuses(outcome)["slow"], outcome["duration_ms"]) == ("cancelled", 1000)


@pytest.mark.parametrize(
    ("fields", "ends", "status"), [({}, 9000, "completed"), ({"require": "all"}, 9000, "failed"), ({"fail_fast": True}, 1000, "failed")]
)
def test_a_parallel_ends_with_the_last_or_at_the_first_rejection(run: Run, fields: dict[str, Any], ends: int, status: str) -> None:
    outcome = run(
        workflow(parallel("box", operation("bad"), operation("slow"), **fields)), bad=[error(after="1s")], slow=[result(7, after="9s")]
    )
    assert (outcome["status"], outcome["duration_ms"], outcome["steps"]["box"]["status"]) == (status, ends, status)
    if status == "completed":
        broken = {"code": "broken", "message": "broken!", "retryable": False}
        assert outcome["output"]["box"] == {
            "status": "completed",
            "results": [
                {"stepId": "bad", "status": "rejected", "value": None, "error": broken},
                {"stepId": "slow", "status": "fulfilled", "value": 7, "error": None},
            ],
        }
    else:
        assert outcome["steps"]["box"]["error"]["code"] == "broken"


def test_without_a_timeout_an_operation_has_five_minutes_and_thirty_seconds_in_a_parallel(run: Run) -> None:
    outcome = run(workflow(parallel("box", operation("inner")), operation("outer")), inner=["never"], outer=["never"])
    ends = {event["step_id"]: event["time"][11:19] for event in outcome["transitions"] if event["type"] == "step.timed_out"}
    assert ends == {"inner": "00:00:30", "outer": "00:05:00"}


def test_an_attempts_time_out_is_retried_and_the_last_ones_makes_the_step_timed_out(run: Run) -> None:
    step = operation("a", attempt_timeout="2s", error_handling=retrying(max_retries=2, backoff_strategy="fixed", initial_interval="3s"))
    outcome = run(workflow(step), a=["never"])
    assert (outcome["status"], outcome["duration_ms"]) == ("failed", 3 * 2000 + 2 * 3000)
    assert (outcome["steps"]["a"]["status"], outcome["steps"]["a"]["attempts"]) == ("timed_out", 3)


def test_a_steps_timeout_spans_attempts_and_delays_and_ends_it_between_two_attempts(run: Run) -> None:
    outcome = run(
        workflow(operation("a", timeout="2s", error_handling=retrying(initial_interval="1m"))), a=[error("unavailable", after="1s")]
    )
    assert (outcome["steps"]["a"]["status"], outcome["steps"]["a"]["attempts"], outcome["duration_ms"]) == ("timed_out", 1, 2000)


def test_the_workflows_timeout_counts_from_the_start_pauses_included(run: Run) -> None:
    undo = {"type": "module-operation", "module": "work", "operation": "undo"}
    outcome = run(
        workflow(operation("a", compensation=undo), wait("w", "1h"), timeout="10s"),
        undo=[result(after="3s")],
        at=[{"time": "2s", "pause": {}}],
    )
    assert (outcome["status"], outcome["compensated"], outcome["duration_ms"]) == ("timed_out", True, 13_000)
    assert (statuses(outcome)["w"], outcome["error"]["code"]) == ("cancelled", "timeout")


def test_while_a_step_waits_for_a_human_its_time_outs_stand_still(run: Run) -> None:
    step = operation("a", timeout="10s", error_handling=falling_back({"condition": "error", "action": "escalate-to-human"}))
    at = [{"time": "2h", "answer": {"step": "a", "choice": "retry", "by": "ann"}}]
    outcome = run(workflow(step), a=[error(after="4s"), result(after="9s")], at=at)
    # After the answer the step begins anew: ten seconds again.
    assert (outcome["status"], outcome["duration_ms"]) == ("completed", 7_200_000 + 9000)
    assert outcome["steps"]["a"]["attempts"] == 2


def test_after_a_persons_retry_the_retries_count_anew(run: Run) -> None:
    handling = {**retrying(max_retries=1, initial_interval="1s"), **falling_back({"condition": "error", "action": "escalate-to-human"})}
    at = [{"time": "1h", "answer": {"step": "a", "choice": "retry", "by": "ann"}}]
    outcome = run(workflow(operation("a", error_handling=handling)), a=[error("unavailable")] * 3 + [result(1)], at=at)
    assert (outcome["status"], outcome["steps"]["a"]["attempts"], outcome["duration_ms"]) == ("completed", 4, 3_600_000 + 1000)


def test_a_late_answer_is_recorded_and_ignored(run: Run) -> None:
    outcome = run(
        workflow(operation("a", timeout="1s", error_handling=falling_back({"condition": "timeout", "action": "skip"}))),
        a=[result(7, after="5s")],
    )
    assert (outcome["status"], outcome["duration_ms"], outcome["steps"]["a"]["status"]) == ("completed", 1000, "skipped")
    assert types(outcome, "a")[-1] == "step.answered_late"


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        ({"backoff-strategy": "fixed", "initial-interval": 700}, [700, 700, 700]),
        ({"backoff-strategy": "linear", "initial-interval": 700}, [700, 1400, 2100]),
        ({"initial-interval": 700, "multiplier": 3}, [700, 2100, 6300]),
        ({}, [1000, 2000, 4000]),
        ({"initial-interval": "40s"}, [40_000, 60_000, 60_000]),
        ({"initial-interval": 0}, [0, 0, 0]),
    ],
)
def test_delays_before_retries(run: Run, policy: dict[str, Any], delays: list[int]) -> None:
    outcome = run(workflow(operation("a", error_handling={"retry-policy": policy})), a=[error("unavailable")])
    assert [event["data"]["delay_ms"] for event in outcome["transitions"] if event["type"] == "step.retried"] == delays
    assert outcome["duration_ms"] == sum(delays)


def test_what_the_policy_names_wins_over_the_code_and_the_code_over_the_flag(run: Run) -> None:
    def attempts(code: str, *, flag: bool = False, **policy: Any) -> int:
        step = operation("a", error_handling={"retry-policy": {"max-retries": 1, **policy}})
        return int(run(workflow(step), a=[error(code, retryable=flag)])["steps"]["a"]["attempts"])

    assert attempts("broken") == 1
    assert attempts("broken", flag=True) == 2
    assert attempts("denied", flag=True) == 1
    assert attempts("denied", retryable=["denied"]) == 2
    assert attempts("unavailable") == 2
    assert attempts("unavailable", **{"non-retryable": ["unavailable"], "retryable": ["unavailable"]}) == 1


@pytest.mark.parametrize("late", [False, True])
def test_an_approvals_answer_counts_once(run: Run, late: bool) -> None:
    ask = {"id": "ask", "type": "approval", "deadline": "1h"}
    answers = [{"time": "2h" if late else f"{minute}m", "answer": {"step": "ask", "choice": "reject", "by": "ann"}} for minute in (1, 2)]
    outcome = run(workflow(ask, wait("w", "3h")), at=answers)
    codes = [event["data"]["code"] for event in outcome["transitions"] if event["type"] == "command.refused"]
    if late:
        assert (statuses(outcome)["ask"], codes) == ("timed_out", ["approval.unknown"] * 2)
    else:
        assert (outcome["steps"]["ask"]["result"], codes) == ({"choice": "reject", "by": "ann"}, ["approval.already-answered"])


def test_a_wait_until_does_not_move_in_a_pause_and_one_that_is_over_ends_at_once(run: Run) -> None:
    until = {"id": "until", "type": "wait", "until": "2026-01-01T01:00:00Z"}
    over = {"id": "over", "type": "wait", "until": "2025-01-01T00:00:00+02:00", "dependencies": ["until"]}
    at = [{"time": "10m", "pause": {}}, {"time": "30m", "resume": {}}]
    assert run(workflow(until, over, wait("for", "1h")), at=at)["duration_ms"] == 4_800_000
    assert run(workflow(until, over), at=at)["duration_ms"] == 3_600_000
    assert run(workflow(until, over), at=[at[0], {"time": "2h", "resume": {}}])["duration_ms"] == 7_200_000


@pytest.mark.parametrize("ended", ["completed", "cancelled"])
@pytest.mark.parametrize("command", ["pause", "resume", "cancel", "answer"])
def test_what_has_ended_refuses_commands_and_nothing_changes(run: Run, ended: str, command: str) -> None:
    data = {"step": "a", "choice": "approve", "by": "ann"} if command == "answer" else {}
    at = [{"time": "1s", "cancel": {}}] if ended == "cancelled" else []
    outcome = run(workflow(operation("a")), a=[result(after="5s")], at=[*at, {"time": "10s", command: data}])
    assert outcome["status"] == ended
    last = outcome["transitions"][-1]
    assert (last["type"], last["data"]["command"], last["status"]) == ("command.refused", command, ended)
    assert last["data"]["code"] in ("execution.wrong-state", "approval.unknown")
