"""`retry` of a failed execution: what runs again, what stays, what is undone then."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.scenario import read_scenario
from services.orchestrator.simulation import Simulation
from tests.unit.orchestrator.conftest import Run, error, operation, result, retrying, statuses, types, workflow

UNDO: dict[str, Any] = {"type": "module-operation", "module": "work", "operation": "undo"}
RETRY = {"time": "1h", "retry": {"by": "ann"}}


def calls(outcome: dict[str, Any], step: str) -> int:
    return types(outcome, step).count("step.started")


def test_what_failed_runs_again_and_what_completed_stays(run: Run) -> None:
    document = workflow(
        operation("a"), operation("b", "a", error_handling=retrying(max_retries=1, initial_interval="1s")), operation("c", "b")
    )
    outcome = run(document, at=[RETRY], b=[error("unavailable"), error("unavailable"), error("unavailable"), result(2)])
    assert (outcome["status"], outcome["output"]) == ("completed", {"a": {}, "b": 2, "c": {}})
    assert {name: step["attempts"] for name, step in outcome["steps"].items()} == {"a": 1, "b": 4, "c": 1}
    assert outcome["steps"]["b"]["error"] is None
    assert "error" not in outcome
    assert outcome["duration_ms"] == 3_601_000, "from the first start, with a fresh retry"
    (retried,) = (event for event in outcome["transitions"] if event["type"] == "execution.retried")
    assert (retried["status"], retried["data"]) == ("running", {"reset": ["b", "c"], "by": "ann"})


def test_it_may_fail_again_and_be_retried_again(run: Run) -> None:
    outcome = run(workflow(operation("a")), at=[RETRY, {"time": "2h", "retry": {}}], a=[error(), error("worse"), result(1)])
    assert [event["type"] for event in outcome["transitions"] if event["type"].startswith("execution.")] == [
        "execution.started", "execution.failed", "execution.retried", "execution.failed", "execution.retried", "execution.completed",
    ]  # fmt: skip


@pytest.mark.parametrize("at", [[{"time": "1s", "cancel": {}}, RETRY], [{"time": "1s", "pause": {}}, RETRY], [RETRY]])
def test_only_a_failed_execution_is_retried(run: Run, at: list[Any]) -> None:
    outcome = run(workflow({"id": "s", "type": "signal", "name": "x"}), at=at)
    assert outcome["transitions"][-1]["data"]["code"] == "execution.wrong-state"


def test_what_was_undone_runs_again_and_is_undone_once_more(run: Run) -> None:
    document = workflow(operation("a", compensation=UNDO), operation("n", "a"), operation("b", "n"))
    once = run(document, at=[RETRY], b=[error(), result()])
    assert (once["status"], once["compensated"], statuses(once)["a"]) == ("completed", False, "completed")
    assert [calls(once, step) for step in ("a", "n", "b")] == [2, 1, 2]
    twice = run(document, at=[RETRY], b=[error(), error()])
    assert (twice["status"], twice["compensated"]) == ("failed", True)
    assert types(twice).count("compensation.completed") == 2


def test_what_could_not_be_undone_stays_and_is_undone_the_next_time(run: Run) -> None:
    document = workflow(operation("a", compensation=UNDO), operation("b", "a"))
    outcome = run(document, at=[RETRY], b=[error(), error()], undo=[error("stuck"), result()])
    assert calls(outcome, "a") == 1
    assert (types(outcome).count("compensation.failed"), types(outcome).count("compensation.completed")) == (1, 1)
    assert (outcome["status"], outcome["compensated"]) == ("failed", True)


def test_a_container_begins_again_and_keeps_the_results_inside(run: Run) -> None:
    both = {"id": "p", "type": "parallel", "require": "all", "steps": [operation("a"), operation("b")]}
    outcome = run(workflow(both), at=[RETRY], b=[error(), result(2)])
    assert outcome["status"] == "completed"
    assert [entry["value"] for entry in outcome["output"]["p"]["results"]] == [{}, 2]
    assert [calls(outcome, step) for step in ("p", "a", "b")] == [2, 1, 2]


def test_what_was_rejected_in_a_parallel_that_completed_stays_rejected(run: Run) -> None:
    both = {"id": "p", "type": "parallel", "steps": [operation("a"), operation("b")]}
    outcome = run(workflow(both, operation("c", "p")), at=[RETRY], b=[error()], c=[error(), result()])
    assert (outcome["status"], calls(outcome, "b"), calls(outcome, "p")) == ("completed", 1, 1)


def test_what_was_undone_inside_a_container_that_completed_runs_again(run: Run) -> None:
    both = {"id": "p", "type": "parallel", "steps": [operation("a", compensation=UNDO), operation("b")]}
    outcome = run(workflow(both, operation("c", "p")), at=[RETRY], a=[result(1), result(10)], c=[error(), result()])
    assert [calls(outcome, step) for step in ("p", "a", "b", "c")] == [2, 2, 1, 2]
    assert [entry["value"] for entry in outcome["output"]["p"]["results"]] == [10, {}]


def test_a_branch_is_chosen_again(run: Run) -> None:
    condition = {"type": "expression", "expression": 'steps["a"].result.ok'}
    chosen = {
        "id": "c",
        "type": "conditional",
        "dependencies": ["a"],
        "condition": condition,
        "then": operation("t"),
        "else": operation("e"),
    }
    document = workflow(operation("a", compensation=UNDO), chosen)
    outcome = run(document, at=[RETRY], a=[result({"ok": True}), result({"ok": False})], t=[error()])
    assert (outcome["status"], calls(outcome, "e"), outcome["steps"]["t"]["status"]) == ("completed", 1, "skipped")


@pytest.mark.parametrize("kind", ["foreach", "loop"])
def test_turns_that_ended_well_are_not_repeated(run: Run, kind: str) -> None:
    fields: dict[str, Any] = (
        {"items": [1, 2, 3], "max-concurrency": 1} if kind == "foreach" else {"while": "iteration < 3", "max-iterations": 5}
    )
    outcome = run(
        workflow({"id": "f", "type": kind, "steps": [operation("x")], **fields}), at=[RETRY], x=[result(1), error(), result(2), result(3)]
    )
    assert (outcome["status"], outcome["output"]) == ("completed", {"f": [{"x": 1}, {"x": 2}, {"x": 3}]})
    assert [calls(outcome, f"x[{turn}]") for turn in range(3)] == [1, 2, 1]


def test_a_compensation_that_a_fallback_asked_for_does_not_doom_the_retry(run: Run) -> None:
    doomed = operation("b", "a", error_handling={"fallback-actions": [{"condition": "error", "action": "compensate"}]})
    outcome = run(workflow(operation("a", compensation=UNDO), doomed), at=[RETRY], b=[error(), result(1)])
    assert (outcome["status"], outcome["steps"]["b"]["result"]) == ("completed", 1)


def test_the_time_out_of_the_workflow_counts_from_the_retry(run: Run) -> None:
    document = workflow(operation("a"), {"id": "s", "type": "signal", "name": "x", "dependencies": ["a"]}, timeout="2s")
    outcome = run(document, at=[RETRY], a=[error(), result()])
    assert (outcome["status"], outcome["duration_ms"]) == ("timed_out", 3_602_000)


def test_the_same_retry_twice_is_one(run: Run) -> None:
    given = read_scenario({"at": [RETRY], "modules": {"work.a": [error()]}})
    simulation = Simulation(workflow(operation("a")), given, checked=True)
    repeat = next(entry[4] for entry in simulation._queue if getattr(entry[4], "command", "") == "retry")
    simulation.run()
    simulation.runner.receive(repeat)
    assert types(simulation.run()).count("execution.retried") == 1
