"""The `retry` command: a failed execution goes on. What failed, timed out or was cancelled runs again; what completed stays.

- What had been undone runs again, too: its effect is gone. If its compensation failed, its effect may still be there: it
  stays completed, and is undone (again) should the execution fail once more.
- A container begins again around what runs again inside it, and keeps the results of the rest. What was rejected in a
  `parallel` that completed stays rejected.
- Time-outs and retries count anew, the workflow's own time-out included; `attempts` and `duration_ms` go on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.orchestrator import progress
from services.orchestrator.attempts import inside_lists, inside_of
from services.orchestrator.definition import Conditional, ListRole, Step, StepList, lists_of
from services.orchestrator.draft import Draft, is_whole
from services.orchestrator.state import ENDED, ENDED_WELL
from streams.records import Json


def retry(draft: Draft, who: dict[str, Json]) -> None:
    """Has a failed execution go on."""
    data: dict[str, Any] = {"reset": list(dict.fromkeys(_again(draft, draft.definition.steps, ""))), **who}
    if draft.definition.timeout_ms is not None:
        data["timeout_ms"] = draft.definition.timeout_ms
    draft.record("execution.retried", data, status="running")
    draft.changed.append((draft.definition.steps, ""))
    progress.settle(draft)


def _again(draft: Draft, steps: StepList, suffix: str) -> Iterator[str]:
    """The steps (instances) of a list, and below, that run again."""
    if is_whole(steps, suffix):
        turns = draft.state.step(draft.owner_of(steps, suffix) or "").turns
        for number in range(0 if turns is None else turns.ever):
            yield from _again(draft, steps, f"{suffix}[{number}]")
        return
    for step in steps.steps:
        yield from _step_again(draft, step, suffix)


def _step_again(draft: Draft, step: Step, suffix: str) -> Iterator[str]:
    instance = step.id + suffix
    state = draft.state.step(instance)
    if state.compensation == "completed":
        yield instance
        yield from inside_of(draft, step, suffix)
    elif (state.status in ENDED and state.status not in ENDED_WELL) or _undone_inside(draft, step, suffix):
        yield instance
        for inner in lists_of(step):
            match inner.role:
                case ListRole.FALLBACK:
                    yield from inside_lists(draft, (inner,), suffix)
                case ListRole.COMPENSATION:
                    pass  # it begins anew when it runs
                case _:
                    yield from _again(draft, inner, suffix)
                    if isinstance(step.action, Conditional):
                        yield from _not_taken(draft, inner, suffix)


def _undone_inside(draft: Draft, step: Step, suffix: str) -> bool:
    return any(draft.state.step(instance).compensation == "completed" for instance in inside_of(draft, step, suffix))


def _not_taken(draft: Draft, branch: StepList, suffix: str) -> Iterator[str]:
    """The steps of a branch that was not taken: the condition is asked again."""
    if any(draft.state.step(step.id + suffix).status == "skipped" for step in branch.steps):
        yield from inside_lists(draft, (branch,), suffix)
