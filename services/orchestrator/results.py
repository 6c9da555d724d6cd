"""Results of containers. A container's record names its children and does not repeat their results; this puts them together.

The recipe stands in the container's `step.completed` under `gathered`, so a reader of the log needs no definition:
`{"kind": "child", "step": ID}` the result of one step (a branch, a fallback's step);
`{"kind": "parallel", "steps": [ID…]}` the outcomes of all, in order;
`{"kind": "turns", "steps": [ID…], "within": SUFFIX, "turns": N}` per turn a map of step id to result
(the step of turn n is `ID + SUFFIX + [n]`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from streams.records import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a step ended, as far as a container's result shows it."""

    status: str
    result: Json
    error: Json


#: Gives the outcome of a step (instance).
Outcomes: TypeAlias = Callable[[str], Outcome]


def gather(recipe: Mapping[str, Any], outcomes: Outcomes) -> Json:
    """The result that the recipe describes."""
    if recipe["kind"] == "child":
        return outcomes(recipe["step"]).result
    if recipe["kind"] == "turns":
        steps, within = recipe["steps"], recipe["within"]
        return [{step: outcomes(f"{step}{within}[{turn}]").result for step in steps} for turn in range(recipe["turns"])]
    return {"status": "completed", "results": [_settled(step, outcomes(step)) for step in recipe["steps"]]}


def _settled(step: str, outcome: Outcome) -> dict[str, Json]:
    """One entry of a `parallel`'s results, in the shape of JavaScript's `Promise.allSettled`."""
    fulfilled = outcome.status in ("completed", "skipped")
    return {
        "stepId": step,
        "status": "fulfilled" if fulfilled else "rejected",
        "value": outcome.result if fulfilled else None,
        "error": None if fulfilled else outcome.error,
    }
