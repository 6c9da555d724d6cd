"""Short ways to say a workflow and a scenario."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.orchestrator.scenario import read_scenario
from services.orchestrator.simulation import Simulation

Outcome = dict[str, Any]
Run = Callable[..., Outcome]


def operation(id: str, *dependencies: str, **fields: Any) -> dict[str, Any]:
    """A module operation `work.<id>`."""
    return {
        "id": id,
        "type": "module-operation",
        "module": "work",
        "operation": id,
        "dependencies": list(dependencies),
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }


def workflow(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A workflow of these steps."""
    return {"id": "w", "name": "w", "steps": list(steps), **{name.replace("_", "-"): value for name, value in fields.items()}}


def error(code: str = "broken", *, retryable: bool = False, after: str = "0ms") -> dict[str, Any]:
    """A module's answer: an error."""
    return {"error": {"code": code, "message": f"{code}!", "retryable": retryable}, "after": after}


def result(value: Any = None, after: str = "0ms") -> dict[str, Any]:
    """A module's answer: a result."""
    return {"result": value if value is not None else {}, "after": after}


@pytest.fixture
def run() -> Run:
    """Runs a workflow to where nothing more can happen; every step of it is checked: replay equals live."""

    def run(document: dict[str, Any], *, at: list[Any] | None = None, input: Any = None, **modules: list[Any]) -> Outcome:
        answers = {f"work.{name.replace('_', '-')}": given for name, given in modules.items()}
        scenario = read_scenario({"modules": answers, "at": at or [], "input": {} if input is None else input})
        return Simulation(document, scenario, checked=True).run()

    return run


def types(outcome: Outcome, step: str | None = None) -> list[str]:
    """The transitions' types in order, all or those of one step."""
    return [event["type"] for event in outcome["transitions"] if step is None or event["step_id"] == step]


def statuses(outcome: Outcome) -> dict[str, str]:
    """Status by step."""
    return {name: step["status"] for name, step in outcome["steps"].items()}


def started_at_ms(outcome: Outcome, step: str, attempt: int = 1) -> int:
    """When an attempt began, milliseconds after the execution."""
    from datetime import datetime

    first = datetime.fromisoformat(outcome["transitions"][0]["time"])
    found = next(
        event for event in outcome["transitions"] if (event["type"], event["step_id"], event["attempt"]) == ("step.started", step, attempt)
    )
    return round((datetime.fromisoformat(found["time"]) - first).total_seconds() * 1000)


def retrying(**policy: Any) -> dict[str, Any]:
    return {"retry-policy": {name.replace("_", "-"): value for name, value in policy.items()}}


def falling_back(*actions: dict[str, Any]) -> dict[str, Any]:
    return {"fallback-actions": list(actions)}


def foreach(*steps: dict[str, Any], items: Any = "${input.items}", id: str = "each", **fields: Any) -> dict[str, Any]:
    """A `foreach`; `as_` is its `as`."""
    more = {name.rstrip("_").replace("_", "-"): value for name, value in fields.items()}
    return {"id": id, "type": "foreach", "items": items, "steps": list(steps), **more}


def loop(*steps: dict[str, Any], while_: str, id: str = "again", most: int = 10, **fields: Any) -> dict[str, Any]:
    """A `loop` of at most ten turns."""
    more = {name.replace("_", "-"): value for name, value in fields.items()}
    return {"id": id, "type": "loop", "while": while_, "max-iterations": most, "steps": list(steps), **more}


def transform(id: str, value: str, *dependencies: str) -> dict[str, Any]:
    return {"id": id, "type": "transform", "value": value, "dependencies": list(dependencies)}
