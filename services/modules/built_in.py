"""What a built-in module is, as the machine sees it: its operations, its kinds of aggregates, its events and their fold. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from services.modules.lifecycle import Lifecycle
from services.modules.operation import Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """A kind of aggregate: the class of its states, and what it does by itself."""

    state: type[Any]
    due: Callable[..., int | None] | None = None  #: (state) -> when its timer is due, microseconds since the epoch
    fire: Callable[..., Any] | None = None  #: (view, state, Due) -> Follow
    outstanding: Callable[..., Any] | None = None  #: (state) -> what a new owner sends again
    #: (state) -> when it ended, microseconds since the epoch; None: it lives. What ended is listed for `limits.ENDED_LISTED_MS`, and
    #: then leaves memory: the state has a field `settled` for it.
    ended: Callable[..., int | None] | None = None
    stays: bool = False  #: always in memory: it is asked for with nearly everything


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIn:
    """A built-in module."""

    operations: Mapping[str, Operation]
    events: tuple[type[Any], ...]
    evolve: Callable[..., Any]  #: (state | None, event, aggregate id, time in microseconds) -> state | None
    aggregates: tuple[Aggregate, ...] = ()
    take: Callable[..., Any] | None = None  #: (view, message that is no request, time) -> Follow; None: it is none of ours
    lifecycles: tuple[Lifecycle, ...] = ()
    source: str = ""  #: of its events; empty: `mplp/modules/<name>`
