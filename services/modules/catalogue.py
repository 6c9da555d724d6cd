"""The built-in modules that this version has, by name, and what can be told about them without a server. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.modules.context.decide import MODULE as CONTEXT
from services.modules.dialog.decide import MODULE as DIALOG
from services.modules.operation import BuiltIn
from services.modules.plan.decide import MODULE as PLAN
from services.modules.role.decide import MODULE as ROLE
from services.modules.trace.decide import MODULE as TRACE

MODULES: Mapping[str, BuiltIn] = {"context": CONTEXT, "plan": PLAN, "role": ROLE, "trace": TRACE, "dialog": DIALOG}

#: Module name → names of its operations, as far as they are implemented.
OPERATIONS: Mapping[str, tuple[str, ...]] = {name: tuple(module.operations) for name, module in MODULES.items()}


def describe(module: str) -> dict[str, Any] | None:
    """A built-in module's operations with the JSON Schemas of their parameters and results; None: there is no such module."""
    found = MODULES.get(module)
    if found is None:
        return None
    return {
        name: {
            "description": operation.summary(),
            "parameters": operation.parameters.model_json_schema(by_alias=True),
            "result": operation.result.model_json_schema(by_alias=True, mode="serialization"),
        }
        for name, operation in found.operations.items()
    }
