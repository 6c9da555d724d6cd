"""The gateway's port to the modules: calls, and how they are, as the hub knows it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import structlog

from services.gateway.ports import ModuleFigures
from services.modules.catalogue import OPERATIONS, summary
from streams.bus.bus import Bus
from streams.bus.messages import HUB
from streams.bus.modules import listed, row_of
from streams.errors import BackboneError, Unavailable
from streams.records import Json
from streams.topics import REQUESTS

BUILT_IN, REGISTERED = "built-in", "registered"
#: How long the hub may take for a list, seconds; then what the topics tell is told.
PATIENCE_S = 3.0
#: How long figures are told again before the hub is asked anew, seconds: processes tell theirs with their leases, every 10 s.
FIGURES_S = 10.0

_log = structlog.get_logger("gateway.modules")


class BusModules:
    """`ports.Modules`: the built-in ones, and those of users that have an inbox."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._figures: Mapping[str, ModuleFigures] = {}
        self._asked_s = float("-inf")

    async def list(self) -> list[dict[str, Any]]:
        """See `ports.Modules`; without a core nobody knows how they are, and of a users' module only its name is known."""
        try:
            return [_named(each) for each in await listed(self._bus, timeout=PATIENCE_S)]
        except Unavailable as error:
            _log.info("modules.unknown", code=error.code)
        prefix = f"{REQUESTS}."
        async with self._bus.kafka.admin() as admin:
            names = [
                self._bus.kafka.names.logical(each) for each in await admin.list_topics() if not self._bus.kafka.names.is_of_another(each)
            ]
        elsewhere = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
        known: dict[str, dict[str, Any]] = {name: _unknown(name, REGISTERED, "", None) for name in elsewhere}
        known |= {name: _unknown(name, BUILT_IN, summary(name), list(operations)) for name, operations in OPERATIONS.items()}
        return [known[name] for name in sorted(known)]

    async def show(self, module: str) -> dict[str, Any]:
        """See `ports.Modules`."""
        found: Any = await self._bus.call_module(HUB, "get", {"module": module}, home=HUB, timeout=PATIENCE_S)
        return {**_named(row_of(found)), "operations": found["operations"]}

    async def figures(self) -> Mapping[str, ModuleFigures]:
        """See `ports.Modules`: the hub is asked at most every `FIGURES_S`; without its answer those of before are told."""
        if time.monotonic() - self._asked_s < FIGURES_S:
            return self._figures
        try:
            self._figures = {each["module"]: _figures(each) for each in await listed(self._bus, REGISTERED, timeout=1.0)}
            self._asked_s = time.monotonic()
        except BackboneError as error:
            _log.info("modules.unknown", code=error.code)
        return self._figures

    async def call(self, module: str, operation: str, parameters: Mapping[str, Any], *, home: str | None, timeout: float) -> Json:
        """See `ports.Modules`."""
        return await self._bus.call_module(module, operation, parameters, home=home, timeout=timeout)


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as in Python and in the shell, with two names more that it had over HTTP alone."""
    return {"name": row["module"], "built_in": row["kind"] == BUILT_IN, **row}


def _unknown(name: str, kind: str, description: str, operations: Any) -> dict[str, Any]:
    row = {"module": name, "kind": kind, "status": "unknown", "description": description, "operations": operations, "instances": []}
    return _named({**row, "registered_at": None})


def _figures(row: Mapping[str, Any]) -> ModuleFigures:
    details = [each["detail"] for each in row["instances"] if isinstance(each["detail"], Mapping)]
    running = sum(detail["running"] for detail in details if isinstance(detail.get("running"), int))
    return ModuleFigures(serving=row["status"] == "serving", processes=len(row["instances"]), running=running)
