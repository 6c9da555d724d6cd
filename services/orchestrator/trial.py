"""A workflow put to the test: scenarios are run, and what came out is held against what they expect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from services.orchestrator.coverage import Coverage
from services.orchestrator.definitions import parse
from services.orchestrator.scenario import read_scenario
from services.orchestrator.simulation import Simulation
from services.orchestrator.store import AnyModule
from services.orchestrator.timeline import milliseconds, timeline
from services.orchestrator.view import fold
from streams.equality import equal
from streams.records import Json, WorkflowTransition


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One scenario that was run."""

    outcome: dict[str, Any]  #: what `workflow test` prints of it, `differences` included if the scenario expects something
    transitions: tuple[WorkflowTransition, ...]
    execution_id: str

    @property
    def passed(self) -> bool:
        """Whether everything was as expected; a scenario that expects nothing passes."""
        return not self.outcome.get("differences")


def run_trial(document: Json, scenario: Json) -> Trial:
    """Runs a definition under a scenario. Raises `InvalidDocument` (`definition.invalid`, `scenario.invalid`), `InvalidInput`."""
    return _finished(Simulation(document, read_scenario(scenario)))


def _finished(simulation: Simulation) -> Trial:
    outcome, expected = simulation.run(), simulation.scenario.expect
    if expected is not None:
        outcome["differences"] = list(differences(expected, outcome, ""))
    return Trial(outcome=outcome, transitions=tuple(simulation.runner.events()), execution_id=simulation.scenario.id)


def run_scenario(document: Json, scenario: Json) -> dict[str, Any]:
    """The outcome of `run_trial`."""
    return run_trial(document, scenario).outcome


def measure(document: Json, trials: list[Trial]) -> dict[str, Any]:
    """What all trials together have taken of the definition; see `Coverage.report`."""
    coverage = Coverage(document, parse(document, AnyModule()))
    for trial in trials:
        coverage.add(trial.transitions)
    return coverage.report()


def differences(expected: Json, actual: Json, path: str) -> Iterator[dict[str, Json]]:
    """Where `actual` lacks what is expected: of objects the named keys, lists item by item if they are as long, other values whole."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key, value in expected.items():
            pointer = f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"
            if key in actual:
                yield from differences(value, actual[key], pointer)
            else:
                yield {"path": pointer, "expected": value, "actual": None}
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for place, (wanted, found) in enumerate(zip(expected, actual, strict=True)):
            yield from differences(wanted, found, f"{path}/{place}")
    elif not equal(expected, actual):
        yield {"path": path, "expected": expected, "actual": actual}


# --- as text ----------------------------------------------------------------------------------------------------------


def verdict(trial: Trial, name: str) -> str:
    """One line: whether the scenario passed, how the execution stands, after which virtual time."""
    outcome = trial.outcome
    took = f" after {milliseconds(outcome['duration_ms'])}" if outcome["duration_ms"] is not None else ""
    many = len(outcome.get("differences", ()))
    judged = f", {many} difference{'s' if many > 1 else ''}" if many else "" if "differences" in outcome else ", nothing expected"
    return f"{'✔' if trial.passed else '✘'} {name}: {outcome['status']}{took}{judged}"


def story(trial: Trial) -> str:
    """The timeline of the execution, with the events that it emitted."""
    view = fold(transition for transition in trial.transitions if transition.execution_id == trial.execution_id)
    refused = [] if view else [f"refused: {event.data['code']}: {event.data['message']}" for event in trial.transitions]
    emitted = [f"emitted {event['type']} about {event['subject']}" for event in trial.outcome["events"]]
    return "\n".join([timeline(view)] if view else refused) + ("\n\n" + "\n".join(emitted) if emitted else "")
