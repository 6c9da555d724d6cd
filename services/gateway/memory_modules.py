"""Modules in memory: what the gateway's tests and its reference stand on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.gateway.ports import ModuleFigures
from streams.errors import NotFound
from streams.records import Json


class MemoryModules:
    """One module with one operation, which answers with what it was given."""

    async def list(self) -> list[dict[str, Any]]:
        """See the ports."""
        named = {"name": "context", "built_in": True, "module": "context", "kind": "built-in"}
        return [{**named, "status": "serving", "operations": ["create-context"], "instances": []}]

    async def show(self, module: str) -> dict[str, Any]:
        """See the ports."""
        if module != "context":
            raise NotFound("module.unknown", f"There is no module {module!r}.")
        return {**(await self.list())[0], "operations": {"create-context": {"description": "Opens a context."}}}

    async def figures(self) -> Mapping[str, ModuleFigures]:
        """See the ports: a module that runs elsewhere."""
        return {"invoices": ModuleFigures(serving=False, processes=2, running=3)}

    async def call(self, module: str, operation: str, parameters: Mapping[str, Any], *, home: str | None, timeout: float) -> Json:
        """See `ports.Modules`."""
        if (module, operation) != ("context", "create-context"):
            raise NotFound("operation.unknown", f"There is no operation {module}.{operation}.")
        return {"contextId": f"{home or 'h'}/context-1", "given": dict(parameters)}
