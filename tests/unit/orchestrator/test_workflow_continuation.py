"""Decisions that would be too large are cut: nothing is lost or done twice, and nothing comes in between."""

from __future__ import annotations

from random import Random
from typing import Any

import orjson
import pytest

from services.orchestrator.scenario import read_scenario
from services.orchestrator.simulation import Simulation
from services.orchestrator.state import TERMINAL
from streams import limits
from streams.log.inputs import Arrived, Inputs
from tests.unit.orchestrator.conftest import foreach, loop, operation, statuses, transform, workflow
from tests.workloads import laws
from tests.workloads.cases import draw, run_to_the_end, simulate


class Watched(Simulation):
    """Keeps how large the decisions were: records, and bytes of their data."""

    def __init__(self, document: dict[str, Any], **scenario: Any) -> None:
        super().__init__(document, read_scenario(scenario))
        self.sizes: list[tuple[int, int]] = []

    def step(self) -> bool:
        before = len(self.runner.log)
        goes_on = super().step()
        events = [entry.event for entry in self.runner.log[before:]]
        self.sizes.append((len(events), sum(len(orjson.dumps(event.data)) for event in events)))
        return goes_on

    def cuts(self) -> int:
        """How many decisions were cut. Checks that none was too large, and that the log alone gives the same state."""
        assert max(count for count, _ in self.sizes) <= limits.STEP_EVENTS_PER_INPUT_MAX
        assert self.runner.replay() == dict(self.runner.view.aggregates)
        return len(self.runner.events("continuation"))


ITEMS = list(range(700))


def test_many_turns_begin_in_several_decisions_of_one_moment() -> None:
    simulation = Watched(workflow(foreach(operation("a"), operation("b", "a"))), input={"items": ITEMS})
    simulation.scenario.modules.update(read_scenario({"modules": {"work.a": [{"result": 1, "after": "1s"}]}}).modules)
    outcome = simulation.run()
    assert (outcome["status"], outcome["duration_ms"]) == ("completed", 1000)
    assert outcome["output"]["each"] == [{"a": 1, "b": {}}] * len(ITEMS)
    assert simulation.cuts() >= 1
    assert {event["time"] for event in outcome["transitions"] if event["type"] == "turn.started"} == {"2026-01-01T00:00:00.000000Z"}
    assert outcome["steps"]["each"]["attempts"] == outcome["steps"]["b[699]"]["attempts"] == 1


def test_a_cancellation_of_very_much_is_one_moment_and_is_undone_once() -> None:
    undone = operation("first", compensation={"type": "module-operation", "module": "work", "operation": "undo"})
    document = workflow(undone, foreach(operation("a"), dependencies=["first"]))
    simulation = Watched(document, input={"items": ITEMS}, modules={"work.a": ["never"]}, at=[{"time": "5s", "cancel": {"by": "ann"}}])
    outcome = simulation.run()
    assert (outcome["status"], outcome["duration_ms"], outcome["compensated"]) == ("cancelled", 5000, True)
    found = statuses(outcome)
    assert {found[f"a[{item}]"] for item in ITEMS} == {"cancelled"}
    assert [event["type"] for event in outcome["transitions"]].count("compensation.started") == 1
    assert simulation.cuts() >= 2


def test_a_time_out_of_very_much_fails_the_step_once() -> None:
    document = workflow(foreach(operation("a"), timeout="5s"), {"id": "w", "type": "wait", "for": "5s"})
    outcome = (simulation := Watched(document, input={"items": ITEMS}, modules={"work.a": ["never"]})).run()
    assert (outcome["status"], outcome["duration_ms"], outcome["error"]["code"]) == ("failed", 5000, "timeout")
    assert [event["type"] for event in outcome["transitions"] if event["step_id"] == "each"].count("step.timed_out") == 1
    assert statuses(outcome)["w"] == "completed", "a wait that ends at that moment ends well"
    assert simulation.cuts() >= 2


