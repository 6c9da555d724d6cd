"""How executions end: compensations, cancel, and commands that change the course."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.orchestrator.conftest import Run, error, falling_back, operation, result, retrying, started_at_ms, statuses, workflow

# --- compensation and commands ----------------------------------------------------------------------------------------


def undone(id: str, *dependencies: str) -> dict[str, Any]:
    parameters = {"of": f"${{{id}.result.n}}"}
    return operation(
        id, *dependencies, compensation={"type": "module-operation", "module": "work", "operation": f"undo-{id}", "parameters": parameters}
    )


def test_completed_steps_are_undone_in_reverse_order_of_completion(run: Run) -> None:
    steps = undone("a"), undone("b"), operation("bad", "a", "b"), undone("never", "bad")
    outcome = run(
        workflow(*steps), a=[result({"n": 1}, after="2s")], b=[result({"n": 2}, after="1s")], bad=[error()],
        undo_a=[error("odd", after="1s")], undo_b=[result(after="3s")],
    )  # fmt: skip
    assert (outcome["status"], outcome["compensated"], outcome["duration_ms"]) == ("failed", "partly", 6000)
    records = [(event["type"], event["step_id"]) for event in outcome["transitions"] if event["type"].startswith("compensation.")]
    assert records == [
        ("compensation.started", "a"), ("compensation.failed", "a"), ("compensation.started", "b"), ("compensation.completed", "b"),
    ]  # fmt: skip
    assert outcome["steps"]["a~compensation"]["parameters"] == {"of": 1}
    assert outcome["transitions"][-1]["type"] == "execution.failed"
    assert {event["status"] for event in outcome["transitions"][:-1]} == {"running"}


def test_compensate_fails_the_execution_even_from_inside_a_parallel(run: Run) -> None:
    bad = operation("bad", error_handling=falling_back({"condition": "error", "action": "compensate"}))
    box = {"id": "box", "type": "parallel", "dependencies": ["a"], "steps": [bad, operation("slow")]}
    outcome = run(workflow(undone("a"), box, operation("after", "box")), a=[result({"n": 1})], bad=[error()], slow=[result(after="3s")])
    assert (outcome["status"], outcome["compensated"], outcome["duration_ms"]) == ("failed", True, 3000)
    assert statuses(outcome)["after"] == "cancelled"


def test_what_completed_before_a_container_was_tried_again_is_undone_too(run: Run) -> None:
    inner = {"id": "inner", "type": "parallel", "require": "all", "steps": [undone("a"), undone("b", "a"), operation("bad", "b")]}
    box = {**inner, "error-handling": retrying(max_retries=2, initial_interval="1s")}
    outcome = run(
        workflow(undone("first"), box), first=[result({"n": 0})], bad=[error(retryable=True)] * 3,
        a=[result({"n": 1}), result({"n": 2}), error()], b=[result({"n": 10}), result({"n": 20})],
        undo_a=[error("odd"), result()],
    )  # fmt: skip
    begun = [event for event in outcome["transitions"] if event["type"] == "step.started" and event["step_id"].endswith("~compensation")]
    assert [(event["step_id"], event["attempt"], event["data"]["parameters"]["of"]) for event in begun] == [
        ("b~compensation", 1, 20), ("a~compensation", 1, 2), ("b~compensation", 2, 10), ("a~compensation", 2, 1),
        ("first~compensation", 1, 0),
    ]  # fmt: skip
    records = [
        (event["type"].removeprefix("compensation."), event["step_id"], event["attempt"])
        for event in outcome["transitions"]
        if event["type"].startswith("compensation.")
    ]
    assert records == [
        ("started", "b", 2), ("completed", "b", 2), ("started", "a", 2), ("failed", "a", 2), ("started", "b", 1), ("completed", "b", 1),
        ("started", "a", 1), ("completed", "a", 1), ("started", "first", 1), ("completed", "first", 1),
    ]  # fmt: skip
    assert (outcome["status"], outcome["compensated"], statuses(outcome)["a"]) == ("failed", "partly", "failed")


def test_what_a_retried_container_did_twice_is_undone_twice_when_something_later_fails(run: Run) -> None:
    inner = {"id": "box", "type": "parallel", "require": "all", "steps": [undone("a"), operation("flaky", "a")]}
    box = {**inner, "error-handling": retrying(initial_interval="1s")}
    outcome = run(
        workflow(box, operation("bad", "box")),
        a=[result({"n": 1}), result({"n": 2})],
        flaky=[error(retryable=True), result()],
        bad=[error()],
    )
    begun = [event for event in outcome["transitions"] if event["type"] == "step.started" and event["step_id"] == "a~compensation"]
    assert [event["data"]["parameters"]["of"] for event in begun] == [2, 1]
    assert (outcome["compensated"], statuses(outcome)["a"], statuses(outcome)["box"]) == (True, "completed", "completed")


def test_cancel_ends_what_runs_waits_and_has_not_begun_and_then_compensates(run: Run) -> None:
    box = {"id": "box", "type": "parallel", "dependencies": ["a"], "steps": [operation("slow"), {"id": "w", "type": "wait", "for": "1h"}]}
    at = [{"time": "10s", "cancel": {"by": "ann", "why": "enough"}}, {"time": "11s", "cancel": {}}]
    outcome = run(workflow(undone("a"), box, operation("after", "box")), a=[result({"n": 1})], slow=[result(after="1m")], at=at)
    assert (outcome["status"], outcome["compensated"], outcome["duration_ms"]) == ("cancelled", True, 10_000)
    assert statuses(outcome) == {
        "a": "completed",
        "box": "cancelled",
        "slow": "cancelled",
        "w": "cancelled",
        "after": "cancelled",
        "a~compensation": "completed",
    }
    assert [event["data"]["code"] for event in outcome["transitions"] if event["type"] == "command.refused"] == ["execution.wrong-state"]


def test_a_pause_lets_running_steps_end_and_starts_nothing(run: Run) -> None:
    at = [{"time": "1s", "pause": {}}, {"time": "10s", "resume": {}}]
    outcome = run(workflow(operation("a"), operation("b", "a")), a=[result(after="2s")], b=[result(after="3s")], at=at)
    assert (started_at_ms(outcome, "b"), outcome["duration_ms"]) == (10_000, 13_000)
    paused = run(workflow(operation("a"), operation("b", "a")), a=[result(after="2s")], at=at[:1])
    assert (paused["status"], statuses(paused)) == ("paused", {"a": "completed", "b": "pending"})


def test_delays_and_waits_stand_still_in_a_pause_and_time_outs_of_attempts_do_not(run: Run) -> None:
    steps = (
        operation("retried", error_handling=retrying(initial_interval="5s")),
        {"id": "wait", "type": "wait", "for": "20s"},
        operation("hangs", timeout="8s", error_handling=falling_back({"condition": "timeout", "action": "skip"})),
    )
    at = [{"time": "2s", "pause": {}}, {"time": "1h", "resume": {}}]
    outcome = run(workflow(*steps), retried=[error("unavailable"), result()], hangs=["never"], at=at)
    assert started_at_ms(outcome, "retried", 2) == 3_600_000 + 3000
    assert outcome["duration_ms"] == 3_600_000 + 18_000
    skipped = next(event for event in outcome["transitions"] if event["type"] == "step.skipped")
    assert skipped["time"][11:19] == "00:00:08"


def test_what_follows_from_a_failure_follows_after_the_resume(run: Run) -> None:
    at = [{"time": "1s", "pause": {}}, {"time": "10s", "resume": {}}]
    outcome = run(
        workflow(operation("bad"), operation("later", "slow"), operation("slow")), bad=[error(after="2s")], slow=[result(after="3s")], at=at
    )
    cancelled = next(event for event in outcome["transitions"] if event["type"] == "step.cancelled")
    assert (cancelled["step_id"], cancelled["time"][11:19]) == ("later", "00:00:10")
    assert (outcome["status"], outcome["duration_ms"]) == ("failed", 10_000)


def test_a_paused_execution_can_be_cancelled(run: Run) -> None:
    outcome = run(
        workflow(undone("a"), operation("b", "a")),
        a=[result({"n": 1})],
        b=["never"],
        at=[{"time": "1s", "pause": {}}, {"time": "2s", "cancel": {}}],
    )
    assert (outcome["status"], outcome["compensated"], outcome["duration_ms"]) == ("cancelled", True, 2000)
    assert statuses(outcome)["a~compensation"] == "completed"


@pytest.mark.parametrize("name", ["resume", "pause"])
def test_commands_in_a_wrong_state_are_refused(run: Run, name: str) -> None:
    at = [{"time": "1s", "pause": {}}] if name == "pause" else []
    outcome = run(workflow(operation("a")), a=["never"], at=[*at, {"time": "2s", name: {}}])
    assert [event["data"]["code"] for event in outcome["transitions"] if event["type"] == "command.refused"] == ["execution.wrong-state"]
