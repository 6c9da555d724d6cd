"""The built-in modules by name, and what can be told about them without a server. Pure."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from services.modules.built_in import BuiltIn
from services.modules.collab.decide import MODULE as COLLAB
from services.modules.confirm.decide import MODULE as CONFIRM
from services.modules.context.decide import MODULE as CONTEXT
from services.modules.core.decide import MODULE as CORE
from services.modules.dialog.decide import MODULE as DIALOG
from services.modules.extension.decide import MODULE as EXTENSION
from services.modules.gather.decide import MODULE as GATHER
from services.modules.hub.decide import MODULE as HUB
from services.modules.network.decide import MODULE as NETWORK
from services.modules.plan.decide import MODULE as PLAN
from services.modules.role.decide import MODULE as ROLE
from services.modules.schedule.decide import MODULE as SCHEDULE
from services.modules.trace.decide import MODULE as TRACE

#: The modules that offer operations.
MODULES: Mapping[str, BuiltIn] = {
    "context": CONTEXT,
    "plan": PLAN,
    "role": ROLE,
    "confirm": CONFIRM,
    "trace": TRACE,
    "extension": EXTENSION,
    "dialog": DIALOG,
    "collab": COLLAB,
    "network": NETWORK,
    "core": CORE,
    "hub": HUB,
}

#: All that have a part in the machine: also those that nobody calls.
EVERY: Mapping[str, BuiltIn] = {**MODULES, "gather": GATHER, "schedule": SCHEDULE}

#: Module name → names of its operations.
OPERATIONS: Mapping[str, tuple[str, ...]] = {name: tuple(module.operations) for name, module in MODULES.items()}


@cache
def summary(module: str) -> str:
    """What a built-in module is for, in one sentence."""
    text = (importlib.import_module(f"services.modules.{module}").__doc__ or "").partition(": ")[2].strip()
    return text[:1].upper() + text[1:]


@cache
def describe(module: str) -> dict[str, Any] | None:
    """A built-in module's operations with the JSON Schemas of their parameters and results; None: there is no such module.

    Made once: the schemas of all take half a second. Nobody changes what they get.
    """
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
