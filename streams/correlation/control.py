"""Changing the rules in force: written to the control topic, then waited for until every live worker has them.

Each change is also an event (`rule.applied`, `rule.deleted`) with who and what.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from streams.bus.bus import Bus
from streams.bus.reached import wait_reached
from streams.correlation.levels import cycles
from streams.correlation.parse import parse_rule, validate
from streams.correlation.templates import escaped
from streams.errors import InvalidDocument, NotFound, Violation
from streams.records import ControlRecord, Json, SystemEvent, new_id
from streams.topics import CONTROL_RULES

APPLY_TIMEOUT_S = 5.0
_SOURCE = "mplp/rules"


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

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"rules": [rule.to_dict() for rule in self.rules], "workers": list(self.reached), "missing": list(self.missing)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A rule as the control topic has it."""

    record: ControlRecord
    offset: int
    document: Json = field(default=None)


async def apply(bus: Bus, documents: Sequence[Json], who: str, why: str = "", timeout: float = APPLY_TIMEOUT_S) -> Report:
    """Puts rules in force. All are checked first: raises `InvalidDocument` (`rule.invalid`) with all faults of all, pointers by index.

    Returns when every live worker has them or after `timeout` seconds. Content that is in force already is no new version.
    """
    check(documents)
    stored = await _stored(bus)
    given = {document["id"] for document in documents}
    check(documents, [each.document for id_, each in stored.items() if id_ not in given and not each.record.deleted])
    check_service(documents)
    changed: list[Changed] = []
    last = -1
    for document in documents:
        before = stored.get(document["id"])
        content = canonical(document)
        if before is not None and not before.record.deleted and canonical(orjson.loads(before.record.content)) == content:
            changed.append(Changed(id=document["id"], version=before.record.version, changed=False))
            continue
        version = (before.record.version if before is not None else 0) + 1
        offset = await _write(bus, _record(document["id"], version, content, who, why, type_="rule.applied"))
        last = max(last, offset)
        changed.append(Changed(id=document["id"], version=version, changed=True))
        await _tell(bus, "rule.applied", document["id"], {"id": document["id"], "version": version, "who": who, "why": why})
    reached, missing = await wait_reached(bus, CONTROL_RULES, last + 1, timeout) if last >= 0 else ((), ())
    return Report(rules=tuple(changed), reached=reached, missing=missing)


async def delete(bus: Bus, rule_id: str, who: str, why: str = "", timeout: float = APPLY_TIMEOUT_S) -> Report:
    """Takes a rule out of force. Raises `NotFound` (`rule.unknown`)."""
    before = (await _stored(bus)).get(rule_id)
    if before is None or before.record.deleted:
        raise NotFound("rule.unknown", f"There is no rule {rule_id!r}.")
    version = before.record.version + 1
    offset = await _write(bus, _record(rule_id, version, before.record.content, who, why, type_="rule.deleted", deleted=True))
    await _tell(bus, "rule.deleted", rule_id, {"id": rule_id, "version": version, "who": who, "why": why})
    reached, missing = await wait_reached(bus, CONTROL_RULES, offset + 1, timeout)
    return Report(rules=(Changed(id=rule_id, version=version, changed=True),), reached=reached, missing=missing)


async def list_rules(bus: Bus) -> list[Stored]:
    """The rules in force (also disabled ones), by id."""
    stored = await _stored(bus)
    return [stored[rule_id] for rule_id in sorted(stored) if not stored[rule_id].record.deleted]


async def show(bus: Bus, rule_id: str) -> Stored:
    """One rule in force. Raises `NotFound` (`rule.unknown`)."""
    found = (await _stored(bus)).get(rule_id)
    if found is None or found.record.deleted:
        raise NotFound("rule.unknown", f"There is no rule {rule_id!r}.")
    return found


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


def check_service(documents: Sequence[Json]) -> None:
    """What rules may say and the workers do not do: refused rather than accepted without effect. Raises `InvalidDocument`."""
    faults: list[Violation] = []
    for index, document in enumerate(documents):
        at = f"/{index}" if len(documents) > 1 else ""
        rule = parse_rule(document)
        if rule.actions:
            message = (
                "The workers of this version perform no actions; composites are on mplp.composite.events. `rules test` takes the rule."
            )
            faults.append(Violation(code="rule.action-unsupported", pointer=f"{at}/actions", message=message))
        for matcher in rule.matchers:
            if matcher.rules:
                message = "The workers of this version do not match composites of other rules. `rules test` takes the rule."
                pointer = f"{at}/events/{escaped(matcher.name)}/rule"
                faults.append(Violation(code="rule.chaining-unsupported", pointer=pointer, message=message))
    if faults:
        raise InvalidDocument("rule.invalid", "The workers cannot do what the rules ask for.", faults)


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


def canonical(document: Json) -> str:
    """The document as one text, whatever the order of its keys: equal texts are equal rules."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()


def _record(rule_id: str, version: int, content: str, who: str, why: str, *, type_: str, deleted: bool = False) -> ControlRecord:
    return ControlRecord(
        id=rule_id, type=type_, source=_SOURCE, subject=rule_id, correlation_id=rule_id, kind="rule", version=version, content=content,
        who=who, why=why, deleted=deleted,
    )  # fmt: skip


async def _stored(bus: Bus) -> dict[str, Stored]:
    found: dict[str, Stored] = {}
    async for delivered in bus.read(CONTROL_RULES, since="beginning", until_end=True):
        record = delivered.record
        if isinstance(record, ControlRecord):
            found[record.id] = Stored(record=record, offset=delivered.offset, document=orjson.loads(record.content))
    return found


async def _write(bus: Bus, record: ControlRecord) -> int:
    published = await bus.send(CONTROL_RULES, record.id, record)
    # The broker does not say where a record lies that it had from an earlier attempt.
    return published.offset if published.offset >= 0 else (await _stored(bus))[record.id].offset


async def _tell(bus: Bus, type_: str, rule_id: str, data: Json) -> None:
    await bus.publish(SystemEvent(id=new_id(), type=type_, source=_SOURCE, subject=rule_id, correlation_id=rule_id, data=data))
