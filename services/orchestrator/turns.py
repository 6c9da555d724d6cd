"""Turns of a `foreach` or `loop`: how they begin, and what follows when one or all have ended.

A turn is the container's list of steps with one more number in its suffix. What is true of the turns as a whole stands in the
container's state (`state.Turns`), so that no step has to look at all of them.
"""

from __future__ import annotations

from services.orchestrator import attempts
from services.orchestrator.cancelling import cancel_list
from services.orchestrator.definition import Foreach, Loop, Step, StepList
from services.orchestrator.draft import Draft
from services.orchestrator.scope import Scope, turn_number
from services.orchestrator.state import ENDED_BADLY, Error, Turns
from streams.matching.expressions import ExpressionFailed


def advance(draft: Draft, steps: StepList, suffix: str, paused: bool) -> None:
    """Looks at the turns as a whole: begins those that may begin, and ends the container when there is none left."""
    owner = draft.owner_of(steps, suffix)
    assert owner is not None, "turns have an owner"
    place, _ = draft.place(owner)
    stopping = draft.is_stopping(place.steps, suffix)
    if not paused and not stopping and _turns(draft, owner).failed is None:
        match place.step.action:
            case Foreach() as action:
                _begin_turns(draft, owner, action, suffix)
            case Loop() as action:
                if not _next_iteration(draft, owner, place.step, action, suffix):
                    return
            case _:
                raise AssertionError("only a foreach or a loop has turns")
    turns = _turns(draft, owner)
    if turns.running:
        return
    if turns.failed is not None:
        if not paused:
            error = draft.state.step(turns.failed).error or Error(code="failed", message=f"The step {turns.failed} failed.")
            attempts.fail_attempt(draft, owner, error)
    elif stopping and (turns.cut or turns.begun != turns.total):
        draft.record_step("step.cancelled", owner, {"reason": "inside"})
        draft.touch(owner)
    elif turns.begun == turns.total:
        _complete(draft, owner, steps, suffix, turns)


def _turns(draft: Draft, owner: str) -> Turns:
    turns = draft.state.step(owner).turns
    assert turns is not None, "a container that runs has turns"
    return turns


def _complete(draft: Draft, owner: str, steps: StepList, suffix: str, turns: Turns) -> None:
    for number in range(turns.begun, turns.most):
        cancel_list(draft, steps, f"{suffix}[{number}]", "turn")  # of an earlier attempt, which had more turns
    names = [step.id for step in steps.steps]
    attempts.complete(draft, owner, None, gathered={"kind": "turns", "steps": names, "within": suffix, "turns": turns.begun})


def _begin_turns(draft: Draft, owner: str, action: Foreach, suffix: str) -> None:
    """Begins as many turns as there are places for, and as the decision has room for."""
    turns = _turns(draft, owner)
    assert turns.total is not None, "the items of a foreach are counted"
    free = turns.total - turns.begun
    if action.limit is not None:
        free = min(free, action.limit - len(turns.running))
    if free <= 0:
        return
    draft.check_room()
    # Each step that begins makes a record at least, and its answer may come at once.
    count = min(free, max(1, draft.room // (2 * len(action.steps.steps))))
    draft.record_step("turn.started", owner, {"first": turns.begun, "count": count})
    draft.changed.extend((action.steps, f"{suffix}[{number}]") for number in range(turns.begun, turns.begun + count))
    if count < free:
        draft.changed.append((action.steps, suffix))


def _next_iteration(draft: Draft, owner: str, step: Step, action: Loop, suffix: str) -> bool:
    """Begins the next turn if `while` holds; whether nothing else is to be done now is said by False."""
    turns = _turns(draft, owner)
    if turns.running:
        return False
    draft.check_room()
    number = turns.begun
    latest = f"{suffix}[{number - 1}]" if number else suffix
    scope = Scope(draft.definition, draft.state, latest, draft.definition.places[step.id].steps, iteration=number)
    try:
        goes_on = action.condition.holds(scope.variables(action.condition))
    except ExpressionFailed as fault:
        attempts.fail_attempt(draft, owner, Error(code="expression.failed", message=str(fault)))
        return False
    if not goes_on:
        _complete(draft, owner, action.steps, suffix, turns)
    elif number == action.max_iterations:
        message = f"The condition still holds after {action.max_iterations} turns."
        attempts.fail_attempt(draft, owner, Error(code="loop.limit", message=message))
    else:
        draft.record_step("turn.started", owner, {"first": number, "count": 1})
        draft.changed.append((action.steps, f"{suffix}[{number}]"))
    return False


def note_failure(draft: Draft, steps: StepList, suffix: str) -> None:
    """The turn has failed, which fails the container: no other turn begins, those that run may end, or are cancelled at once."""
    owner = draft.owner_of(steps, suffix)
    assert owner is not None, "a turn has an owner"
    if _turns(draft, owner).failed is not None or not draft.has_failed(steps, suffix):
        return
    failed = draft.state.failed
    first = min((step.id + suffix for step in steps.steps if step.id + suffix in failed), key=failed.__getitem__)
    draft.record_step("turn.failed", owner, {"turn": turn_number(suffix, steps.depth), "step": first})
    if draft.definition.cancel_on_failure:
        outer = draft.place(owner)[1]
        draft.changed.extend((steps, f"{outer}[{number}]") for number in _turns(draft, owner).running)


def end_turn(draft: Draft, steps: StepList, suffix: str, paused: bool) -> None:
    """All steps of a turn have ended. What follows from a failure waits while paused."""
    owner = draft.owner_of(steps, suffix)
    assert owner is not None, "a turn has an owner"
    states = [draft.state.step(step.id + suffix) for step in steps.steps]
    failed = any(state.status in ENDED_BADLY for state in states)
    if paused and failed:
        return
    if failed:
        note_failure(draft, steps, suffix)  # its steps may have failed at once, when they began
    cut = {"cut": True} if any(state.status == "cancelled" for state in states) else {}
    draft.record_step("turn.ended", owner, {"turn": turn_number(suffix, steps.depth), **cut})
    draft.changed.append((steps, draft.place(owner)[1]))
