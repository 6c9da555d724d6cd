"""`fork`: a new execution with the results before a step, in any state of the old one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from services.orchestrator.scenario import read_scenario
from services.orchestrator.simulation import Simulation
from streams import limits
from streams.records import WorkflowCommand
from tests.unit.orchestrator.conftest import Run, error, operation, result, workflow

UNDO: dict[str, Any] = {"type": "module-operation", "module": "work", "operation": "undo"}
CHAIN = (operation("a"), operation("b", "a", parameters={"x": "${a.result}", "n": "${input.n}"}), operation("c", "b"))


def fork(step: str, time: str = "1h", **data: Any) -> dict[str, Any]:
    return {"time": time, "fork": {"step": step, "id": "fork", **data}}


def forked(outcome: dict[str, Any]) -> dict[str, Any]:
    return dict(outcome["executions"]["fork"])


def attempts(outcome: dict[str, Any]) -> dict[str, int]:
    return {name: step["attempts"] for name, step in forked(outcome)["steps"].items()}


def refusals(outcome: dict[str, Any]) -> list[str]:
    return [event["data"]["code"] for event in outcome["transitions"] if event["type"] == "command.refused"]


def test_what_the_step_depends_on_is_taken_over_and_the_rest_runs(run: Run) -> None:
    outcome = run(
        workflow(*CHAIN, operation("d")), at=[fork("c")], input={"n": 1}, a=[result(1)], b=[result(2)], c=[result(3)], d=[result(4)]
    )
    assert outcome["status"] == "completed"
    assert forked(outcome)["output"] == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert attempts(outcome) == {"a": 0, "b": 0, "c": 1, "d": 1}
    assert forked(outcome)["forked_from"] == {"execution_id": "test", "step": "c"}
    (note,) = (event["data"] for event in outcome["transitions"] if event["type"] == "execution.forked")
    assert (note["to"], note["step"], note["steps"]) == ("fork", "c", ["a", "b"])


def test_another_input_is_seen_by_what_runs_again(run: Run) -> None:
    outcome = run(workflow(*CHAIN), at=[fork("b", input={"n": 9})], input={"n": 1}, a=[result(1)])
    assert (forked(outcome)["input"], outcome["steps"]["b"]["parameters"]["n"]) == ({"n": 9}, 1)
    assert attempts(outcome) == {"a": 0, "b": 1, "c": 1}


def test_another_definition_takes_over_what_it_has_too(run: Run) -> None:
    changed = workflow(operation("a"), operation("new", "a"), operation("c", "new", parameters={"x": "${a.result}"}), id="w2")
    outcome = run(workflow(*CHAIN), at=[fork("c", definition=changed)], a=[result(1)])
    assert (forked(outcome)["workflow_id"], attempts(outcome)) == ("w2", {"a": 0, "new": 1, "c": 1})


@pytest.mark.parametrize(
    ("at", "answers", "taken"),
    [
        ([fork("c", "1s")], {"b": [result(2, after="5s")]}, {"a": 0, "b": 1, "c": 1}),
        ([{"time": "1s", "pause": {}}, fork("c")], {"b": [result(2, after="5s")]}, {"a": 0, "b": 0, "c": 1}),
        ([{"time": "1s", "cancel": {}}, fork("c")], {"b": [result(2, after="5s")]}, {"a": 0, "b": 1, "c": 1}),
        ([fork("c")], {"b": [error(), result(2)]}, {"a": 0, "b": 1, "c": 1}),
        ([fork("a")], {}, {"a": 1, "b": 1, "c": 1}),
    ],
)
def test_any_state_can_be_forked(run: Run, at: list[Any], answers: dict[str, Any], taken: dict[str, int]) -> None:
    outcome = run(workflow(*CHAIN), at=at, input={"n": 1}, a=[result(1)], **answers)
    assert (forked(outcome)["status"], attempts(outcome)) == ("completed", taken)


def test_what_was_undone_runs_again_and_what_is_taken_over_is_never_undone(run: Run) -> None:
    document = workflow(operation("a", compensation=UNDO), operation("b", "a"))
    undone = run(document, at=[fork("b")], b=[error(), result()])
    assert attempts(undone)["a"] == 1
    taken = run(document, at=[fork("b", "1s")], b=[result(after="5s"), error()])
    assert (forked(taken)["status"], attempts(taken)) == ("failed", {"a": 0, "b": 1})
    assert taken["status"] == "completed"


def test_a_container_is_taken_over_with_what_ran_inside_it(run: Run) -> None:
    both = {"id": "p", "type": "parallel", "steps": [operation("x"), operation("y")]}
    turns = {"id": "f", "type": "foreach", "items": [1, 2], "steps": [operation("t")], "dependencies": ["p"]}
    last = operation("z", "f", parameters={"p": "${p.result.results[1].value}", "x": "${x.result}", "f": "${f.result[1].t}"})
    outcome = run(workflow(both, turns, last), at=[fork("z")], x=[result(1)], y=[result(2)], t=[result(3), result(4)])
    assert forked(outcome)["status"] == "completed"
    assert outcome["steps"]["z"]["parameters"] == {"p": 2, "x": 1, "f": 4}
    assert attempts(outcome) == {"p": 0, "x": 0, "y": 0, "f": 0, "t[0]": 0, "t[1]": 0, "z": 1}


def test_a_step_inside_a_container_stands_for_the_container(run: Run) -> None:
    both = {"id": "p", "type": "parallel", "steps": [operation("x"), operation("y")], "dependencies": ["a"]}
    outcome = run(workflow(operation("a"), both), at=[fork("y")])
    assert attempts(outcome) == {"a": 0, "p": 1, "x": 1, "y": 1}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ({}, "command.invalid"),
        ({"step": 7}, "command.invalid"),
        ({"step": "nowhere"}, "step.unknown"),
        ({"step": "a", "id": "a/b"}, "execution.id"),
        ({"step": "a", "id": "test"}, "command.invalid"),
        ({"step": "a", "definition": {"id": "x", "name": "x", "steps": []}}, "definition.invalid"),
        ({"step": "a", "input": {}}, "input.invalid"),
    ],
)
def test_what_cannot_be_forked_is_refused(run: Run, data: dict[str, Any], code: str) -> None:
    document = workflow(operation("a"), input_schema={"required": ["n"]})
    outcome = run(document, at=[{"time": "1s", "fork": data}], input={"n": 1})
    assert (refusals(outcome), "executions" in outcome) == ([code], False)


def test_results_beyond_a_payload_are_refused(run: Run) -> None:
    large = result("x" * (limits.PAYLOAD_BYTES_MAX // 2))
    outcome = run(workflow(operation("a"), operation("b"), operation("c", "a", "b")), at=[fork("c")], a=[large], b=[large])
    assert (refusals(outcome), "executions" in outcome) == (["payload.too-large"], False)


def test_an_execution_that_is_there_stays_as_it_is(run: Run) -> None:
    outcome = run(workflow(*CHAIN), at=[fork("c"), fork("a", "2h")], input={"n": 1})
    assert (attempts(outcome), refusals(outcome)) == ({"a": 0, "b": 0, "c": 1}, [])


def test_a_new_owner_starts_the_fork_again_until_it_has_begun() -> None:
    simulation = Simulation(workflow(*CHAIN), read_scenario({"input": {"n": 1}}), checked=True)
    simulation.run()
    command = WorkflowCommand(type="t", execution_id="test", command="fork", data={"step": "c", "id": "fork"})
    simulation.runner.receive(command)
    (start,) = (send.record for send in simulation.runner.take_effects())  # lost
    state = simulation.runner.view.state("test")
    assert state is not None
    assert [send.record for send in simulation.machine.outstanding(state)] == [start]
    assert simulation.machine.ended(state) is None
    assert simulation.runner.receive(command).events == (), "the same command again"
    begun = [event.type for event in simulation.runner.receive(start).events]
    assert begun[:2] == ["execution.started", "execution.forked"]
    told = [send.record for send in simulation.runner.take_effects() if send.topic == "mplp.module.responses"]
    assert simulation.runner.receive(start).events == ()
    assert [send.record for send in simulation.runner.take_effects()] == told
    (acknowledged,) = simulation.runner.receive(told[0], topic="mplp.module.responses").events
    assert (acknowledged.type, acknowledged.data) == ("execution.acknowledged", {"fork": "fork"})
    state = simulation.runner.view.state("test")
    assert state is not None
    assert list(simulation.machine.outstanding(state)) == []


@pytest.mark.parametrize("taken", [True, False])
def test_nobody_waits_for_a_fork_that_will_never_begin(taken: bool) -> None:
    """Its id belongs to another execution, or it is refused: then its source is told, or it would stay in memory for ever."""
    simulation = Simulation(workflow(*CHAIN), read_scenario({"input": {"n": 1}}), checked=True)
    simulation.run()
    if taken:
        other = {"definition": workflow(*CHAIN), "input": {"n": 2}}
        simulation.runner.receive(WorkflowCommand(type="t", execution_id="fork", command="start", data=other))
    simulation.runner.receive(WorkflowCommand(type="t", execution_id="test", command="fork", data={"step": "c", "id": "fork"}))
    start = next(send.record for send in simulation.runner.take_effects() if isinstance(send.record, WorkflowCommand))
    if not taken:
        start = replace(start, data={**start.data, "definition_hash": "nowhere"})
    before = simulation.runner.view.state("fork")
    simulation.runner.receive(start)
    assert simulation.runner.view.state("fork") == before
    for send in simulation.runner.take_effects():
        simulation.runner.receive(send.record, topic=send.topic)
    state = simulation.runner.view.state("test")
    assert state is not None
    assert (state.forks, simulation.machine.ended(state)) == ((), state.ended_us)


@pytest.mark.parametrize(
    "steps",
    [7, {"nowhere": {"status": "completed"}}, {"a": {"status": "running"}}, {"a": 1}, {"a": {"status": "completed", "gathered": 1}}],
)
def test_a_forged_fork_is_refused(steps: Any) -> None:
    simulation = Simulation(workflow(*CHAIN), read_scenario({"input": {"n": 1}}), checked=True)
    simulation.run()
    data = {"definition": workflow(*CHAIN), "forked_from": {"execution_id": "test", "step": "c"}, "steps": steps}
    (refused,) = simulation.runner.receive(WorkflowCommand(type="t", execution_id="x", command="start", data=data)).events
    assert (refused.type, refused.data["code"]) == ("command.refused", "command.invalid")
