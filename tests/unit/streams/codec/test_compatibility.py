"""Compatibility as Confluent's names mean it, by Avro's rules."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from streams.codec.compatibility import violations
from streams.errors import InvalidInput


def shoe(*fields: dict[str, Any]) -> str:
    return orjson.dumps(
        {"type": "record", "name": "Shoe", "namespace": "shop", "fields": [{"name": "size", "type": "int"}, *fields]}
    ).decode()


COLOUR = {"name": "colour", "type": "string"}
COLOUR_BLACK = {**COLOUR, "default": "black"}
LACES = {"name": "laces", "type": ["null", "string"], "default": None}


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        (shoe(), shoe(COLOUR_BLACK), {"NONE", "BACKWARD", "FORWARD", "FULL"}),
        (shoe(), shoe(COLOUR), {"NONE", "FORWARD"}),
        (shoe(COLOUR), shoe(), {"NONE", "BACKWARD"}),
        (shoe(), shoe().replace("int", "string"), {"NONE"}),
        (shoe(), shoe().replace("int", "long"), {"NONE", "BACKWARD"}),
        (shoe(), shoe().replace("Shoe", "Boot"), {"NONE"}),
    ],
)
def test_a_change_is_allowed_by_exactly_these_levels(old: str, new: str, allowed: set[str]) -> None:
    levels = {"NONE", "BACKWARD", "FORWARD", "FULL"}
    assert {level for level in levels if not violations(new, [old], level)} == allowed
    assert {level for level in levels - {"NONE"} if not violations(new, [old], f"{level}_TRANSITIVE")} == allowed - {"NONE"}


def test_transitive_levels_look_at_all_versions() -> None:
    versions = [shoe(COLOUR), shoe(COLOUR_BLACK)]
    newest = shoe(COLOUR_BLACK, LACES)
    assert violations(newest, versions, "FULL_TRANSITIVE") == []
    removed = shoe()
    assert violations(removed, [versions[1]], "FULL") == []
    found = violations(removed, versions, "FULL_TRANSITIVE")
    assert len(found) == 1
    assert "version 1 cannot read the new schema" in found[0]


@pytest.mark.parametrize(
    "text", ["", "{", "null", '"nonsense"', '{"type":"record"}', '{"type":"record","name":"1","fields":[]}', "[" * 500]
)
def test_what_is_no_schema_is_refused(text: str) -> None:
    for versions in ([], [shoe()]):
        with pytest.raises(InvalidInput) as caught:
            violations(text, versions, "FULL_TRANSITIVE")
        assert caught.value.code == "schema.invalid"
