"""Finding entities in the partition's view. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from services.modules.operation import Page, Refusal, not_found
from streams.log.types import View

E = TypeVar("E")


def find(view: View[Any], kind: type[E], aggregate_id: str, *, pointer: str) -> E | Refusal:
    """The entity of class `kind` with this id, or the refusal `not-found` at `pointer`."""
    state = view.state(aggregate_id)
    return state if isinstance(state, kind) else not_found(kind.__name__.lower(), aggregate_id, pointer)


def page(entries: Iterable[E], key: Callable[[E], str], parameters: Page) -> tuple[list[E], int, str | None]:
    """The page of `entries` in order of their ids, how many there are in all, and the id to go on after (None: no more)."""
    ordered = sorted(entries, key=key)
    following = [entry for entry in ordered if key(entry) > parameters.after]
    shown = following[: parameters.limit]
    return shown, len(ordered), key(shown[-1]) if len(following) > len(shown) else None


def missing_partitions(view: View[Any]) -> list[int]:
    """The partitions that an answer from this view says nothing about."""
    return [partition for partition in range(view.partitions) if partition != view.partition]
