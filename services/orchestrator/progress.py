"""Lists of steps: what is ready starts, what has failed stops, what is done ends its owner.

`settle` works through the lists in which something has changed, until nothing changes any more. It can be run on any state
(`settle_all`), since what is to be done follows from the state alone.
"""

from __future__ import annotations

from typing import assert_never

from services.orchestrator import attempts, endings, turns
from services.orchestrator.cancelling import cancel
from services.orchestrator.definition import ListRole, Parallel, Step, StepList
from services.orchestrator.draft import Draft, is_whole
from services.orchestrator.scope import turn_number
from services.orchestrator.state import ENDED, ENDED_BADLY, ENDED_WELL, Error, StepState


def settle(draft: Draft) -> None:
    """Does all that follows from the changes noted in the draft."""
    while draft.changed:
        steps, suffix = draft.changed[0]
        _advance(draft, steps, suffix)
        draft.changed.popleft()  # only now: a decision that is cut meanwhile begins with it again


def settle_all(draft: Draft) -> None:
    """As `settle`, for every list that runs: after a pause, when nothing is known about what has changed."""
    for instance in draft.state.live_in_order():
        place, suffix = draft.place(instance)
        draft.changed.extend(draft.open_lists(place.step, draft.state.step(instance), suffix))
    draft.changed.append((draft.definition.steps, ""))
    settle(draft)


def _advance(draft: Draft, steps: StepList, suffix: str) -> None:
    if not _is_open(draft, steps, suffix):
        return
    draft.check_room()
    paused = draft.state.paused_us is not None
    if is_whole(steps, suffix):
        turns.advance(draft, steps, suffix, paused)
        return
    if draft.is_stopping(steps, suffix):
        if paused:
            return
        if steps.role is ListRole.TURN:
            turns.note_failure(draft, steps, suffix)
        _stop(draft, steps, suffix)
    elif not paused:
        _start_ready(draft, steps, suffix)
    if draft.all_ended(steps, suffix):
        _end(draft, steps, suffix, paused)


def _is_open(draft: Draft, steps: StepList, suffix: str) -> bool:
    """Whether the owner of a list is still running it: a list may have been noted before its owner ended."""
    if steps.role is ListRole.WORKFLOW:
        return draft.state.ending is None and draft.state.ended_us == 0
    owner = draft.owner_of(steps, suffix)
    assert owner is not None, "only the workflow's list has no owner"
    state = draft.state.step(owner)
    if steps.role is ListRole.COMPENSATION:
        return state.compensation == "running"
    if state.status != "running":
        return False
    if steps.role is ListRole.TURN:
        running = state.turns is not None and state.fallback is None
        return running and (is_whole(steps, suffix) or turn_number(suffix, steps.depth) in state.turns.running)  # type: ignore[union-attr]
    place, outer = draft.place(owner)
    return any(steps is inner for inner, _ in draft.open_lists(place.step, state, outer))


# --- starting ---------------------------------------------------------------------------------------------------------


def _start_ready(draft: Draft, steps: StepList, suffix: str) -> None:
    ready = _ready(draft, steps, suffix)
    for _, _, step in ready:
        draft.check_room()
        if draft.is_stopping(steps, suffix):
            _stop(draft, steps, suffix)
            return
        if steps.limit is None or _active(draft, steps, suffix) < steps.limit:
            attempts.start(draft, step, suffix)
        elif draft.state.step(step.id + suffix).status == "pending":
            draft.record("step.scheduled", {}, step=step.id + suffix, attempt=draft.state.step(step.id + suffix).attempt)


def _ready(draft: Draft, steps: StepList, suffix: str) -> list[tuple[int, int, Step]]:
    """Steps whose dependencies have all ended well, under a limit by priority, the order in which they became ready, and of the list."""
    found: list[tuple[int, int, Step]] = []
    for index, step in enumerate(steps.steps):
        state = draft.state.step(step.id + suffix)
        if not _awaits_start(state):
            continue
        since = 0
        for name in step.dependencies:
            dependency = draft.state.step(name + suffix)
            if dependency.status in ENDED_WELL:
                since = max(since, dependency.ended_us)
                continue
            since = -1
            if steps.role is ListRole.PARALLEL and dependency.status in ENDED:
                _give_up(draft, step.id + suffix, name + suffix)
            break
        if since >= 0:
            found.append((since, index, step))
    return found if steps.limit is None else sorted(found, key=lambda entry: (-entry[2].priority, *entry[:2]))


