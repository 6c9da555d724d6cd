"""A workflow put to the test: scenarios are run, and what came out is held against what they expect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.orchestrator.scenario import read_scenario
from services.orchestrator.scope import equal
from services.orchestrator.simulation import Simulation
from streams.records import Json


def run_scenario(document: Json, scenario: Json) -> dict[str, Any]:
    """Runs a definition under a scenario; the outcome, with `differences` if the scenario expects something.

    Raises `InvalidDocument` (`definition.invalid`, `scenario.invalid`).
    """
    given = read_scenario(scenario)
    outcome = Simulation(document, given).run()
    if given.expect is not None:
        outcome["differences"] = list(differences(given.expect, outcome, ""))
    return outcome


def differences(expected: Json, actual: Json, path: str) -> Iterator[dict[str, Json]]:
    """Where `actual` lacks what is expected: of objects the named keys, lists and other values whole."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key, value in expected.items():
            if key in actual:
                yield from differences(value, actual[key], f"{path}/{key}")
            else:
                yield {"path": f"{path}/{key}", "expected": value, "actual": None}
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for place, (wanted, found) in enumerate(zip(expected, actual, strict=True)):
            yield from differences(wanted, found, f"{path}/{place}")
    elif not equal(expected, actual):
        yield {"path": path, "expected": expected, "actual": actual}
