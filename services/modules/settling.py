"""How aggregates leave memory. Pure.

What ended is *settled* a day after its end, and from then on only found by its id. What lives *rests* when there is no room for it
(`streams.log.resting`): it is found and listed as ever, and so is what ended, for its day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from services.modules.built_in import Aggregate
from streams.limits import ENDED_LISTED_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """An aggregate that ended is listed no more."""

    TYPE: ClassVar[str] = "module.settled"


def settle(state: Any) -> Any:
    """The state after it."""
    return replace(state, settled=True)


def due(kind: Aggregate, state: Any) -> int | None:
    """When an aggregate that ended is to be settled, microseconds since the epoch."""
    ended_us = None if kind.ended is None or state.settled else kind.ended(state)
    return None if ended_us is None else ended_us + ENDED_LISTED_MS * 1000


def ended(kind: Aggregate, state: Any) -> int | None:
    """When an aggregate ended that may leave memory."""
    return kind.ended(state) if kind.ended is not None and state.settled else None


def rests(kind: Aggregate, state: Any, time_us: int) -> bool:
    """Whether nothing is lost when the aggregate leaves memory until somebody asks for it."""
    if kind.stays or (kind.due is not None and kind.due(state) is not None):
        return False
    if kind.outstanding is not None and any(True for _ in kind.outstanding(state)):
        return False
    return is_listed(kind, state, time_us)


def is_listed(kind: Aggregate, state: Any, time_us: int) -> bool:
    """Whether the aggregate lives, or has not ended too long ago."""
    ended_us = None if kind.ended is None else kind.ended(state)
    return ended_us is None or (not state.settled and time_us < ended_us + ENDED_LISTED_MS * 1000)