def _awaits_start(state: StepState) -> bool:
    """Whether a step has not begun: it waits for its dependencies or for a free place."""
    return state.status == "pending" or (state.status == "scheduled" and state.wake_us is None)


def _give_up(draft: Draft, instance: str, dependency: str) -> None:
    """A child of a `parallel` whose dependency was rejected can never start."""
    error = Error(code="dependency.failed", message=f"The step {dependency}, on which it depends, did not end well.")
    cancel(draft, instance, "dependency", error=error.to_json())
    draft.touch(instance)


def _active(draft: Draft, steps: StepList, suffix: str) -> int:
    """Steps of the list that have begun and not ended: running, waiting, or between two attempts."""
    states = (draft.state.step(step.id + suffix) for step in steps.steps)
    return sum(state.status in ("running", "waiting") or (state.status == "scheduled" and state.wake_us is not None) for state in states)


# --- stopping ---------------------------------------------------------------------------------------------------------


def _stop(draft: Draft, steps: StepList, suffix: str) -> None:
    """Nothing new starts in a list that has failed; what runs may end, unless it is to be cancelled at once."""
    at_once = draft.definition.cancel_on_failure or (draft.fails_fast(steps) and draft.has_failed(steps, suffix))
    for step in steps.steps:
        instance = step.id + suffix
        state = draft.state.step(instance)
        if state.status in ENDED:
            continue
        if at_once or state.status in ("pending", "scheduled"):
            cancel(draft, instance, "failure")
        else:
            draft.changed.extend(draft.open_lists(step, state, suffix))


# --- ending -----------------------------------------------------------------------------------------------------------


def _end(draft: Draft, steps: StepList, suffix: str, paused: bool) -> None:
    """All steps of a list have ended: so does what it belongs to. What follows from a failure waits while paused."""
    match steps.role:
        case ListRole.WORKFLOW:
            if not paused:
                endings.end_workflow(draft)
        case ListRole.COMPENSATION:
            endings.end_compensation(draft, steps, suffix)
        case ListRole.PARALLEL:
            _end_parallel(draft, steps, suffix)
        case ListRole.THEN | ListRole.ELSE | ListRole.FALLBACK:
            _end_single(draft, steps, suffix)
        case ListRole.TURN:
            turns.end_turn(draft, steps, suffix, paused)
        case _:
            assert_never(steps.role)


def _end_single(draft: Draft, steps: StepList, suffix: str) -> None:
    """The one step of a branch or fallback decides about its owner."""
    owner = draft.owner_of(steps, suffix)
    assert owner is not None, "a branch has an owner"
    child = steps.steps[0].id + suffix
    state = draft.state.step(child)
    if state.status in ENDED_WELL:
        attempts.complete(draft, owner, None, gathered={"kind": "child", "step": child})
    elif state.status in ENDED_BADLY:
        attempts.fail_attempt(draft, owner, _error(state), retriable=steps.role is not ListRole.FALLBACK)
    else:
        draft.record_step("step.cancelled", owner, {"reason": "inside"})
        draft.touch(owner)


def _end_parallel(draft: Draft, steps: StepList, suffix: str) -> None:
    owner = draft.owner_of(steps, suffix)
    assert owner is not None, "a parallel's list has an owner"
    place, _ = draft.place(owner)
    action = place.step.action
    assert isinstance(action, Parallel), "the list belongs to a parallel"
    states = {step.id + suffix: draft.state.step(step.id + suffix) for step in steps.steps}
    failed = draft.state.failed
    rejected = [instance for instance in states if instance in failed] if failed else []
    if rejected and (action.fail_fast or action.require_all):
        attempts.fail_attempt(draft, owner, _error(states[min(rejected, key=failed.__getitem__)]))
    elif draft.is_stopping(place.steps, suffix) and any(state.status == "cancelled" for state in states.values()):
        draft.record_step("step.cancelled", owner, {"reason": "inside"})
        draft.touch(owner)
    else:
        attempts.complete(draft, owner, None, gathered={"kind": "parallel", "steps": list(states)})


def _error(state: StepState) -> Error:
    return state.error or Error(code="failed", message="The step failed.")
