"""What a scenario says and what comes out: answers, virtual time, commands, expectations."""

from __future__ import annotations

from typing import Any

import pytest

from services.orchestrator.trial import run_scenario, run_trial, story, verdict
from streams.errors import InvalidDocument
from tests.unit.orchestrator.conftest import error, operation, result, workflow

ONE = workflow(operation("a"))


def test_everything_of_the_output_is_there() -> None:
    outcome = run_scenario(ONE, {"modules": {"work.a": [result({"n": 1}, after="1500ms")]}})
    assert {name: outcome[name] for name in ("status", "output", "duration_ms", "compensated", "events")} == {
        "status": "completed", "output": {"a": {"n": 1}}, "duration_ms": 1500, "compensated": False, "events": [],
    }  # fmt: skip
    assert outcome["steps"] == {"a": {"status": "completed", "attempts": 1, "parameters": {}, "result": {"n": 1}, "error": None}}
    assert [record["type"] for record in outcome["transitions"]] == [
        "execution.started", "step.started", "step.completed", "execution.completed",
    ]  # fmt: skip
    assert not {"id", "execution_id", "correlation_id", "causation_id", "aggregate_id"} & set(outcome["transitions"][0])


def test_an_operation_without_an_entry_answers_an_empty_object_at_once() -> None:
    outcome = run_scenario(ONE, {})
    assert (outcome["steps"]["a"]["result"], outcome["duration_ms"]) == ({}, 0)


def test_answers_go_in_order_of_calls_and_the_last_repeats() -> None:
    calls = [{**operation(f"c{number}", *([f"c{number - 1}"] if number else [])), "operation": "same"} for number in range(4)]
    outcome = run_scenario(workflow(*calls), {"modules": {"work.same": [result(1, after="1s"), result(2, after="2s")]}})
    assert outcome["output"] == {"c0": 1, "c1": 2, "c2": 2, "c3": 2}
    assert outcome["duration_ms"] == 7000


def test_never_is_a_time_out_of_five_minutes() -> None:
    outcome = run_scenario(ONE, {"modules": {"work.a": ["never"]}})
    assert (outcome["status"], outcome["duration_ms"], outcome["steps"]["a"]["status"]) == ("failed", 300_000, "timed_out")


def test_the_clock_and_the_id_are_the_scenarios() -> None:
    document = workflow(
        operation("a", parameters={"id": "${execution.id}"}), {"id": "w", "type": "wait", "until": "2030-05-01T12:00:00+02:00"}
    )
    outcome = run_scenario(document, {"id": "mine", "start": "2030-05-01T09:59:00Z"})
    assert outcome["steps"]["a"]["parameters"] == {"id": "mine"}
    assert outcome["duration_ms"] == 60_000
    assert outcome["transitions"][0]["time"] == "2030-05-01T09:59:00.000000Z"


def test_what_has_not_ended_says_what_it_is_and_has_no_duration() -> None:
    document = workflow({"id": "ask", "type": "approval"}, operation("b", "ask"))
    waiting = run_scenario(document, {})
    assert (waiting["status"], waiting["duration_ms"], waiting["steps"]["ask"]["status"]) == ("running", None, "waiting")
    assert waiting["steps"]["b"] == {"status": "pending", "attempts": 0, "parameters": None, "result": None, "error": None}
    paused = run_scenario(document, {"at": [{"time": 0, "pause": {}}]})
    assert (paused["status"], paused["duration_ms"]) == ("paused", None)


def test_emitted_events_and_refused_commands_can_be_seen() -> None:
    emit = {
        "id": "tell",
        "type": "emit",
        "event": {"type": "x.happened", "severity": "warning", "subject": "s", "data": {"n": "${input.n}"}},
    }
    outcome = run_scenario(
        workflow(emit, {"id": "w", "type": "wait", "for": "1m"}), {"input": {"n": 7}, "at": [{"time": "1s", "resume": {}}]}
    )
    assert outcome["events"] == [{"type": "x.happened", "severity": "warning", "subject": "s", "data": {"n": 7}}]
    refusals = [record for record in outcome["transitions"] if record["type"] == "command.refused"]
    assert [(record["data"]["code"], record["data"]["command"], record["time"][17:19]) for record in refusals] == [
        ("execution.wrong-state", "resume", "01")
    ]


def test_a_start_that_is_refused_leaves_an_execution_that_is_pending() -> None:
    document = {**ONE, "input-schema": {"type": "object", "required": ["n"]}}
    trial = run_trial(document, {"expect": {"status": "pending"}})
    assert trial.passed
    assert [record["data"]["code"] for record in trial.outcome["transitions"]] == ["input.invalid"]
    assert "input.invalid" in story(trial)


@pytest.mark.parametrize(
    ("expected", "differing"),
    [
        ({"status": "completed", "steps": {"a": {"result": {"n": 1}}}}, []),
        ({"output": {"a": {"n": 1.0}}}, []),
        ({"output": {"a": {"n": True}}}, [("/output/a/n", True, 1)]),
        (
            {"steps": {"a": {"attempts": 2}, "b": {"status": "failed"}}},
            [("/steps/a/attempts", 2, 1), ("/steps/b", {"status": "failed"}, None)],
        ),
        ({"events": [{}]}, [("/events", [{}], [])]),
        ({"transitions": [{"type": "execution.started"}, {}, {"step_id": "b"}, {}]}, [("/transitions/2/step_id", "b", "a")]),
        ({"output": {"a/b~": None}}, [("/output/a~1b~0", None, None)]),
    ],
)
def test_what_is_expected_is_a_subset_and_each_difference_has_its_path(expected: Any, differing: list[Any]) -> None:
    outcome = run_scenario(ONE, {"modules": {"work.a": [result({"n": 1})]}, "expect": expected})
    assert [(found["path"], found["expected"], found["actual"]) for found in outcome["differences"]] == differing


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"at": [{"time": "1s", "dance": {}}]}, "/at/0/dance"),
        ({"at": [{"pause": {}}]}, "/at/0/time"),
        ({"modules": {"m.o": [{"after": "-1s"}]}}, "/modules/m.o/0/after"),
        ({"modules": {"m.o": [{"result": 1, "error": {"code": "x"}}]}}, "/modules/m.o/0"),
        ({"start": "2026-01-01T00:00:00"}, "/start"),
        ({"modules": {"m.o": ["never", None, "ever"]}}, "/modules/m.o/1"),
        ([], ""),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused_with_a_pointer(document: Any, pointer: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        run_scenario(ONE, document)
    assert refused.value.code == "scenario.invalid"
    assert pointer in [fault.pointer for fault in refused.value.violations]


def test_a_workflow_of_weeks_takes_no_time_and_is_told_in_one_line() -> None:
    trial = run_trial(workflow({"id": "w", "type": "wait", "for": "21d"}), {"expect": {"status": "completed"}})
    assert verdict(trial, "weeks.yaml") == "✔ weeks.yaml: completed after 21 d"
    bad = run_trial(ONE, {"modules": {"work.a": [error("broken", after="2s")]}, "expect": {"status": "completed"}})
    assert verdict(bad, "bad.yaml") == "✘ bad.yaml: failed after 2.0 s, 1 difference"
    assert verdict(run_trial(ONE, {}), "x") == "✔ x: completed after 0 ms, nothing expected"
