"""What the owner of a partition knows: to read it, to compare it in one number with what others or the log say, to fold it anew. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from services.modules.built_in import Aggregate
from services.modules.hub.owner_operations import (
    Checksum,
    ChecksumList,
    ChecksumResult,
    Rebuild,
    RebuildList,
    RebuildResult,
    StateList,
    StateOf,
    StateResult,
)
from services.modules.hub.state import NAME, RebuildAsked
from services.modules.lookup import listing
from services.modules.operation import Decided, Done, Outcome, Refusal, Request, not_found
from services.modules.settling import is_listed
from streams.log.types import REFOLD, Send, View
from streams.records import SystemEvent, derived_id, from_micros


def checksum(view: View[Any], parameters: Checksum, request: Request) -> Outcome:
    """Checksums of what the owners of all partitions know, by module."""
    unknown = _unknown(parameters.module)
    if unknown is not None:
        return unknown
    found = checksums(view.partition, view.states(), request.time_us, parameters.module)
    return listing(view, parameters, ChecksumList, found, lambda each: each.place, lambda each: each)


def checksums(partition: int, states: Iterable[tuple[str, Any]], time_us: int, module: str | None = None) -> list[ChecksumResult]:
    """The checksums of these aggregates at a moment.

    What waits for others, and what is listed no more, does not count: owners may have let go of it. They are sums, so that the order in
    which an owner comes to the aggregates does not matter, nor how many there are.
    """
    totals: dict[str, tuple[int, int]] = {}
    for owned in _owned(states, time_us, module):
        count, total = totals.get(owned.module, (0, 0))
        totals[owned.module] = count + 1, (total + owned.digest()) % 2**256
    return [
        ChecksumResult(
            place=f"{partition:05d}/{name}", partition=partition, module=name, aggregates=count, checksum=total.to_bytes(32).hex()
        )
        for name, (count, total) in sorted(totals.items())
    ]


def digest_of(aggregate_id: str, state: Any, time_us: int) -> tuple[str, int] | None:
    """The module of an aggregate, and what it adds to its module's sum; None: it does not count."""
    owned = next(_owned([(aggregate_id, state)], time_us, None), None)
    return None if owned is None else (owned.module, owned.digest())


def state(view: View[Any], parameters: StateOf, request: Request) -> Outcome:
    """What the owners know of aggregates, as their snapshots have it."""
    unknown = _unknown(parameters.module)
    if unknown is not None:
        return unknown
    if parameters.id is None:
        owned = _owned(view.states(), request.time_us, parameters.module)
    else:
        found = view.state(parameters.id)
        owned = _owned([] if found is None else [(parameters.id, found)], request.time_us, parameters.module)
        kept = list(owned)
        if not kept:
            return not_found("aggregate", parameters.id, "/id")
        owned = iter(kept)
    return listing(view, parameters, StateList, owned, lambda each: each.aggregate_id, _result)


def rebuild(view: View[Any], parameters: Rebuild, request: Request) -> Outcome:
    """Has the owners of all partitions throw away what they know, and fold it anew from the log alone, without checkpoints."""
    aggregate_id = f"{request.home}/rebuild"
    event = RebuildAsked(partition=view.partition, by=request.caller.source_module, reason=parameters.reason)
    wish = SystemEvent(
        id=derived_id("refold", request.id, view.partition), type="partition.refold", source=f"mplp/modules/{NAME}", subject=aggregate_id,
        time=from_micros(request.time_us), data={"reason": parameters.reason},
    )  # fmt: skip
    done = listing(
        view, parameters, RebuildList, [RebuildResult(place=f"{view.partition:05d}", partition=view.partition)], lambda each: each.place,
        lambda each: each,
    )  # fmt: skip
    return Done(
        aggregate_id=aggregate_id,
        result=done.result,
        events=(Decided(aggregate_id=aggregate_id, event=event),),
        effects=(Send(topic=REFOLD, key=request.home, record=wish),),
    )


def _unknown(module: str | None) -> Refusal | None:
    from services.modules.catalogue import MODULES  # the catalogue knows the hub

    if module is None or module in MODULES:
        return None
    return Refusal(code="module.unknown", message=f"There is no built-in module {module!r}.", pointer="/module")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Owned:
    """An aggregate that counts."""

    aggregate_id: str
    module: str
    dumped: Any  #: name of its class, and its fields

    def digest(self) -> int:
        """The SHA-256 of all that it is, as a number."""
        return int.from_bytes(hashlib.sha256(orjson.dumps([self.aggregate_id, self.dumped], option=orjson.OPT_SORT_KEYS)).digest())


def _owned(states: Iterable[tuple[str, Any]], time_us: int, module: str | None) -> Iterator[_Owned]:
    from services.modules.states import STATES  # the states know the hub's

    kinds = _kinds()
    for aggregate_id, known in states:
        name, kind = kinds.get(type(known), ("", None))
        if kind is not None and module in (None, name) and is_listed(kind, known, time_us):
            yield _Owned(aggregate_id=aggregate_id, module=name, dumped=STATES.dump(known))


def _result(owned: _Owned) -> StateResult:
    kind, fields = owned.dumped
    return StateResult(id=owned.aggregate_id, module=owned.module, kind=kind, state=fields)


def _kinds() -> Mapping[type[Any], tuple[str, Aggregate]]:
    from services.modules.catalogue import MODULES  # the catalogue knows the hub

    return {kind.state: (name, kind) for name, module in MODULES.items() for kind in module.aggregates}
