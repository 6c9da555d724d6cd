"""How what ended leaves memory: a day after its end it is *settled*, and from then on only found by its id. Pure."""

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
