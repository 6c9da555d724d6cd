"""The page of the reference about modules: every operation with its fields, every table of states as a diagram, every event type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from services.modules.catalogue import MODULES, describe, summary
from services.modules.operation import types_of
from services.processes.reference import page, table

_INTRODUCTION = """What the built-in modules offer, from the code that runs. `mplp modules show MODULE --json` gives the whole JSON Schemas;
[what modules are and how they behave](../concepts/modules.md). Fields in brackets may be left out."""


def modules_page() -> str:
    """The page."""
    return page("Modules", _INTRODUCTION, *(part for name in MODULES for part in _module(name)))


def _module(name: str) -> Iterator[str]:
    described = describe(name) or {}
    yield f"## {name}\n\n{summary(name)}"
    rows = [
        [f"`{operation}`", _fields(found["parameters"]), found["description"], _fields(found["result"], all_there=True)]
        for operation, found in described.items()
    ]
    yield table(["operation", "parameters", "", "result"], rows)
    for lifecycle in MODULES[name].lifecycles:
        yield f"States of a {lifecycle.noun}:\n\n```mermaid\n{lifecycle.diagram()}\n```"
    types = sorted(each for event_class in MODULES[name].events for each in types_of(event_class))
    yield f"Events: {', '.join(f'`{each}`' for each in types)}."


def _fields(schema: Mapping[str, Any], *, all_there: bool = False) -> str:
    required = schema.get("required", ())
    names = schema.get("properties", {})
    return " ".join(f"`{name}`" if all_there or name in required else f"[`{name}`]" for name in names)