def test_a_failing_step_with_very_much_inside_fails_once() -> None:
    children = [operation(f"c{number}") for number in range(600)]
    inner = {"id": "p", "type": "parallel", "fail-fast": True, "steps": [operation("bad"), *children]}
    answers = {"work.bad": [{"error": {"code": "broken"}, "after": "1s"}], **{f"work.c{number}": ["never"] for number in range(600)}}
    outcome = (simulation := Watched(workflow(inner), modules=answers)).run()
    assert (outcome["status"], outcome["duration_ms"], outcome["error"]["code"]) == ("failed", 1000, "broken")
    assert [event["type"] for event in outcome["transitions"] if event["step_id"] == "p"] == ["step.started", "step.failed"]
    assert simulation.cuts() >= 2


def test_a_large_branch_that_is_not_taken_is_skipped_whole() -> None:
    large = {"id": "p", "type": "parallel", "steps": [operation(f"c{number}") for number in range(900)]}
    taken = {
        "id": "c",
        "type": "conditional",
        "condition": {"type": "expression", "expression": "false"},
        "then": large,
        "else": operation("e"),
    }
    outcome = (simulation := Watched(workflow(taken))).run()
    assert outcome["status"] == "completed"
    assert list(statuses(outcome).values()).count("skipped") == 901
    assert statuses(outcome)["e"] == "completed"
    assert simulation.cuts() == 1


def test_a_loop_that_nothing_interrupts_does_not_keep_others_waiting() -> None:
    document = workflow(loop(transform("t", "iteration * 2"), while_="iteration < 1000", most=1000))
    outcome = (simulation := Watched(document)).run()
    assert [turn["t"] for turn in outcome["output"]["again"]] == list(range(0, 2000, 2))
    assert simulation.cuts() >= 8


def test_large_parameters_cut_a_decision_by_its_bytes() -> None:
    document = workflow(foreach(operation("a", parameters={"blob": "${input.blob}"})))
    simulation = Watched(document, input={"items": list(range(60)), "blob": "x" * 500_000})
    assert simulation.run()["status"] == "completed"
    assert simulation.cuts() >= 3
    assert max(size for _, size in simulation.sizes) < limits.LOG_MESSAGE_BYTES_MAX * 3 / 4


def test_nothing_comes_between_a_cut_decision_and_its_continuation() -> None:
    asks = foreach({"id": "a", "type": "approval"})
    simulation = Watched(workflow(asks), input={"items": ITEMS}, at=[{"time": 0, "pause": {}}])
    simulation.step()
    state = simulation.runner.view.state("test")
    assert state is not None
    assert simulation.machine.due(state) == 0
    kinds = [event["type"] for event in simulation.run()["transitions"]]
    last = max(place for place, kind in enumerate(kinds) if kind == "continuation")
    assert last < kinds.index("execution.paused")
    assert kinds.count("turn.started") == kinds[: kinds.index("execution.paused")].count("turn.started") > 1


def test_the_kernel_takes_what_is_due_at_once_before_all_that_waits() -> None:
    inputs = Inputs()
    commands, answers = inputs.add("commands", 1), inputs.add("answers", 0)
    answers.queue.append(Arrived(lane="workflow", time_us=1, record=None, position=None))
    assert inputs.choose(0, now_us=100) == 0
    assert inputs.choose(1, now_us=100) is answers
    commands.behind = True
    assert inputs.choose(0, now_us=100) is None, "after a takeover nothing is decided before everything has been read"


@pytest.mark.parametrize("block", range(0, 40, 10))
def test_cases_of_plain_seeds_may_be_cut_everywhere(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STEP_EVENTS_PER_INPUT_MAX", 17)
    for seed in range(block, block + 10):
        case = draw(random := Random(seed))
        simulation = simulate(case)
        for _ in run_to_the_end(simulation, random):
            pass
        laws.check(simulation.definition, simulation.runner.events(), "test")
        state = simulation.runner.view.state("test")
        assert state is not None
        assert state.status in TERMINAL, seed
