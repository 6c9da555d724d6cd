"""A random case: a workflow, an input, commands at random times; and people who answer whatever is asked."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from services.orchestrator.scenario import read_scenario
from services.orchestrator.schema import definition_schema
from services.orchestrator.state import TERMINAL, Execution
from tests.workloads.behaviour import PlannedSimulation
from tests.workloads.definitions import SIGNALS, Definitions

HOUR_US = 3_600_000_000


def known_kinds() -> frozenset[str]:
    """The step types of this version's language."""
    return frozenset(definition_schema()["$defs"]["stepType"]["enum"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a run is given. `random` goes on where drawing the case ended: it decides what people answer."""

    document: dict[str, Any]
    scenario: dict[str, Any]
    random: Random


def draw(random: Random, kinds: Collection[str] | None = None, *, commands: bool = True) -> Case:
    """A case of these step types, by default of all."""
    definitions = Definitions(random, known_kinds() if kinds is None else kinds)
    document = definitions.workflow()
    moments = [_moment(definitions) for _ in range(definitions.pick(0, 0, 0, 1, 2, 4))] if commands else []
    return Case(document=document, scenario={"input": {"n": 1}, "at": moments}, random=random)


def _moment(definitions: Definitions) -> dict[str, Any]:
    time = definitions.pick(0, 1, 250, 1000, 1000, 2500, 8000, 60_000)
    match definitions.pick("pause", "pause", "resume", "resume", "cancel", "signal", "retry"):
        case "signal":
            return {"time": time, "signal": {"name": definitions.pick(*SIGNALS), "data": {"n": time}}}
        case command:
            return {"time": time, command: {"by": "ann", "why": "by chance"}}


def simulate(case: Case, *, checked: bool = True) -> PlannedSimulation:
    """The simulation of a case, before its first input. `checked`: after each input the fold of the log equals the live state."""
    return PlannedSimulation(case.document, read_scenario(case.scenario), checked=checked)


def run_to_the_end(simulation: PlannedSimulation, random: Random, *, rounds_max: int = 60) -> Iterator[None]:
    """Handles input after input; when nothing more can happen somebody does what is waited for. Yields after each input.

    Raises `AssertionError` if it is stuck: it has not ended, and nothing that people can do makes a difference.
    """
    for _ in range(rounds_max):
        while simulation.step():
            yield
        states = [state for _, state in simulation.runner.view.states() if state.status not in TERMINAL]
        if not states:
            return
        helped = [_help(simulation, state, random) for state in states]
        if not any(helped):
            raise AssertionError(f"stuck: {[(state.id, state.status, list(state.live)) for state in states]}")
    raise AssertionError(f"it does not end in {rounds_max} rounds")


def _help(simulation: PlannedSimulation, state: Execution, random: Random) -> bool:
    """What people do an hour later: resume, answer the questions, send the signals. False if there is nothing to do."""
    later = simulation.runner.now_us + HOUR_US
    if state.status == "paused":
        simulation.command(later, "resume", {"by": "ann"}, state.id)
        return True
    helped = False
    for name in state.live:
        step = state.step(name)
        if step.approval is not None:
            choice = step.approval.choices[random.randrange(len(step.approval.choices))]
            answer = {"step": name, "choice": choice, "by": "ann", "why": "at random", "value": {"n": 1}}
            simulation.command(later, "answer", answer, state.id)
            helped = True
        elif step.status == "waiting" and step.wake_us is None:
            for signal in SIGNALS:
                simulation.command(later, "signal", {"name": signal, "data": {"n": 2}}, state.id)
            helped = True
    return helped
