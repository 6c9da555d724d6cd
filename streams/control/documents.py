"""Changing the documents in force: written to the control topic, then waited for until every live worker has them.

Each change is kept with who made it, when and why (`history`), and told as an event (`rule.applied`, `route.deleted`, …).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streams.bus.reached import wait_reached
from streams.control.changes import Change, Stock, Stored, Version, applied, deleted, disabled, planned, versions
from streams.control.kinds import Kind
from streams.control.store import change, read_stock
from streams.errors import NotFound
from streams.records import ControlRecord, Json, SystemEvent, derived_id

if TYPE_CHECKING:
    from streams.bus.bus import Bus

APPLY_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """What became of one document."""

    id: str
    version: int
    changed: bool  #: False: it was in force already, word for word

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"id": self.id, "version": self.version, "changed": self.changed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an `apply` or `delete` did, and which workers have it."""

    plural: str  #: of the kind of documents
    documents: tuple[Changed, ...]
    reached: tuple[str, ...] = ()  #: live workers that have it
    missing: tuple[str, ...] = ()  #: live workers that did not say so in time
    offset: int | None = None  #: in the control topic: from here on it is in force; None: nothing has changed

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            self.plural: [document.to_dict() for document in self.documents], "offset": self.offset,
            "workers": list(self.reached), "missing": list(self.missing),
        }  # fmt: skip


@dataclass(slots=True)
class _Decision:
    """The last answer of a decision that is asked again when another writer comes in between."""

    changes: list[Change] = field(default_factory=list)
    records: list[ControlRecord] = field(default_factory=list)


#: Raises `InvalidDocument` with all faults of the documents given first, which the others in force stand beside.
Check = Callable[[Sequence[Json], Sequence[Json]], None]


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of one kind. `check` is asked before anything is read, and again with the others in force."""

    kind: Kind
    check: Check

    async def apply(self, bus: Bus, documents: Sequence[Json], who: str, why: str = "", timeout: float = APPLY_TIMEOUT_S) -> Report:
        """Puts documents in force, all of them or none. Raises `InvalidDocument` with all faults of all, pointers by index.

        Returns when every live worker has them or after `timeout` seconds. Content that is in force already is no new version.
        """
        self.check(documents, ())

        def decide(stock: Stock) -> list[Change]:
            return self._checked_plan(stock, documents)

        return await self._changed(bus, decide, lambda change: applied(self.kind, change, who, why), timeout)

    async def plan(self, bus: Bus, documents: Sequence[Json]) -> list[Change]:
        """What `apply` would do, with the same checks; nothing is written."""
        self.check(documents, ())
        return self._checked_plan(await read_stock(bus, self.kind), documents)

    async def delete(self, bus: Bus, document_id: str, who: str, why: str = "", timeout: float = APPLY_TIMEOUT_S) -> Report:
        """Takes a document out of force. Raises `NotFound` (`rule.unknown`, `route.unknown`)."""

        def decide(stock: Stock) -> list[Change]:
            before = self._known(stock, document_id)
            number = before.record.version + 1
            return [Change(id=document_id, version=number, kind="deleted", before=before.document, after=before.document)]

        return await self._changed(bus, decide, lambda change: deleted(self.kind, change, who, why), timeout)

    async def disable(self, bus: Bus, document_id: str, version: int, who: str, why: str) -> bool:
        """Disables a document that harms, if this version of it is still in force and enabled; whether it did."""

        def decide(stock: Stock) -> list[Change]:
            before = stock.in_force(document_id)
            if before is None or before.record.version != version or before.document.get("enabled") is False:
                return []
            after = {**before.document, "enabled": False}
            return [Change(id=document_id, version=version + 1, kind="changed", before=before.document, after=after)]

        return bool((await self._changed(bus, decide, lambda change: disabled(self.kind, change, who, why), timeout=0.0)).documents)

    async def all(self, bus: Bus) -> list[Stored]:
        """The documents in force (also disabled ones), by id."""
        stock = await read_stock(bus, self.kind)
        return [found for document_id in sorted(stock.newest) if (found := stock.in_force(document_id)) is not None]

    async def show(self, bus: Bus, document_id: str) -> Stored:
        """One document in force. Raises `NotFound` (`rule.unknown`, `route.unknown`)."""
        return self._known(await read_stock(bus, self.kind), document_id)

    async def history(self, bus: Bus, document_id: str) -> Sequence[Version]:
        """Every version of a document, also of a deleted one, oldest first. Raises `NotFound` as `show`."""
        found = versions(await read_stock(bus, self.kind), document_id)
        if not found:
            raise self._unknown(f"There never was a {self.kind.name} {document_id!r}.")
        return found

    async def version(self, bus: Bus, document_id: str, number: int) -> Version:
        """One version of a document. Raises `NotFound` as `show`, and `rule.version-unknown`, `route.version-unknown`."""
        found = await self.history(bus, document_id)
        for each in found:
            if each.version == number:
                return each
        known = ", ".join(str(each.version) for each in found)
        code = "route.version-unknown" if self.kind.name == "route" else "rule.version-unknown"
        raise NotFound(code, f"There is no version {number} of {document_id}; there are {known}.")

    async def _changed(
        self, bus: Bus, decide: Callable[[Stock], Sequence[Change]], record_of: Callable[[Change], ControlRecord], timeout: float
    ) -> Report:
        decision = _Decision()

        def records(stock: Stock) -> Sequence[ControlRecord]:
            decision.changes[:] = decide(stock)
            decision.records[:] = [record_of(change) for change in decision.changes if change.kind != "unchanged"]
            return decision.records

        last = await change(bus, self.kind, records)
        await bus.publish([_event(record) for record in decision.records])
        reached, missing = await wait_reached(bus, self.kind.topic, last + 1, timeout) if last >= 0 and timeout else ((), ())
        made = tuple(Changed(id=each.id, version=each.version, changed=each.kind != "unchanged") for each in decision.changes)
        offset = last if last >= 0 else None
        return Report(plural=self.kind.plural, documents=made, reached=reached, missing=missing, offset=offset)

    def _checked_plan(self, stock: Stock, documents: Sequence[Json]) -> list[Change]:
        given = {document["id"] for document in documents}
        self.check(documents, [each.document for id_, each in stock.newest.items() if id_ not in given and not each.record.deleted])
        return planned(stock, documents)

    def _known(self, stock: Stock, document_id: str) -> Stored:
        found = stock.in_force(document_id)
        if found is None:
            raise self._unknown(f"There is no {self.kind.name} {document_id!r}.")
        return found

    def _unknown(self, message: str) -> NotFound:
        return NotFound("route.unknown" if self.kind.name == "route" else "rule.unknown", message)


def _event(record: ControlRecord) -> SystemEvent:
    """Tells of a change. A second telling has the same id."""
    data = {"id": record.id, "version": record.version, "who": record.who, "why": record.why}
    return SystemEvent(
        id=derived_id(record.type, record.id, record.version), type=record.type, source=record.source, subject=record.id, time=record.time,
        correlation_id=record.id, severity="error" if record.type.endswith(".disabled") else "info", data=data,
    )  # fmt: skip
