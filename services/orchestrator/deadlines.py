"""The timers of a step: what it waits for, and until when. Pure; `timers` says what follows when one fires."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from services.orchestrator.state import StepState


class Kind(IntEnum):
    """What a timer is for, in the order in which timers of one instant fire."""

    WAKE = 0  #: a `wait` ends
    DEADLINE = 1  #: nobody has answered an approval
    EXECUTION = 2  #: time-out of the workflow
    STEP = 3  #: time-out of a step
    ATTEMPT = 4  #: time-out of an attempt
    RETRY = 5  #: the delay before the next attempt is over


class Timer(NamedTuple):
    """One timer. The order of the fields is the order of firing."""

    due_us: int
    kind: Kind
    rank: int = 0  #: place among the live steps: outer ones come first
    instance: str = ""


def step_timers(step: StepState, rank: int, instance: str, *, paused: bool) -> tuple[Timer, ...]:
    """The timers of a live step that run."""
    if paused and step.status != "running":
        return ()  # what waits or is between two attempts stands still
    if step.approval is not None:
        deadline_us = step.approval.deadline_us
        # While a step waits for a human its time-outs stand still.
        return () if deadline_us is None else (Timer(deadline_us, Kind.DEADLINE, rank, instance),)
    found: tuple[Timer, ...] = ()
    if step.timeout_us is not None:
        found = (Timer(step.timeout_us, Kind.STEP, rank, instance),)
    if step.attempt_timeout_us is not None:
        found = (*found, Timer(step.attempt_timeout_us, Kind.ATTEMPT, rank, instance))
    if step.wake_us is not None:
        kind = Kind.WAKE if step.status == "waiting" else Kind.RETRY
        found = (*found, Timer(step.wake_us, kind, rank, instance))
    return found
