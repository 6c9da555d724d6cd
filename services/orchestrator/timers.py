"""Timers of an execution: which there are, and what follows when one fires.

At one instant what makes something go on comes before what ends it (an end of a `wait` before its time-out), and outer time-outs
before inner ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from services.orchestrator import attempts, endings, progress
from services.orchestrator.cancelling import cancel_list
from services.orchestrator.draft import Draft
from services.orchestrator.state import TERMINAL, Error, Execution, StepState
from streams.durations import format_duration


class Kind(IntEnum):
    """What a timer is for, in the order in which timers of one instant fire."""

    WAKE = 0  #: a `wait` ends
    DEADLINE = 1  #: nobody has answered an approval
    EXECUTION = 2  #: time-out of the workflow
    STEP = 3  #: time-out of a step
    ATTEMPT = 4  #: time-out of an attempt
    RETRY = 5  #: the delay before the next attempt is over


@dataclass(frozen=True, slots=True, order=True)
class Timer:
    """One timer. The order of the fields is the order of firing."""

    due_us: int
    kind: Kind
    rank: int = 0  #: place among the live steps: outer ones come first
    instance: str = ""


def timers(state: Execution) -> Iterator[Timer]:
    """All timers that run in this state."""
    if state.status in TERMINAL:
        return
    if state.timeout_us is not None and state.ending is None:
        yield Timer(state.timeout_us, Kind.EXECUTION)
    for rank, instance in enumerate(state.live):
        yield from _step_timers(state.steps[instance], rank, instance, paused=state.paused_us is not None)


def _step_timers(step: StepState, rank: int, instance: str, *, paused: bool) -> Iterator[Timer]:
    if paused and step.status != "running":
        return  # what waits or is between two attempts stands still
    if step.approval is not None:
        if step.approval.deadline_us is not None:
            yield Timer(step.approval.deadline_us, Kind.DEADLINE, rank, instance)
        return  # while a step waits for a human its time-outs stand still
    if step.timeout_us is not None:
        yield Timer(step.timeout_us, Kind.STEP, rank, instance)
    if step.attempt_timeout_us is not None:
        yield Timer(step.attempt_timeout_us, Kind.ATTEMPT, rank, instance)
    if step.wake_us is not None:
        yield Timer(step.wake_us, Kind.WAKE if step.status == "waiting" else Kind.RETRY, rank, instance)


def due(state: Execution) -> int | None:
    """When the next timer is due, microseconds since the epoch; None: there is none."""
    return min((timer.due_us for timer in timers(state)), default=None)


def fire_due(draft: Draft) -> None:
    """Fires all timers that are due, in the order of their times, each with all that follows from it."""
    while True:
        timer = min(timers(draft.state), default=None)
        if timer is None or timer.due_us > draft.now_us:
            return
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
    for steps in draft.inner_lists(place.step, draft.state.step(instance)):
        cancel_list(draft, steps, suffix, "timeout")
