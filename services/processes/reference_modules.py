"""The page of the reference about modules: every operation with its fields, every table of states as a diagram, every event type."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from services.modules.catalogue import MODULES, describe, summary
from services.modules.operation import types_of
from services.processes.reference import page, table

_INTRODUCTION = """What the built-in modules offer, from the code that runs: [what modules are and how they behave](../concepts/modules.md).

An operation is called by a step of a workflow (`"module": "plan", "operation": "create-plan", "parameters": {…}`), by
`mplp modules call plan create-plan --parameters '{…}'`, by `POST /v1/modules/plan/create-plan` with the parameters as body, and by
`await bus.call_module("plan", "create-plan", {…})`. `mplp modules show plan` lists a module's operations, with `--json` the whole JSON
Schemas. What they give stands under the results of each module."""


def modules_page() -> str:
    """The page."""
    return page("Modules", _INTRODUCTION, *(part for name in MODULES for part in _module(name)))


def _module(name: str) -> Iterator[str]:
    described = describe(name) or {}
    yield f"## {name}\n\n{summary(name)}"
    yield table(
        ["operation", "", "result"],
        [[f"[`{operation}`](#{name}{operation})", found["description"], _named(found["result"])] for operation, found in described.items()],
    )
    for operation, found in described.items():
        yield f"### {name}.{operation}\n\n{found['description']}"
        yield _parameters(found["parameters"])
        yield f"For example: `mplp modules call {name} {operation}{_example(found['parameters'])}`"
    yield f"### Results of {name}"
    results = {found["result"]["title"]: found["result"] for found in described.values()}
    yield table(
        ["result", "fields"],
        [[f"`{title}`", ", ".join(map(_result_field, schema["properties"].items()))] for title, schema in results.items()],
    )
    for lifecycle in MODULES[name].lifecycles:
        yield f"### States of {lifecycle.one()}\n\n```mermaid\n{lifecycle.diagram()}\n```"
    types = sorted(each for event_class in MODULES[name].events for each in types_of(event_class))
    yield f"### Events of {name}\n\n{', '.join(f'`{each}`' for each in types)}."


def _named(result: Mapping[str, Any]) -> str:
    return f"`{result['title']}`"


def _parameters(schema: Mapping[str, Any]) -> str:
    fields = schema.get("properties", {})
    if not fields:
        return "It takes no parameters."
    required, definitions = schema.get("required", ()), schema.get("$defs", {})
    ordered = sorted(fields.items(), key=lambda item: item[0] not in required)
    rows = [
        [f"`{name}`", type_of(field, definitions), "yes" if name in required else _default(field), _meaning(field, definitions)]
        for name, field in ordered
    ]
    return table(["parameter", "type", "needed, or default", ""], rows)


def _default(field: Mapping[str, Any]) -> str:
    default = field.get("default")
    return "no" if default in (None, "", [], {}) else f"`{json.dumps(default)}`"


def _meaning(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What a field says of itself; of an object, or a list of them, the fields."""
    inner = _object_of(field, definitions)
    told = str(field.get("description", ""))
    if inner is None:
        return told
    required = inner.get("required", ())
    names = " ".join(f"`{name}`" if name in required else f"[`{name}`]" for name in inner["properties"])
    return f"{told} Fields: {names}".strip()


def _object_of(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = _resolved(field, definitions)
    for branch in (found, *found.get("anyOf", ()), found.get("items", {})):
        inner = _resolved(branch, definitions)
        inner = _resolved(inner.get("items", inner), definitions)
        if "properties" in inner:
            return inner
    return None


def _resolved(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = field.get("$ref")
    found: Mapping[str, Any] = field if reference is None else definitions[reference.rpartition("/")[2]]
    return found


def type_of(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """The type of a field in words: `text`, `list of object`, the values of a choice."""
    found = _resolved(field, definitions)
    if "enum" in found:
        return " ".join(f"`{value}`" for value in found["enum"])
    if "const" in found:
        return f"`{found['const']}`"
    if "anyOf" in found:
        kinds = [type_of(branch, definitions) for branch in found["anyOf"] if branch.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    match found.get("type"):
        case "array":
            return f"list of {type_of(found.get('items', {}), definitions)}"
        case "string":
            return "text"
        case "integer" | "number" | "boolean" | "object" as kind:
            return str(kind)
        case _:
            return "any JSON"


def _example(schema: Mapping[str, Any]) -> str:
    """The option with the parameters that are needed."""
    definitions = schema.get("$defs", {})
    given = ", ".join(f'"{name}": {_sample(schema["properties"][name], definitions)}' for name in schema.get("required", ()))
    return f" --parameters '{{{given}}}'" if given else ""


def _sample(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    found = _resolved(field, definitions)
    if "enum" in found:
        return json.dumps(found["enum"][0])
    if "anyOf" in found:
        return _sample(found["anyOf"][0], definitions)
    if "properties" in found:
        return "{" + ", ".join(f'"{name}": {_sample(found["properties"][name], definitions)}' for name in found.get("required", ())) + "}"
    match found.get("type"):
        case "array":
            return f"[{_sample(found.get('items', {}), definitions)}]"
        case "string":
            return '"…"'
        case "integer" | "number":
            return str(found.get("minimum", 1))
        case "boolean":
            return "true"
        case _:
            return "{}"


def _result_field(item: tuple[str, Mapping[str, Any]]) -> str:
    name, field = item
    told = field.get("description")
    return f"`{name}`" + (f" ({told.rstrip('.')})" if told else "")
