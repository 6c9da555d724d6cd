"""What a change of documents is: which version it makes, how it differs from what is in force, and who has changed what. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

import orjson
import yaml

from streams.control.kinds import Kind
from streams.records import ControlKind, ControlRecord, Json, iso

#: Between an id and a version in the key of a version.
VERSION_MARK = "@"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A document as the control topic has it."""

    record: ControlRecord
    offset: int
    document: Json = field(default=None)


@dataclass(slots=True)
class Stock:
    """All of the control topic."""

    newest: dict[str, Stored] = field(default_factory=dict)  #: by id; also deleted ones
    versions: dict[str, dict[int, ControlRecord]] = field(default_factory=dict)  #: by id and version

    def take(self, record: ControlRecord, offset: int) -> None:
        """The next record of the topic."""
        document_id, mark, _ = record.id.partition(VERSION_MARK)
        if not mark:
            self.newest[document_id] = Stored(record=record, offset=offset, document=orjson.loads(record.content))
        self.versions.setdefault(document_id, {})[record.version] = replace(record, id=document_id)

    def in_force(self, document_id: str) -> Stored | None:
        """The document, unless it is deleted."""
        found = self.newest.get(document_id)
        return None if found is None or found.record.deleted else found


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a document changes. `version` is the one that it makes, or the one in force if it is unchanged."""

    id: str
    version: int
    kind: Literal["new", "changed", "unchanged", "deleted"]
    before: Json
    after: Json

    def diff(self) -> str:
        """From what is in force to the document, as a unified diff of YAML; empty if nothing changes."""
        before, after = ([] if each is None else text_of(each).splitlines() for each in (self.before, self.after))
        return "\n".join(difflib.unified_diff(before, after, "in force", "given", lineterm=""))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"id": self.id, "version": self.version, "change": self.kind, "diff": self.diff()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a document: its content, who made it, when and why."""

    kind: ControlKind
    id: str
    version: int
    type: str  #: `rule.applied`, `rule.deleted` or `rule.disabled`, of a route `route.…`
    who: str
    why: str
    time: datetime
    in_force: bool
    document: Json

    @property
    def change(self) -> str:
        """What made it: `applied`, `deleted` or `disabled`."""
        return self.type.rpartition(".")[2]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "id": self.id, "version": self.version, "change": self.change, "who": self.who, "why": self.why,
            "time": iso(self.time), "in_force": self.in_force, self.kind: self.document,
        }  # fmt: skip


def planned(stock: Stock, documents: Sequence[Json]) -> list[Change]:
    """What applying the documents changes, in their order."""
    changes = []
    for document in documents:
        before = stock.newest.get(document["id"])
        number = 0 if before is None else before.record.version
        if before is None or before.record.deleted:
            changes.append(Change(id=document["id"], version=number + 1, kind="new", before=None, after=document))
        elif canonical(before.document) == canonical(document):
            changes.append(Change(id=document["id"], version=number, kind="unchanged", before=document, after=document))
        else:
            changes.append(Change(id=document["id"], version=number + 1, kind="changed", before=before.document, after=document))
    return changes


def versions(stock: Stock, document_id: str) -> list[Version]:
    """Every version of a document, oldest first; empty if there never was one."""
    current = stock.in_force(document_id)
    number = 0 if current is None else current.record.version
    return [
        Version(
            kind=record.kind, id=document_id, version=record.version, type=record.type, who=record.who, why=record.why, time=record.time,
            in_force=record.version == number, document=orjson.loads(record.content),
        )
        for _, record in sorted(stock.versions.get(document_id, {}).items())
    ]  # fmt: skip


def applied(kind: Kind, change: Change, who: str, why: str) -> ControlRecord:
    """The record that puts the document in force."""
    return _record(kind, change, who, why, "applied")


def deleted(kind: Kind, change: Change, who: str, why: str) -> ControlRecord:
    """The record that takes the document out of force."""
    return _record(kind, change, who, why, "deleted")


def disabled(kind: Kind, change: Change, who: str, why: str) -> ControlRecord:
    """The record by which a worker disables a document."""
    return _record(kind, change, who, why, "disabled")


def _record(kind: Kind, change: Change, who: str, why: str, what: str) -> ControlRecord:
    return ControlRecord(
        id=change.id, type=f"{kind.name}.{what}", source=kind.source, subject=change.id, correlation_id=change.id, kind=kind.name,
        version=change.version, content=canonical(change.after), who=who, why=why, deleted=what == "deleted",
    )  # fmt: skip


def canonical(document: Json) -> str:
    """The document as one text, whatever the order of its keys: equal texts are equal documents."""
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode()


def text_of(document: Json) -> str:
    """The document as a person reads it and `apply` takes it: YAML, in the order of the documentation."""
    return str(yaml.dump(in_order(document), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)).rstrip()


class _Dumper(yaml.SafeDumper):
    """Quotes texts that readers of newer YAML take for numbers (`1e3`), which the library's own rules do not."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if _is_number(text) else None)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text[:2].lower() in ("0x", "0o", "0b")
    return True


_Dumper.add_representer(str, _text)


_ORDER = (
    "id", "title", "description", "tags", "enabled", "severity", "events", "correlation", "suppress", "confidence", "actions",
    "type", "group-by", "aliases", "window", "timespan", "gap", "condition", "until", "after-match", "output", "grace",
    "topic", "source", "subject", "rule", "where", "match", "filters", "transforms", "destination", "retry", "order", "dead-letter",
)  # fmt: skip
_PLACES = {name: place for place, name in enumerate(_ORDER)}


def in_order(document: Json) -> Json:
    """The document with its keys, and those of its matchers and correlation, in the order of the documentation; contents as they are."""
    if not isinstance(document, dict):
        return document
    found = _sorted(document)
    for name in ("correlation", "match"):
        if isinstance(found.get(name), dict):
            found[name] = _sorted(found[name])
    if isinstance(found.get("events"), dict):
        found["events"] = {name: _sorted(matcher) if isinstance(matcher, dict) else matcher for name, matcher in found["events"].items()}
    return found


def _sorted(mapping: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(mapping.items(), key=lambda item: _PLACES.get(item[0], len(_PLACES))))
