"""Decisions that would be larger than one may be: they are cut, and go on before anything else is decided for the execution.

One input may cause a great many records: a `foreach` of ten thousand items begins, an execution with as many running steps is
cancelled. What is to be done follows from the state, so at certain places (`Draft.check_room`) a decision may be cut. Its last
record is then a `continuation`; it says what was under way. `timers.due` makes it due before all else, and a successor sees
the same, since it is part of the fold.

Data: `tasks`, each what `Draft.resumable` was given, to be done again in this order; `lists` (owner, role, turn suffix) in which
something had changed; `timers`: whether other timers of the same moment may be due.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from services.orchestrator import attempts, endings, progress, timers
from services.orchestrator.definition import ListRole, StepList, lists_of
from services.orchestrator.draft import Draft, Unfinished
from services.orchestrator.state import Error
from streams.errors import Defect
from streams.records import Json


class Bounded:
    """`with Bounded(draft): …` records a `continuation` if what is done inside has to be cut."""

    def __init__(self, draft: Draft, *, fires_timers: bool = False) -> None:
        self._draft = draft
        self._fires_timers = fires_timers

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, kind: type[BaseException] | None, cut: BaseException | None, trace: TracebackType | None) -> bool:
        if not isinstance(cut, Unfinished):
            return False
        data: dict[str, Any] = {"tasks": cut.tasks, "lists": [_named(steps, suffix) for steps, suffix in self._draft.changed]}
        self._draft.record("continuation", data | ({"timers": True} if self._fires_timers else {}))
        return True


def go_on(draft: Draft) -> None:
    """Goes on with a decision that was cut."""
    work: Any = draft.state.continuing
    fires_timers = bool(work.get("timers"))
    with Bounded(draft, fires_timers=fires_timers):
        draft.changed.extend(_list(draft, *named) for named in work["lists"])
        for place, task in enumerate(work["tasks"]):
            try:
                _do(draft, dict(task))
            except Unfinished as cut:
                cut.tasks.extend(work["tasks"][place + 1 :])
                raise
        progress.settle(draft)
        if draft.state.paused_us is None:
            endings.continue_ending(draft)
            progress.settle(draft)
        if fires_timers:
            timers.fire_due(draft)
    if not draft.events:
        draft.record("continuation", {})  # nothing was left to be done; without a record it would be due for ever


def _do(draft: Draft, task: dict[str, Any]) -> None:
    match task.pop("do"):
        case "fail":
            attempts.fail_attempt(draft, task.pop("step"), Error.from_json(task.pop("error")), **task)
        case "branch":
            attempts.enter_branch(draft, task["step"])
        case "end":
            error = None if task["error"] is None else Error.from_json(task["error"])
            endings.begin_ending(draft, task["ending"], error, task["who"])
        case other:
            raise Defect("continuation.task", f"A continuation of {draft.state.id} wants {other!r}, which is not known.")


def _named(steps: StepList, suffix: str) -> list[Json]:
    return [steps.owner, str(steps.role), suffix, steps.steps[0].id]


def _list(draft: Draft, owner: str | None, role: str, suffix: str, first: str) -> tuple[StepList, str]:
    """The list that `_named` named; an owner may have several fallbacks, told apart by their steps."""
    if owner is None:
        return draft.definition.steps, suffix
    found = lists_of(draft.definition.places[owner].step)
    return next(steps for steps in found if steps.role is ListRole(role) and steps.steps[0].id == first), suffix
