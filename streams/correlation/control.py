"""Changing the rules in force: written to the control topic, then waited for until every live worker has them.

Each change is kept with who made it, when and why (`history`), and told as an event (`rule.applied`, `rule.deleted`, `rule.disabled`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streams.bus.reached import wait_reached
from streams.correlation.levels import cycles
from streams.correlation.parse import parse_rule, validate
from streams.correlation.rule_changes import Change, Stock, Stored, Version, applied, deleted, disabled, planned, versions
from streams.correlation.rule_store import change, read_stock
from streams.correlation.templates import escaped
from streams.errors import InvalidDocument, NotFound, Violation
from streams.records import ControlRecord, Json, SystemEvent, derived_id
from streams.topics import CONTROL_RULES

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

    rules: tuple[Changed, ...]
    reached: tuple[str, ...] = ()  #: live workers that have it
    missing: tuple[str, ...] = ()  #: live workers that did not say so in time
    offset: int | None = None  #: in the control topic: from here on it is in force; None: nothing has changed

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "rules": [rule.to_dict() for rule in self.rules], "offset": self.offset,
            "workers": list(self.reached), "missing": list(self.missing),
        }  # fmt: skip


@dataclass(slots=True)
class _Decision:
    """The last answer of a decision that is asked again when another writer comes in between."""

    changes: list[Change] = field(default_factory=list)
    records: list[ControlRecord] = field(default_factory=list)


async def apply(bus: Bus, documents: Sequence[Json], who: str, why: str = "", timeout: float = APPLY_TIMEOUT_S) -> Report:
    """Puts rules in force, all of them or none. Raises `InvalidDocument` (`rule.invalid`) with all faults of all, pointers by index.

    Returns when every live worker has them or after `timeout` seconds. Content that is in force already is no new version.
    """
    check(documents)

    def decide(stock: Stock) -> list[Change]:
        return _checked_plan(stock, documents)

    return await _changed(bus, decide, lambda change: applied(change, who, why), timeout)


async def plan(bus: Bus, documents: Sequence[Json]) -> list[Change]:
    """What `apply` would do, with the same checks; nothing is written."""
    check(documents)
    return _checked_plan(await read_stock(bus), documents)


async def delete(bus: Bus, rule_id: str, who: str, why: str = "", timeout: float = APPLY_TIMEOUT_S) -> Report:
    """Takes a rule out of force. Raises `NotFound` (`rule.unknown`)."""

    def decide(stock: Stock) -> list[Change]:
        before = _known(stock, rule_id)
        return [Change(id=rule_id, version=before.record.version + 1, kind="deleted", before=before.document, after=before.document)]

    return await _changed(bus, decide, lambda change: deleted(change, who, why), timeout)


async def disable(bus: Bus, rule_id: str, version: int, who: str, why: str) -> bool:
    """Disables a rule that costs too much, if this version of it is still in force and enabled; whether it did."""

    def decide(stock: Stock) -> list[Change]:
        before = stock.in_force(rule_id)
        if before is None or before.record.version != version or before.document.get("enabled") is False:
            return []
        after = {**before.document, "enabled": False}
        return [Change(id=rule_id, version=version + 1, kind="changed", before=before.document, after=after)]

    return bool((await _changed(bus, decide, lambda change: disabled(change, who, why), timeout=0.0)).rules)


async def list_rules(bus: Bus) -> list[Stored]:
    """The rules in force (also disabled ones), by id."""
    stock = await read_stock(bus)
    return [found for rule_id in sorted(stock.newest) if (found := stock.in_force(rule_id)) is not None]


async def show(bus: Bus, rule_id: str) -> Stored:
    """One rule in force. Raises `NotFound` (`rule.unknown`)."""
    return _known(await read_stock(bus), rule_id)


async def history(bus: Bus, rule_id: str) -> list[Version]:
    """Every version of a rule, also of a deleted one, oldest first. Raises `NotFound` (`rule.unknown`)."""
    found = versions(await read_stock(bus), rule_id)
    if not found:
        raise NotFound("rule.unknown", f"There never was a rule {rule_id!r}.")
    return found


async def version(bus: Bus, rule_id: str, number: int) -> Version:
    """One version of a rule. Raises `NotFound` (`rule.unknown`, `rule.version-unknown`)."""
    found = await history(bus, rule_id)
    for each in found:
        if each.version == number:
            return each
    known = ", ".join(str(each.version) for each in found)
    raise NotFound("rule.version-unknown", f"There is no version {number} of {rule_id}; there are {known}.")


async def _changed(
    bus: Bus, decide: Callable[[Stock], list[Change]], record_of: Callable[[Change], ControlRecord], timeout: float
) -> Report:
    decision = _Decision()

    def records(stock: Stock) -> list[ControlRecord]:
        decision.changes = decide(stock)
        decision.records = [record_of(change) for change in decision.changes if change.kind != "unchanged"]
        return decision.records

    last = await change(bus, records)
    await bus.publish([_event(record) for record in decision.records])
    reached, missing = await wait_reached(bus, CONTROL_RULES, last + 1, timeout) if last >= 0 and timeout else ((), ())
    rules = tuple(Changed(id=each.id, version=each.version, changed=each.kind != "unchanged") for each in decision.changes)
    return Report(rules=rules, reached=reached, missing=missing, offset=last if last >= 0 else None)


def _checked_plan(stock: Stock, documents: Sequence[Json]) -> list[Change]:
    given = {document["id"] for document in documents}
    check(documents, [each.document for id_, each in stock.newest.items() if id_ not in given and not each.record.deleted])
    return planned(stock, documents)


def _known(stock: Stock, rule_id: str) -> Stored:
    found = stock.in_force(rule_id)
    if found is None:
        raise NotFound("rule.unknown", f"There is no rule {rule_id!r}.")
    return found


def _event(record: ControlRecord) -> SystemEvent:
    """Tells of a change. A second telling has the same id."""
    data = {"id": record.id, "version": record.version, "who": record.who, "why": record.why}
    return SystemEvent(
        id=derived_id(record.type, record.id, record.version), type=record.type, source=record.source, subject=record.id, time=record.time,
        correlation_id=record.id, severity="error" if record.type == "rule.disabled" else "info", data=data,
    )  # fmt: skip


def check(documents: Sequence[Json], in_force: Iterable[Json] = ()) -> None:
    """Raises `InvalidDocument` (`rule.invalid`) with all faults of all documents; of several, pointers begin with the index.

    `in_force`: the other rules, which the documents together with may not read each other's composites in a circle (`rule.cycle`).
    """
    several = len(documents) > 1
    faults: list[Violation] = []
    seen: set[str] = set()
    for index, document in enumerate(documents):
        at = f"/{index}" if several else ""
        found = validate(document)
        faults += [Violation(code=fault.code, pointer=at + fault.pointer, message=fault.message) for fault in found]
        if not found and document["id"] in seen:
            faults.append(Violation(code="rule.id-twice", pointer=f"{at}/id", message=f"{document['id']} is given twice."))
        if not found:
            seen.add(document["id"])
    if not faults:
        faults = _circles(documents, in_force)
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise InvalidDocument("rule.invalid", f"The rules have {count}." if several else f"The rule has {count}.", faults)


def _circles(documents: Sequence[Json], in_force: Iterable[Json]) -> list[Violation]:
    rules = [parse_rule(document) for document in documents]
    others = [parse_rule(document) for document in in_force if not validate(document)]
    faults = []
    for circle in cycles([*rules, *others]):
        for index, rule in enumerate(rules):
            at = f"/{index}" if len(rules) > 1 else ""
            for matcher in rule.matchers if rule.id in circle else ():
                if set(matcher.rules or ()) & set(circle):
                    message = (
                        f"{', '.join(circle)} read each other's composites in a circle."
                        if len(circle) > 1
                        else f"{rule.id} reads its own composites."
                    )
                    faults.append(Violation(code="rule.cycle", pointer=f"{at}/events/{escaped(matcher.name)}/rule", message=message))
    return faults
