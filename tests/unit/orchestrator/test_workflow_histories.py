"""Histories that earlier versions have written: read for ever, meant as then, and gone on with by today's decisions."""

from __future__ import annotations

from random import Random

import pytest

from services.orchestrator.definitions import parse_valid
from services.orchestrator.effects import request_id
from services.orchestrator.evolve import EVOLVERS
from services.orchestrator.state import TERMINAL
from services.orchestrator.trial import differences
from tests.workloads import histories, laws
from tests.workloads.cases import draw, run_to_the_end, simulate

NAMES = histories.names()
ADVICE = "record a history that has it: python -m tests.workloads.histories"


@pytest.mark.parametrize("name", NAMES)
def test_a_history_means_what_it_meant(name: str) -> None:
    history = histories.read(name)
    events = [event for decision in history.decisions for event in decision]
    assert list(differences(history.views, histories.views(events), "")) == []
    answered = set[str]()
    for number, (decision, followed) in enumerate(zip(history.decisions, history.followed, strict=True), start=1):
        answered |= {
            request_id(event.execution_id, event.step_id or "", event.attempt) for event in decision if event.type == "condition.answered"
        }
        # When some of these were recorded, a condition that had its answer was asked again by a new owner.
        right = [[name, due, [request for request in requests if request not in answered]] for name, due, requests in followed]
        assert histories.facts(history.resumed(number)) == right, f"after decision {number}"


@pytest.mark.parametrize("name", NAMES)
def test_todays_decisions_go_on_from_every_moment_of_a_history(name: str) -> None:
    history = histories.read(name)
    definition = parse_valid(history.definition)
    for number in range(1, len(history.decisions) + 1):
        simulation = history.resumed(number, checked=True)
        main = history.decisions[0][0].execution_id
        for _ in run_to_the_end(simulation, Random(number)):
            pass
        state = simulation.runner.view.state(main)
        if state is None:
            assert history.decisions[0][0].type == "command.refused"
            continue
        assert state.status in TERMINAL
        laws.check(definition, simulation.runner.events(), main)


def test_what_is_recorded_is_never_written_again() -> None:
    listed, found = histories.checksums(histories.FOLDER, NAMES)
    assert found == listed


def test_every_shape_that_is_written_today_is_recorded() -> None:
    recorded: set[str] = set()
    for name in NAMES:
        recorded |= histories.shapes(event for decision in histories.read(name).decisions for event in decision)
    written = {"execution.started", "command.refused", *EVOLVERS}
    for seed in range(200):
        simulation = simulate(draw(case := Random(seed)), checked=False)
        for _ in run_to_the_end(simulation, case):
            pass
        written |= histories.shapes(simulation.runner.events())
    assert sorted(written - recorded) == [], ADVICE
