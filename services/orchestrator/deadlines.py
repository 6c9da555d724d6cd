"""The timers of a step: what it waits for, and until when. Pure; `timers` says what follows when one fires."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

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
    HEARTBEAT = 6  #: a running attempt was silent for too long


class Timer(NamedTuple):
    """One timer. The order of the fields is the order of firing."""

    due_us: int
    kind: Kind
    rank: int = 0  #: place among the live steps: outer ones come first
    instance: str = ""


#: A `Timer` as it is kept: a plain tuple.
Entry: TypeAlias = tuple[int, int, int, str]

_WAKE, _DEADLINE, _STEP, _ATTEMPT, _RETRY, _HEARTBEAT = (int(kind) for kind in Kind if kind is not Kind.EXECUTION)


def step_timers(step: StepState, rank: int, instance: str, *, paused: bool) -> tuple[Entry, ...]:
    """The timers of a live step that run."""
    if paused and step.status != "running":
        return ()  # what waits or is between two attempts stands still
    if step.approval is not None:
        deadline_us = step.approval.deadline_us
        # While a step waits for a human its time-outs stand still.
        return () if deadline_us is None else ((deadline_us, _DEADLINE, rank, instance),)
    found: tuple[Entry, ...] = ()
    if step.timeout_us is not None:
        found = ((step.timeout_us, _STEP, rank, instance),)
    if step.attempt_timeout_us is not None:
        found = (*found, (step.attempt_timeout_us, _ATTEMPT, rank, instance))
    if step.silent_us is not None:
        found = (*found, (step.silent_us, _HEARTBEAT, rank, instance))
    if step.wake_us is not None:
        found = (*found, (step.wake_us, _WAKE if step.status == "waiting" else _RETRY, rank, instance))
    return found
