"""The shape of a definition: the shipped JSON Schema, and its faults as `schema.<keyword>` with pointers to the smallest wrong value."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import jsonschema_rs
import orjson

from streams.errors import Violation
from streams.records import Json


@cache
def definition_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a workflow definition, without the wrapper."""
    text = files("services.orchestrator").joinpath("definition.schema.json").read_bytes()
    return dict(orjson.loads(text))


@cache
def _validator() -> Any:
    return jsonschema_rs.Draft202012Validator(definition_schema())


def pointer_of(path: Sequence[str | int]) -> str:
    """The JSON pointer (RFC 6901) of a path."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def shape_faults(document: Json) -> Iterator[Violation]:
    """All faults of the document's shape; pointers begin at `document`."""
    return schema_faults(_validator(), document, code="schema")


def schema_faults(validator: Any, document: Json, *, code: str) -> Iterator[Violation]:
    """The faults that a JSON Schema validator finds, as `<code>.<keyword>`; an unknown field is pointed at itself."""
    for error in validator.iter_errors(document):
        path = list(error.instance_path)
        keyword = str(error.schema_path[-1]) if error.schema_path else "false"
        name = f"{code}.{error.kind.name if hasattr(error.kind, 'name') else keyword}"
        unexpected = getattr(error.kind, "unexpected", None)
        if unexpected is None:
            yield Violation(code=name, pointer=pointer_of(path), message=_sentence(error.message))
        else:
            for field in unexpected:
                yield Violation(code=name, pointer=pointer_of([*path, field]), message=f"There is no field {field!r} here.")


def _sentence(message: str) -> str:
    shown = message if len(message) <= 300 else message[:300] + "…"
    return shown[:1].upper() + shown[1:] + ("" if shown.endswith((".", "…")) else ".")
