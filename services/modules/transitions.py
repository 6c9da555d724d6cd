"""Transition tables: data from which refusals, documentation and tests are made. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from services.modules.operation import Refusal, conflict

S = TypeVar("S", bound=str)


def refuse_transition(table: Mapping[S, tuple[S, ...]], noun: str, before: S, after: S) -> Refusal | None:
    """None if `table` allows `before` → `after`, else the refusal, which names what is allowed."""
    allowed = table[before]
    if after in allowed:
        return None
    choices = f"only {', '.join(allowed)}" if allowed else "nothing: this state is final"
    return conflict(f"A {noun} that is {before} cannot become {after}; from {before} follows {choices}.")
