"""Timers of an execution: which there are, and what follows when one fires.

At one instant what makes something go on comes before what ends it (an end of a `wait` before its time-out), and outer time-outs
before inner ones.
"""

from __future__ import annotations

from services.orchestrator import attempts, effects, endings, progress
from services.orchestrator.cancelling import cancel_list
from services.orchestrator.deadlines import Kind, Timer
from services.orchestrator.draft import Draft
from services.orchestrator.state import TERMINAL, Error, Execution
from streams.durations import format_duration


def due(state: Execution) -> int | None:
    """When the next timer is due, microseconds since the epoch; None: there is none. A decision that was cut is due before all else."""
    if state.status in TERMINAL:
        return None
    if state.continuing is not None:
        return 0
    timer = _next(state)
    return None if timer is None else timer.due_us


def _next(state: Execution) -> Timer | None:
    """The timer that fires next; its cost does not grow with the number of timers."""
    if state.status in TERMINAL:
        return None
    first = state.timers.first
    timer = None if first is None else Timer(first[0], Kind(first[1]), first[2], first[3])
    if state.timeout_us is not None and state.ending is None:
        whole = Timer(state.timeout_us, Kind.EXECUTION)
        return whole if timer is None else min(whole, timer)
    return timer


def fire_due(draft: Draft) -> None:
    """Fires all timers that are due, in the order of their times, each with all that follows from it."""
    while True:
        timer = _next(draft.state)
        if timer is None or timer.due_us > draft.now_us:
            return
        draft.check_room()
        _fire(draft, timer)
        progress.settle(draft)


def _fire(draft: Draft, timer: Timer) -> None:
    instance = timer.instance
    match timer.kind:
        case Kind.WAKE:
            draft.record_step("timer.fired", instance, {})
            attempts.complete(draft, instance, None)
        case Kind.DEADLINE:
            _deadline(draft, instance)
        case Kind.EXECUTION:
            limit = format_duration((timer.due_us - draft.state.started_us) // 1000)
            endings.begin_ending(draft, "timed_out", Error(code="timeout", message=f"The workflow did not end within {limit}."))
        case Kind.STEP:
            _end_step(draft, instance)
        case Kind.ATTEMPT:
            step = draft.state.step(instance)
            limit = format_duration((timer.due_us - step.attempt_us) // 1000)
            error = Error(code="timeout", message=f"The attempt did not end within {limit}.", retryable=True)
            _stop_inside(draft, instance)
            attempts.fail_attempt(draft, instance, error, timed_out=True)
        case Kind.HEARTBEAT:
            step = draft.state.step(instance)
            limit = format_duration(step.heartbeat_ms)
            draft.effects.append(effects.cancel_message(draft.state, instance, step, draft.now_us))  # it may live, and beat too late
            error = Error(code="timeout", message=f"The attempt gave no heartbeat for {limit}.", retryable=True)
            attempts.fail_attempt(draft, instance, error, timed_out=True)
        case Kind.RETRY:
            place, suffix = draft.place(instance)
            attempts.start(draft, place.step, suffix)


def _deadline(draft: Draft, instance: str) -> None:
    error = Error(code="timeout", message="Nobody answered before the deadline.")
    approval = draft.state.step(instance).approval
    if approval is not None and approval.escalated:
        attempts.fail(draft, instance, error, timed_out=True)
    else:
        attempts.fail_attempt(draft, instance, error, timed_out=True, retriable=False)


def _end_step(draft: Draft, instance: str) -> None:
    """A step's time is over: it is not tried again."""
    place, _ = draft.place(instance)
    limit = format_duration(place.step.timeout_ms or 0)
    error = Error(code="timeout", message=f"The step did not end within {limit}.")
    _stop_inside(draft, instance)
    attempts.fail_attempt(draft, instance, error, timed_out=True, retriable=False)


def _stop_inside(draft: Draft, instance: str) -> None:
    place, suffix = draft.place(instance)
    for steps, inner in draft.inner_lists(place.step, draft.state.step(instance), suffix):
        cancel_list(draft, steps, inner, "timeout")
