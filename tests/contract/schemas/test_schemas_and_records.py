"""`schemas/avro/` is the contract: the dataclasses, the contract's field lists and everything that was released agree with it."""

from __future__ import annotations

import dataclasses
import struct
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import pytest

from schemas import AVRO
from streams.codec.avro import Codec, SchemaIds, local_schemas, schema_text, to_json
from streams.codec.compatibility import violations
from streams.codec.store import FULL_TRANSITIVE
from streams.records import RECORDS, Record
from streams.testing.controls import FULL, LEAST

GOLDEN = Path(__file__).parents[2] / "golden"
RELEASES = sorted((path.name for path in (GOLDEN / "schemas").iterdir()), key=lambda name: int(name[1:]))
RELEASED = [(version, path.stem) for version in RELEASES for path in sorted((GOLDEN / "schemas" / version).glob("*.avsc"))]

#: The first fields of all records, as the contract lists them.
COMMON = ["id", "type", "source", "subject", "time", "tenant", "correlation_id", "causation_id", "data"]
#: What every record that may lie in a log has, at its end.
LOG = ["aggregate_id", "sequence", "epoch", "input"]


def fields(name: str) -> list[Mapping[str, Any]]:
    return typing.cast(list[Mapping[str, Any]], local_schemas()[name]["fields"])


def test_there_is_one_schema_per_record_and_one_record_per_schema() -> None:
    assert {path.name for path in AVRO.iterdir() if path.name.endswith(".avsc")} == {f"{name}.avsc" for name in RECORDS}


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_schema_says_what_it_and_its_fields_mean(name: str) -> None:
    schema = local_schemas()[name]
    assert (schema["name"], schema["namespace"]) == (name, "mplp")
    assert schema["doc"]
    assert all(field["doc"] for field in schema["fields"])


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_all_records_begin_with_the_same_fields(name: str) -> None:
    reference = [dict(field, doc="") for field in fields("SystemEvent")[: len(COMMON)]]
    assert [field["name"] for field in reference] == COMMON
    assert [dict(field, doc="") for field in fields(name)[: len(COMMON)]] == reference


@pytest.mark.parametrize("name", ["WorkflowTransition", "ModuleMessage", "SystemEvent", "CompositeEvent"])
def test_records_of_a_log_end_with_the_same_fields_null_elsewhere(name: str) -> None:
    tail = fields(name)[-len(LOG) :]
    assert [field["name"] for field in tail] == LOG
    assert all(field["default"] is None and field["type"][0] == "null" for field in tail)


def expected_hint(schema: Any, hint: Any) -> bool:
    """Whether a Python type is the one that a schema's values have."""
    if isinstance(schema, list):
        parts = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else ()
        return type(None) in parts and expected_hint(schema[1], next(part for part in parts if part is not type(None)))
    if isinstance(schema, str):
        return hint is {"string": str, "bytes": bytes, "int": int, "long": int, "double": float, "boolean": bool}[schema]
    match schema["type"]:
        case "enum":
            return list(typing.get_args(hint)) == schema["symbols"]
        case "record":
            return same_fields(schema, hint)
        case "array":
            item, rest = typing.get_args(hint)
            return rest is Ellipsis and expected_hint(schema["items"], item)
        case "map":
            return typing.get_args(hint) == (str, {"string": str, "long": int}[schema["values"]])
        case "long":
            return schema["logicalType"] == "timestamp-micros" and hint is datetime
    return False


def same_fields(schema: Mapping[str, Any], cls: Any) -> bool:
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    wrong = [
        field["name"] for field in schema["fields"] if field["name"] != "data" and not expected_hint(field["type"], hints[field["name"]])
    ]  # fmt: skip
    assert names == [field["name"] for field in schema["fields"]]
    assert wrong == []
    return True


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_a_dataclass_has_the_fields_of_its_schema_in_order_with_their_types(name: str) -> None:
    assert same_fields(local_schemas()[name], RECORDS[name])


#: Defaults that exist in Python only: shells fill them in.
MADE = {"id", "time", "source", "subject"}
#: Enums have a default in Python where the schema gives none, since Avro's enum default means something else (an unknown symbol).
PYTHON_ONLY = {("WorkflowTransition", "status")}


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_defaults_are_the_same_in_both(name: str) -> None:
    record = LEAST[name]
    for field, attribute in zip(fields(name), dataclasses.fields(RECORDS[name]), strict=True):
        has_default = attribute.default is not dataclasses.MISSING or attribute.default_factory is not dataclasses.MISSING
        if field["name"] in MADE or (name, field["name"]) in PYTHON_ONLY:
            assert "default" not in field
            continue
        assert has_default == ("default" in field), field["name"]
        if has_default:
            default = attribute.default if attribute.default_factory is dataclasses.MISSING else attribute.default_factory()
            plain = to_json(dataclasses.replace(record, **{attribute.name: default}))[attribute.name]
            assert (orjson.dumps(plain).decode() if field["name"] == "data" else plain) == field["default"], field["name"]


@pytest.mark.parametrize(("version", "name"), RELEASED)
def test_every_released_schema_and_ours_read_each_other(version: str, name: str) -> None:
    later = [
        path.read_text()
        for number in RELEASES[RELEASES.index(version) :]
        if (path := GOLDEN / "schemas" / number / f"{name}.avsc").exists()
    ]
    assert violations(schema_text(local_schemas()[name]), later, FULL_TRANSITIVE) == []


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_every_record_has_released_bytes(name: str) -> None:
    assert (RELEASES[-1], name) in RELEASED, "add a version: python tests/golden/make.py vN"
    assert orjson.loads((GOLDEN / "schemas" / RELEASES[-1] / f"{name}.avsc").read_bytes()) == local_schemas()[name]


def golden(version: str, name: str) -> list[tuple[bytes, Any]]:
    folder = GOLDEN / "records" / version
    bodies = [bytes.fromhex(line) for line in (folder / f"{name}.hex").read_text().split()]
    objects = [orjson.loads(line) for line in (folder / f"{name}.jsonl").read_bytes().splitlines()]
    return list(zip(bodies, objects, strict=True))


@pytest.mark.parametrize(("version", "name"), RELEASED)
def test_released_bytes_are_read_for_ever(version: str, name: str) -> None:
    schema = orjson.loads((GOLDEN / "schemas" / version / f"{name}.avsc").read_bytes())
    by_library = Codec(SchemaIds(schemas={5: schema}, record_ids={}))
    cases = golden(version, name)
    assert len(cases) == 2
    codecs = [by_library]
    if schema == local_schemas()[name]:
        codecs.append(Codec(SchemaIds(schemas={5: schema}, record_ids={name: 5})))
    for codec in codecs:
        for body, value in cases:
            decoded = to_json(codec.decode(struct.pack(">bI", 0, 5) + body))
            assert {field: decoded[field] for field in value} == value


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_the_bytes_of_the_newest_release_are_written_for_ever(name: str) -> None:
    codec = Codec(SchemaIds.local())
    written = [codec.encode(record)[5:] for record in (FULL[name], LEAST[name])]
    assert written == [body for body, _ in golden(RELEASES[-1], name)]


def test_controls_show_every_field_used() -> None:
    for name in RECORDS:
        full: Record = FULL[name]
        unused = [field.name for field in dataclasses.fields(full) if getattr(full, field.name) in (None, "", (), {})]
        assert unused == [], name
