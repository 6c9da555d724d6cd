"""`foreach` and `loop`: turns, what they see, their limits, results, failures, commands and compensations."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.orchestrator.conftest import (
    Outcome,
    Run,
    error,
    falling_back,
    foreach,
    loop,
    operation,
    result,
    retrying,
    started_at_ms,
    statuses,
    transform,
    types,
    workflow,
)


def starts(outcome: Outcome, *steps: str) -> list[int]:
    return [started_at_ms(outcome, step) for step in steps]


# --- foreach ------------------------------------------------------------------------------------------------------------


def test_turns_run_side_by_side_and_the_result_is_in_the_order_of_the_items(run: Run) -> None:
    each = foreach(operation("a", parameters={"it": "${item.n}", "at": "${index}"}), operation("b", "a", parameters={"r": "${a.result.x}"}))
    outcome = run(
        workflow(each, operation("last", "each", parameters={"all": "${each.result}"})),
        input={"items": [{"n": 7}, {"n": 8}]},
        a=[result({"x": 1}, after="2s"), result({"x": 2}, after="1s")],
        b=[result({"y": 2}), result({"y": 1})],
    )
    assert outcome["steps"]["a[1]"]["parameters"] == {"it": 8, "at": 1}
    assert outcome["steps"]["b[0]"]["parameters"] == {"r": 1}
    assert starts(outcome, "a[0]", "a[1]", "b[1]", "b[0]", "last") == [0, 0, 1000, 2000, 2000]
    expected = [{"a": {"x": 1}, "b": {"y": 1}}, {"a": {"x": 2}, "b": {"y": 2}}]
    assert outcome["steps"]["each"]["result"] == expected
    assert outcome["steps"]["last"]["parameters"] == {"all": expected}
    completed = next(event for event in outcome["transitions"] if (event["type"], event["step_id"]) == ("step.completed", "each"))
    assert completed["data"] == {"gathered": {"kind": "turns", "steps": ["a", "b"], "within": "", "turns": 2}}


@pytest.mark.parametrize(("items", "expected"), [([], []), (["${input.x}", 2], [{"a": {"got": "X"}}, {"a": {"got": 2}}])])
def test_items_may_stand_in_the_definition(run: Run, items: list[Any], expected: list[Any]) -> None:
    outcome = run(
        workflow(foreach({"id": "a", "type": "transform", "value": "{'got': thing}"}, items=items, as_="thing")), input={"x": "X"}
    )
    assert (outcome["status"], outcome["output"], outcome["duration_ms"]) == ("completed", {"each": expected}, 0)


@pytest.mark.parametrize("items", [{"a": 1}, "text", None, 7])
def test_what_is_no_list_fails_the_step(run: Run, items: Any) -> None:
    outcome = run(workflow(foreach(operation("a"))), input={"items": items})
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "invalid")
    assert types(outcome, "each") == ["step.started", "step.failed"]


def test_max_concurrency_counts_turns_from_start_to_end(run: Run) -> None:
    each = foreach(operation("a"), operation("b", "a"), max_concurrency=2)
    outcome = run(workflow(each), input={"items": [0, 1, 2]}, a=[result(after="1s")], b=[result(after="3s"), result(after="1s")])
    assert starts(outcome, "a[0]", "a[1]", "a[2]", "b[0]", "b[1]") == [0, 0, 2000, 1000, 1000]
    assert outcome["duration_ms"] == 4000


def test_a_foreach_counts_as_one_step_of_the_list_around_it(run: Run) -> None:
    document = workflow(foreach(operation("a")), operation("after"), max_concurrency=1)
    outcome = run(document, input={"items": [0, 1]}, a=[result(after="1s")])
    assert starts(outcome, "a[0]", "a[1]", "after") == [0, 0, 1000]


def test_nested_turns_have_two_numbers_and_inner_names_hide_outer_ones(run: Run) -> None:
    read = operation("r", parameters={"row": "${row}", "cell": "${cell}", "index": "${index}", "named": "${name.result}"})
    inner = foreach(read, items="${row.cells}", id="inner", as_="cell", dependencies=["name"])
    outcome = run(
        workflow(foreach(transform("name", "'row ' + string(index)"), inner, as_="row")),
        input={"items": [{"cells": [1]}, {"cells": [2, 3]}]},
    )
    assert outcome["steps"]["r[1][0]"]["parameters"] == {"row": {"cells": [2, 3]}, "cell": 2, "index": 0, "named": "row 1"}
    assert [len(turn["inner"]) for turn in outcome["output"]["each"]] == [1, 2]
    assert statuses(outcome)["inner[1]"] == "completed"


def test_containers_inside_a_turn_belong_to_it(run: Run) -> None:
    branch = {
        "id": "c", "type": "conditional", "condition": {"type": "expression", "expression": "item > 1"},
        "then": operation("yes"), "else": operation("no"),
    }  # fmt: skip
    both = {"id": "p", "type": "parallel", "steps": [operation("x", parameters={"n": "${item}"}), operation("y")], "dependencies": ["c"]}
    outcome = run(workflow(foreach(branch, both)), input={"items": [1, 2]}, yes=[result("Y")], no=[result("N")])
    assert [turn["c"] for turn in outcome["output"]["each"]] == ["N", "Y"]
    assert outcome["steps"]["yes[0]"]["status"] == "skipped"
    assert outcome["steps"]["x[1]"]["parameters"] == {"n": 2}
    assert outcome["output"]["each"][1]["p"]["results"][0]["stepId"] == "x[1]"


# --- failure ------------------------------------------------------------------------------------------------------------


def test_a_failing_turn_lets_running_turns_end_and_starts_no_more(run: Run) -> None:
    each = foreach(operation("a"), operation("b", "a"), max_concurrency=2)
    outcome = run(
        workflow(each, operation("after", "each")),
        input={"items": [0, 1, 2, 3]},
        a=[error(after="1s"), result(after="2s")],
        b=[result(after="2s")],
    )
    assert (outcome["status"], outcome["duration_ms"], outcome["error"]["code"]) == ("failed", 4000, "broken")
    assert {name: status for name, status in statuses(outcome).items() if "[" in name} == {
        "a[0]": "failed", "b[0]": "cancelled", "a[1]": "completed", "b[1]": "completed",
    }  # fmt: skip
    assert statuses(outcome)["each"] == "failed"
    assert statuses(outcome)["after"] == "cancelled"
    assert outcome["steps"]["each"]["error"]["message"] == "broken!"


def test_a_turn_that_fails_as_it_begins_fails_the_container(run: Run) -> None:
    each = foreach(transform("a", "item.gone"), max_concurrency=1)
    outcome = run(workflow(each), input={"items": [{"gone": 1}, {}, {"gone": 1}]})
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "expression.failed")
    assert statuses(outcome) == {"each": "failed", "a[0]": "completed", "a[1]": "failed"}
    again = run(workflow(loop(transform("a", "input.gone"), while_="true")))
    assert (again["status"], again["error"]["code"]) == ("failed", "expression.failed")


def test_the_error_is_that_of_the_step_that_failed_first_not_of_the_turn_that_ended_first(run: Run) -> None:
    each = foreach({**operation("a"), "parameters": {"n": "${item}"}}, operation("slow"))
    outcome = run(
        workflow(each),
        input={"items": [0, 1]},
        a=[error("first", after="1s"), error("second", after="2s")],
        slow=[result(after="9s"), result(after="3s")],
    )
    assert (outcome["error"]["code"], outcome["duration_ms"]) == ("first", 9000)


def test_on_failure_cancel_ends_the_other_turns_at_once(run: Run) -> None:
    each = foreach(operation("a"), operation("b", "a"))
    outcome = run(
        workflow(each, on_failure="cancel"),
        input={"items": [0, 1]},
        a=[error(after="1s"), result(after="9s")],
    )
    assert (outcome["status"], outcome["duration_ms"]) == ("failed", 1000)
    assert statuses(outcome)["a[1]"] == "cancelled"


def test_a_retry_of_the_container_runs_all_of_it_again_and_attempts_go_on(run: Run) -> None:
    each = foreach(operation("a"), error_handling=retrying(max_retries=1, initial_interval="1s", retryable=["broken"]))
    outcome = run(workflow(each), input={"items": [0, 1]}, a=[result("x"), error(), result("y")])
    assert (outcome["status"], outcome["duration_ms"]) == ("completed", 1000)
    assert {name: step["attempts"] for name, step in outcome["steps"].items()} == {"each": 2, "a[0]": 2, "a[1]": 2}
    assert outcome["output"] == {"each": [{"a": "y"}, {"a": "y"}]}


def test_what_an_earlier_attempt_had_more_of_ends_with_the_container(run: Run) -> None:
    again = loop(
        operation("a"),
        while_='iteration == 0 || steps["a"].result.more',
        error_handling=retrying(max_retries=1, initial_interval="0ms", retryable=["broken"]),
    )
    outcome = run(workflow(again), a=[result({"more": True}), error(), result({"more": False})])
    assert outcome["status"] == "completed"
    assert outcome["steps"]["again"]["result"] == [{"a": {"more": False}}]
    assert (statuses(outcome)["a[0]"], statuses(outcome)["a[1]"]) == ("completed", "cancelled")


def test_a_fallback_of_the_container_replaces_its_result(run: Run) -> None:
    each = foreach(operation("a"), error_handling=falling_back({"condition": "broken", "action": "use-value", "value": ["none"]}))
    outcome = run(workflow(each), input={"items": [1]}, a=[error()])
    assert (outcome["status"], outcome["output"]) == ("completed", {"each": ["none"]})


def test_the_workflows_retries_hold_for_operations_inside_turns(run: Run) -> None:
    document = workflow(foreach(operation("a")), error_handling=retrying(initial_interval="1s"))
    outcome = run(document, input={"items": [0]}, a=[error("unavailable"), result()])
    assert (outcome["status"], outcome["steps"]["a[0]"]["attempts"], outcome["steps"]["each"]["attempts"]) == ("completed", 2, 1)


def test_a_time_out_of_the_container_cancels_its_turns(run: Run) -> None:
    outcome = run(workflow(foreach(operation("a"), max_concurrency=1, timeout="3s")), input={"items": [0, 1, 2]}, a=[result(after="2s")])
    assert (outcome["duration_ms"], statuses(outcome)) == (3000, {"each": "timed_out", "a[0]": "completed", "a[1]": "cancelled"})


def test_steps_in_turns_are_undone_in_reverse_order_of_completion_and_see_their_item(run: Run) -> None:
    undo = {"type": "module-operation", "module": "work", "operation": "undo", "parameters": {"n": "${item}", "r": "${a.result}"}}
    outcome = run(
        workflow(foreach(operation("a", compensation=undo)), operation("bad", "each")),
        input={"items": ["x", "y", "z"]},
        a=[result(0, after="2s"), result(1, after="3s"), result(2, after="1s")],
        bad=[error()],
        undo=[result(after="1s")],
    )
    assert (outcome["status"], outcome["compensated"], outcome["duration_ms"]) == ("failed", True, 6000)
    undone = [event["step_id"] for event in outcome["transitions"] if event["type"] == "compensation.started"]
    assert undone == ["a[1]", "a[0]", "a[2]"]
    assert outcome["steps"]["a~compensation[1]"]["parameters"] == {"n": "y", "r": 1}


def test_every_turn_is_undone_once_whatever_stops_in_between(run: Run) -> None:
    undo = {"type": "module-operation", "module": "work", "operation": "undo", "parameters": {"n": "${item}"}}
    outcome = run(
        workflow(foreach(operation("a", compensation=undo), operation("plain", "a")), operation("bad", "each")),
        input={"items": list(range(30))},
        bad=[error()],
        undo=[result(after="1s"), error(after="1s"), result(after="1s")],
        at=[{"time": "5500ms", "pause": {}}, {"time": "20s", "resume": {}}],
    )
    assert (outcome["status"], outcome["compensated"], outcome["duration_ms"]) == ("failed", "partly", 20_000 + 24_000)
    undone = [event["step_id"] for event in outcome["transitions"] if event["type"] == "compensation.started"]
    assert undone == [f"a[{item}]" for item in reversed(range(30))]


def test_a_failing_list_around_starts_no_more_turns(run: Run) -> None:
    outcome = run(
        workflow(foreach(operation("a"), operation("b", "a"), max_concurrency=1), operation("bad")),
        input={"items": [0, 1]},
        a=[result(after="2s")],
        bad=[error(after="1s")],
    )
    assert outcome["duration_ms"] == 2000
    assert statuses(outcome) == {"each": "cancelled", "a[0]": "completed", "b[0]": "cancelled", "bad": "failed"}


# --- loop ---------------------------------------------------------------------------------------------------------------


def test_a_loop_asks_before_each_turn_and_means_the_latest(run: Run) -> None:
    again = loop(operation("a", parameters={"n": "${iteration}"}), while_='iteration == 0 || steps["a"].result.more')
    outcome = run(workflow(again), a=[result({"more": True}, after="1s"), result({"more": True}, after="1s"), result({"more": False})])
    assert (outcome["status"], outcome["duration_ms"]) == ("completed", 2000)
    assert [turn["a"]["more"] for turn in outcome["output"]["again"]] == [True, True, False]
    assert outcome["steps"]["a[2]"]["parameters"] == {"n": 2}


def test_a_step_of_a_loop_may_read_the_turn_before(run: Run) -> None:
    cursor = transform("cursor", 'iteration == 0 ? "" : steps["fetch"].result.next')
    fetch = operation("fetch", "cursor", parameters={"from": "${cursor.result}"})
    outcome = run(workflow(loop(cursor, fetch, while_='iteration == 0 || steps["fetch"].result.next != ""')), fetch=[
        result({"next": "p2"}), result({"next": "p3"}), result({"next": ""}),
    ])  # fmt: skip
    assert [outcome["steps"][f"fetch[{turn}]"]["parameters"]["from"] for turn in range(3)] == ["", "p2", "p3"]
    assert "fetch[3]" not in outcome["steps"]


def test_a_loop_that_does_not_hold_at_first_has_no_turns(run: Run) -> None:
    outcome = run(workflow(loop(operation("a"), while_="false")))
    assert (outcome["status"], outcome["output"], types(outcome, "again")) == (
        "completed", {"again": []}, ["step.started", "step.completed"],
    )  # fmt: skip


def test_a_loop_that_never_ends_is_ended_by_its_limit(run: Run) -> None:
    outcome = run(workflow(loop(operation("a"), while_="true", most=3)), a=[result(after="1s")])
    assert (outcome["status"], outcome["error"]["code"], outcome["duration_ms"]) == ("failed", "loop.limit", 3000)
    assert statuses(outcome)["a[2]"] == "completed"
    exactly = run(workflow(loop(operation("a"), while_="iteration < 3", most=3)))
    assert exactly["status"] == "completed"


@pytest.mark.parametrize("condition", ['steps["a"].result.more', "iteration + 1"])
def test_a_condition_without_a_boolean_fails_the_loop(run: Run, condition: str) -> None:
    outcome = run(workflow(loop(operation("a"), while_=condition)))
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "expression.failed")


def test_a_turn_that_fails_ends_a_loop(run: Run) -> None:
    outcome = run(workflow(loop(operation("a"), operation("b", "a"), while_="true")), a=[result(), error()])
    assert (outcome["status"], outcome["error"]["code"]) == ("failed", "broken")
    assert statuses(outcome) == {"again": "failed", "a[0]": "completed", "b[0]": "completed", "a[1]": "failed", "b[1]": "cancelled"}


def test_the_limit_of_a_loop_counts_the_steps_of_a_turn(run: Run) -> None:
    again = loop(operation("a"), operation("b"), while_="iteration < 2", max_concurrency=1)
    outcome = run(workflow(again), a=[result(after="1s")], b=[result(after="1s")])
    assert starts(outcome, "a[0]", "b[0]", "a[1]", "b[1]") == [0, 1000, 2000, 3000]


def test_a_loop_inside_a_foreach_counts_for_each_turn(run: Run) -> None:
    inner = loop(operation("a", parameters={"i": "${item}", "n": "${iteration}"}), while_="iteration < item", id="inner")
    outcome = run(workflow(foreach(inner)), input={"items": [2, 0, 1]})
    assert [len(turn["inner"]) for turn in outcome["output"]["each"]] == [2, 0, 1]
    assert outcome["steps"]["a[0][1]"]["parameters"] == {"i": 2, "n": 1}


# --- commands -----------------------------------------------------------------------------------------------------------


def test_in_a_pause_no_turn_begins(run: Run) -> None:
    outcome = run(
        workflow(foreach(operation("a"), max_concurrency=1)),
        input={"items": [0, 1]},
        a=[result(after="2s")],
        at=[{"time": "1s", "pause": {}}, {"time": "10s", "resume": {}}],
    )
    assert starts(outcome, "a[0]", "a[1]") == [0, 10_000]
    assert outcome["duration_ms"] == 12_000


def test_a_failure_in_a_pause_has_its_consequences_after_it(run: Run) -> None:
    outcome = run(
        workflow(foreach(operation("a"), max_concurrency=1)),
        input={"items": [0, 1]},
        a=[error(after="2s")],
        at=[{"time": "1s", "pause": {}}, {"time": "10s", "resume": {}}],
    )
    assert (outcome["status"], outcome["duration_ms"]) == ("failed", 10_000)
    assert "a[1]" not in outcome["steps"]


def test_a_cancellation_ends_all_turns(run: Run) -> None:
    outcome = run(
        workflow(foreach(operation("a"), {"id": "w", "type": "wait", "for": "1h"}), loop(operation("b"), while_="true")),
        input={"items": [0, 1]},
        a=[result(after="1s")],
        b=[result(after="20s")],
        at=[{"time": "5s", "cancel": {}}],
    )
    assert (outcome["status"], outcome["duration_ms"]) == ("cancelled", 5000)
    assert statuses(outcome) == {
        "each": "cancelled", "a[0]": "completed", "a[1]": "completed", "w[0]": "cancelled", "w[1]": "cancelled",
        "again": "cancelled", "b[0]": "cancelled",
    }  # fmt: skip


def test_an_approval_in_a_turn_is_answered_by_its_instance(run: Run) -> None:
    ask = {"id": "ask", "type": "approval", "title": "${item}?"}
    outcome = run(
        workflow(foreach(ask)),
        input={"items": ["x", "y"]},
        at=[
            {"time": "1s", "answer": {"step": "ask[1]", "choice": "approve", "by": "ann"}},
            {"time": "2s", "answer": {"step": "ask[0]", "choice": "reject", "by": "bob"}},
        ],
    )
    assert [turn["ask"]["by"] for turn in outcome["output"]["each"]] == ["bob", "ann"]
