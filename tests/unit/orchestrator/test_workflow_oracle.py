"""The engine against an independent telling of the language's meaning: statuses, attempts and times, exact to the millisecond."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from services.orchestrator.scenario import read_scenario
from tests.workloads.behaviour import PlannedSimulation
from tests.workloads.definitions import Definitions
from tests.workloads.oracle import KINDS, Tie, tell


class Tellable(Definitions):
    """Definitions whose every outcome the oracle knows, with times that hardly ever meet."""

    def step(self, depth: int, *, turn: bool = False, kind: str | None = None) -> dict[str, Any]:
        step = super().step(depth, turn=turn, kind=kind)
        if step["type"] != "module-operation":
            step.pop("timeout", None)
            step.pop("error-handling", None)
        return step

    def body(self, kind: str, depth: int, *, turn: bool) -> dict[str, Any]:
        match kind:
            case "wait":
                return {"for": self.odd(9000)}
            case "transform":
                return {"value": "1 + 1"}
            case "module-operation":
                more = {"attempt-timeout": self.odd(3000)} if self.chance(30) else {}
                return {**self.operation(), **more}
            case _:
                return super().body(kind, depth, turn=turn)

    def container(self, kind: str, depth: int, *, turn: bool) -> dict[str, Any]:
        found = super().container(kind, depth, turn=turn)
        if kind == "conditional":
            found["condition"] = {"type": "expression", "expression": self.pick("true", "false", "input.n > 0", "input.n < 0")}
        return found

    def ending(self) -> Any:
        found = super().ending()
        return found if found == "never" else {**found, "after": self.odd(6000)}

    def odd(self, most: int) -> int:
        """A time that nothing else is likely to take."""
        return 1 + self.random.randrange(most)

    def policy(self) -> dict[str, Any]:
        return {**super().policy(), "initial-interval": self.odd(3000)}

    def fallback(self, *, inner: bool) -> dict[str, Any]:
        found = {"condition": self.pick("error", "timeout", "broken"), "action": self.pick("skip", "fail", "use-value")}
        return {**found, **({"value": 1} if found["action"] == "use-value" else {})}

    def workflow(self, name: str = "w", depth: int = 0) -> dict[str, Any]:
        document = super().workflow(name, depth)
        for field in ("timeout", "on-failure"):
            document.pop(field, None)
        return document


def without_references(value: Any) -> Any:
    """The oracle does not know what references are."""
    if isinstance(value, dict):
        return {name: without_references(item) for name, item in value.items() if name != "from"}
    return [without_references(item) for item in value] if isinstance(value, list) else value


def compare(seed: int) -> str:
    """Runs a case and holds it against the oracle; what became of it."""
    document = without_references(Tellable(Random(seed), KINDS).workflow())
    try:
        told = tell(document)
    except Tie:
        return "not told"
    outcome = PlannedSimulation(document, read_scenario({"input": {"n": 1}})).run()
    assert (outcome["status"], outcome["duration_ms"]) == (told.status, told.duration_ms)
    for name, step in told.steps.items():
        found = outcome["steps"][name]
        assert found["status"] == step.status, name
        if step.attempts >= 0 and found["status"] not in ("cancelled", "skipped"):
            assert found["attempts"] == step.attempts, name
    return told.status


@pytest.mark.parametrize("block", range(0, 600, 100))
def test_the_engine_does_what_the_description_says(block: int) -> None:
    found: Counter[str] = Counter()
    for seed in range(block, block + 100):
        try:
            found[compare(seed)] += 1
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
    assert found["completed"] > 15
    assert found["failed"] > 15
