"""What every operation does around its own decision: finding what it is about, refusing, wrapping up what happened. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import orjson
from pydantic.alias_generators import to_snake

from services.modules.operation import Decided, DomainEvent, Done, Listing, Page, Refusal, Request, Result, conflict, not_found
from streams.limits import PAYLOAD_BYTES_MAX
from streams.log.types import Send, View
from streams.records import Json

E = TypeVar("E")
L = TypeVar("L", bound=Listing)

#: Of JSON that the entries of one page have together; the rest of a record's payload is for what is around them.
LIST_BYTES_MAX = PAYLOAD_BYTES_MAX - 64 * 1024
#: Room that the event needs which keeps a partition's answer.
ENVELOPE_BYTES = 1024


def find(view: View[Any], kind: type[E], aggregate_id: str, *, pointer: str) -> E | Refusal:
    """The entity of class `kind` with this id, or the refusal `not-found` at `pointer`."""
    state = view.state(aggregate_id)
    return state if isinstance(state, kind) else not_found(kind.__name__.lower(), aggregate_id, pointer)


def refuse_version(expected: int | None, version: int, noun: str) -> Refusal | None:
    """The refusal of a change that was meant for another version than the present one."""
    if expected in (None, version):
        return None
    return conflict(f"The {noun} is at version {version}, not {expected}.", "/expectedVersion")


def changed(
    evolve: Callable[..., Any], before: Any, aggregate_id: str, request: Request, show: Callable[[Any], Result], *events: DomainEvent,
    effects: tuple[Send, ...] = (),
) -> Done:  # fmt: skip
    """The events of one aggregate folded; the result is what `show` makes of the state after them."""
    after = before
    for event in events:
        after = evolve(after, event, aggregate_id, request.time_us)
    assert after is not None, "what changes is there afterwards"
    decided = tuple(Decided(aggregate_id=aggregate_id, event=event) for event in events)
    return Done(aggregate_id=aggregate_id, result=show(after), events=decided, effects=effects)


def gone(aggregate_id: str, result: Result, event: DomainEvent) -> Done:
    """An aggregate that is deleted by an operation; its history stays in the log."""
    return Done(aggregate_id=aggregate_id, result=result, events=(Decided(aggregate_id=aggregate_id, event=event),))


def states_of(view: View[Any], kind: type[E], *, resting: bool = True) -> Iterator[E]:
    """All aggregates of one class that this partition holds; `resting=False`: at least those that wait for something."""
    return (state for _, state in view.states(resting=resting, kind=kind))


def has_text(wanted: str | None, *fields: str) -> bool:
    """Whether one of the fields contains the text, without regard to case; no text is in every field."""
    return wanted is None or any(wanted.casefold() in field.casefold() for field in fields)


def page(entries: Iterable[E], key: Callable[[E], str], parameters: Page) -> tuple[list[E], int, str | None]:
    """The page of `entries` in order of their ids, how many there are in all, and the id to go on after (None: no more)."""
    total = 0

    def following() -> Iterator[E]:
        nonlocal total
        for entry in entries:
            total += 1
            if key(entry) > parameters.after:
                yield entry

    # They may be more than memory should hold at a time: no more are kept than are shown.
    found = heapq.nsmallest(parameters.limit + 1, following(), key=key)
    shown = found[: parameters.limit]
    return shown, total, key(shown[-1]) if len(found) > len(shown) else None


def fitting(answer: dict[str, Any], result: type[Listing]) -> dict[str, Any]:
    """A list with as many of its entries as an answer may carry, one at least; `next` leads on to the others."""
    entries = answer[result.ENTRIES]
    if len(orjson.dumps(answer)) <= LIST_BYTES_MAX:
        return answer
    kept = max(1, how_many_fit(entries))
    return {**answer, result.ENTRIES: entries[:kept], "next": entries[kept - 1][result.KEY]} if kept < len(entries) else answer


def how_many_fit(entries: Iterable[Json]) -> int:
    """How many entries, from the first on, have room in one answer."""
    size = kept = 0
    for entry in entries:
        size += len(orjson.dumps(entry)) + 1
        if size > LIST_BYTES_MAX:
            break
        kept += 1
    return kept


def missing_partitions(view: View[Any]) -> list[int]:
    """The partitions that an answer from this view says nothing about."""
    return [partition for partition in range(view.partitions) if partition != view.partition]


def listing(
    view: View[Any], parameters: Page, result: type[L], wanted: Iterable[E], key: Callable[[E], str], show: Callable[[E], Result]
) -> Done:  # fmt: skip
    """A page of `wanted` as the list `result`: what this partition has to say."""
    shown, total, following = page(wanted, key, parameters)
    # What parameters name decides where the operation runs, and what belongs to it lives there too.
    missing = missing_partitions(view) if parameters.target() is None else []
    entries = {to_snake(result.ENTRIES): [show(entry) for entry in shown]}
    answer = result(**entries, total=total, next=following, complete=not missing, missing_partitions=missing)
    return Done(aggregate_id=None, result=answer)
