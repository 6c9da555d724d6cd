"""What a schema registry knows, as a fold of its topic: Confluent's own record layout, read and written (pure).

The topic `_schemas` has JSON keys and values. The keys that matter here: `SCHEMA` (one version of a subject), `CONFIG` (compatibility,
of a subject or for all), `DELETE_SUBJECT` (versions up to one are hidden) and `CLEAR_SUBJECT`; others are passed over, as Confluent's
registry does with keys that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson

#: The compatibility of all our subjects: every version reads what any other wrote.
FULL_TRANSITIVE = "FULL_TRANSITIVE"
#: What Confluent's registry assumes where nothing is set.
DEFAULT_COMPATIBILITY = "BACKWARD"
#: What a compatibility may be.
COMPATIBILITIES = ("NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", FULL_TRANSITIVE)
AVRO_TYPE = "AVRO"


@dataclass(frozen=True, kw_only=True)
class SchemaVersion:
    """One version of a subject. `schema` is the text as registered."""

    subject: str
    version: int  #: from 1
    id: int  #: unique per schema text over all subjects
    schema: str
    deleted: bool = False
    schema_type: str = AVRO_TYPE

    @cached_property
    def parsed(self) -> Any:
        """The schema as a JSON value; None if it is no JSON (Protobuf)."""
        try:
            return orjson.loads(self.schema)
        except orjson.JSONDecodeError:
            return None

    def key(self) -> bytes:
        """The key of its record in the topic."""
        return orjson.dumps({"keytype": "SCHEMA", "subject": self.subject, "version": self.version, "magic": 1})

    def value(self) -> bytes:
        """The value of its record in the topic."""
        return orjson.dumps(
            {"subject": self.subject, "version": self.version, "id": self.id, "schema": self.schema, "deleted": self.deleted}
            | ({} if self.schema_type == AVRO_TYPE else {"schemaType": self.schema_type})
        )


def config_record(compatibility: str, subject: str | None = None) -> tuple[bytes, bytes]:
    """Key and value of the record that sets the compatibility of a subject, or of all."""
    return (
        orjson.dumps({"keytype": "CONFIG", "subject": subject, "magic": 0}),
        orjson.dumps({"subject": subject, "compatibilityLevel": compatibility}),
    )


@dataclass(slots=True)
class SchemaStore:
    """Everything in the topic up to an offset. Feed it with `apply`, in the topic's order."""

    _versions: dict[str, dict[int, SchemaVersion]] = field(default_factory=dict)
    _configs: dict[str | None, str] = field(default_factory=dict)
    _ids: dict[int, SchemaVersion] = field(default_factory=dict)

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Takes one record. What is no JSON object, or of an unknown key type, changes nothing: a registry must outlive a stray record."""
        parsed_key, parsed = _object(key), _object(value)
        if parsed_key is None:
            return
        match parsed_key.get("keytype"):
            case "SCHEMA":
                self._apply_schema(parsed_key, parsed)
            case "CONFIG":
                self._apply_config(parsed_key.get("subject"), parsed)
            case "DELETE_SUBJECT" if parsed is not None and isinstance(parsed.get("version"), int):
                self._hide(str(parsed.get("subject")), up_to=parsed["version"])
            case "CLEAR_SUBJECT" if parsed is not None:
                self._versions.pop(str(parsed.get("subject")), None)
            case _:
                pass

    def _apply_schema(self, key: Mapping[str, Any], value: Mapping[str, Any] | None) -> None:
        subject, version = key.get("subject"), key.get("version")
        if not isinstance(subject, str) or not isinstance(version, int):
            return
        if value is None:
            self._versions.get(subject, {}).pop(version, None)
            return
        if not isinstance(value.get("id"), int) or not isinstance(value.get("schema"), str):
            return
        entry = SchemaVersion(
            subject=subject,
            version=version,
            id=value["id"],
            schema=value["schema"],
            deleted=bool(value.get("deleted", False)),
            schema_type=str(value.get("schemaType") or AVRO_TYPE),
        )
        self._versions.setdefault(subject, {})[version] = entry
        self._ids.setdefault(entry.id, entry)  # an id never changes its meaning: the first in the log wins

    def _apply_config(self, subject: Any, value: Mapping[str, Any] | None) -> None:
        if subject is not None and not isinstance(subject, str):
            return
        if value is None:
            self._configs.pop(subject, None)
        elif value.get("compatibilityLevel"):
            self._configs[subject] = str(value["compatibilityLevel"])

    def _hide(self, subject: str, *, up_to: int) -> None:
        versions = self._versions.get(subject, {})
        for number, entry in versions.items():
            if number <= up_to and not entry.deleted:
                versions[number] = SchemaVersion(subject=subject, version=number, id=entry.id, schema=entry.schema, deleted=True)

    def subjects(self, *, deleted: bool = False) -> list[str]:
        """The subjects with a version that is not deleted, by name; with `deleted` also the others."""
        return sorted(subject for subject in self._versions if self.versions(subject, deleted=deleted))

    def versions(self, subject: str, *, deleted: bool = False) -> list[SchemaVersion]:
        """A subject's versions, oldest first; with `deleted` also the hidden ones."""
        entries = self._versions.get(subject, {})
        return [entries[number] for number in sorted(entries) if deleted or not entries[number].deleted]

    def by_id(self, schema_id: int) -> SchemaVersion | None:
        """The schema with an id, also when its versions are deleted: records that carry the id remain."""
        return self._ids.get(schema_id)

    def ids(self) -> Mapping[int, SchemaVersion]:
        """All schemas by id."""
        return self._ids

    def versions_of_id(self, schema_id: int) -> list[SchemaVersion]:
        """Every subject and version under which an id is registered."""
        return [entry for subject in self.subjects() for entry in self.versions(subject) if entry.id == schema_id]

    def id_of(self, schema: Any) -> int | None:
        """The id of a schema given as JSON value, whatever the order of its attributes; None if it has none."""
        return next((number for number, entry in self._ids.items() if entry.parsed == schema), None)

    def find(self, subject: str, schema: Any, *, deleted: bool = False) -> SchemaVersion | None:
        """The version of a subject that is this schema."""
        return next((entry for entry in self.versions(subject, deleted=deleted) if entry.parsed == schema), None)

    def compatibility(self, subject: str | None = None) -> str:
        """What holds for a subject: its own, else the one for all, else Confluent's default."""
        return self._configs.get(subject) or self._configs.get(None) or DEFAULT_COMPATIBILITY

    def own_compatibility(self, subject: str | None) -> str | None:
        """What is set for exactly this subject (None: for all)."""
        return self._configs.get(subject)

    def next_version(self, subject: str, schema: Any, text: str, *, taken: Iterable[int] = ()) -> SchemaVersion:
        """The version that registers `schema` under `subject`: the id that the schema has already, or the next free one."""
        found = self.id_of(schema)
        number = found if found is not None else max([0, *self._ids, *taken]) + 1
        version = max([0, *self._versions.get(subject, {})]) + 1
        return SchemaVersion(subject=subject, version=version, id=number, schema=text)


def _object(raw: bytes | None) -> dict[str, Any] | None:
    if raw is None:
        return None
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None
