"""Every command in every state: allowed, or refused by its code; a refusal changes nothing."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from services.orchestrator.scenario import read_scenario
from services.orchestrator.simulation import Simulation
from services.orchestrator.state import replace_execution
from streams.records import CommandName, WorkflowCommand
from tests.unit.orchestrator.conftest import error, operation, workflow

#: How to bring an execution into each status; `ending`: running, but only its compensations.
UNDO: dict[str, Any] = {"type": "signal", "name": "undone"}
DOCUMENT = workflow(operation("a", compensation=UNDO), {"id": "ask", "type": "approval", "dependencies": ["a"]}, timeout="1d")
STATES: dict[str, dict[str, Any]] = {
    "running": {},
    "paused": {"at": [{"time": 1, "pause": {}}]},
    "ending": {"at": [{"time": 1, "cancel": {}}]},
    "completed": {"at": [{"time": 1, "answer": {"step": "ask", "choice": "approve", "by": "ann"}}]},
    "cancelled": {"at": [{"time": 1, "cancel": {}}, {"time": 2, "signal": {"name": "undone"}}]},
    "failed": {"modules": {"work.a": [error()]}},
    "timed_out": {"at": [{"time": 1, "signal": {"name": "undone"}}, {"time": "1d", "resume": {}}]},
}
DATA: dict[str, dict[str, Any]] = {
    "signal": {"name": "x"},
    "answer": {"step": "ask", "choice": "approve", "by": "ann"},
    "fork": {"step": "ask", "id": "fork"},
    "start": {"definition": DOCUMENT},
}
WRONG = "execution.wrong-state"
#: What each command does in each state: the first record's type, the code of a refusal, or None: nothing.
TABLE: dict[str, dict[str, str | None]] = {
    "start": dict.fromkeys(STATES),
    "pause": {"running": "execution.paused", "ending": "execution.paused"},
    "resume": {"paused": "execution.resumed"},
    "cancel": {"running": "step.cancelled", "paused": "step.cancelled"},
    "signal": dict.fromkeys(("running", "paused", "ending"), "signal.received"),
    "answer": {
        "running": "approval.answered", "paused": "approval.answered", "completed": "approval.already-answered",
        **dict.fromkeys(("ending", "cancelled", "failed", "timed_out"), "approval.unknown"),
    },
    "retry": {"failed": "execution.retried"},
    "fork": dict.fromkeys(STATES, "execution.forked"),
}  # fmt: skip


def brought_to(name: str) -> Simulation:
    simulation = Simulation(DOCUMENT, read_scenario(STATES[name]), checked=True)
    for moment in iter(simulation.step, False):
        assert moment
        state = simulation.runner.view.state("test")
        if name in ("running", "paused", "ending") and state is not None and not simulation._queue:
            break
    state = simulation.runner.view.state("test")
    assert state is not None
    assert (state.status, state.ending is not None) == ("running", True) if name == "ending" else state.status == name
    return simulation


def test_every_command_is_in_the_table() -> None:
    assert set(TABLE) == set(get_args(CommandName))


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("command", TABLE)
def test_what_a_command_does_in_a_state(command: Any, name: str) -> None:
    simulation = brought_to(name)
    before = simulation.runner.view.state("test")
    assert before is not None
    decision = simulation.runner.receive(WorkflowCommand(type="t", execution_id="test", command=command, data=DATA.get(command, {})))
    told = [event.data["code"] if event.type == "command.refused" else event.type for event in decision.events]
    wanted = TABLE[command].get(name, WRONG)
    assert told[:1] == ([] if wanted is None else [wanted])
    after = simulation.runner.view.state("test")
    assert after is not None
    if wanted is None or decision.events[0].type == "command.refused":
        assert replace_execution(after, sequence=before.sequence, told=before.told) == before


@pytest.mark.parametrize("command", [name for name in TABLE if name != "start"])
def test_a_command_to_nobody_is_refused(command: Any) -> None:
    simulation = brought_to("running")
    (refused,) = simulation.runner.receive(WorkflowCommand(type="t", execution_id="x", command=command, data=DATA.get(command, {}))).events
    assert (refused.type, refused.data["code"], refused.sequence) == ("command.refused", "execution.unknown", 0)


@pytest.mark.parametrize(
    "data", [None, 7, "x", [], {"name": 7}, {"step": [], "choice": {}}, {"parent": {"execution_id": 1}}, {"definition": 3}]
)
@pytest.mark.parametrize("command", TABLE)
def test_no_data_breaks_a_command(command: Any, data: Any) -> None:
    for execution in ("test", "other"):
        simulation = brought_to("running")
        decision = simulation.runner.receive(WorkflowCommand(type="t", execution_id=execution, command=command, data=data))
        if execution == "other" or command in ("answer", "signal", "fork"):
            assert [event.type for event in decision.events] == ["command.refused"]
