"""How a process of a user's module takes part in the hub: registered under a lease, subscribed to what it listens to, told what to do.

Without a core nobody answers, and the module serves all the same: it tries again with the next renewal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

import structlog

from services.modules.registration import registration_event
from services.modules.user_module import Module
from streams.bus.executions import Executions
from streams.errors import BackboneError, Unavailable

_log = structlog.get_logger("modules.presence")

#: How long a process counts as living after it said so, and how often it does.
LEASE_MS, RENEWAL_S = 30_000, 10.0
#: How long the hub may take to answer.
ANSWER_S = 5.0
HUB = "hub"


class Presence:
    """One process's place in the hub's registry."""

    def __init__(self, module: Module, hub: Executions) -> None:
        self._module = module
        self._hub = hub
        self._registered = False
        self.instance = f"{module.name}-{socket.gethostname()}-{os.getpid()}"

    async def run(self, told: Callable[[str], None], detail: Callable[[], Any]) -> None:
        """Renews the lease until cancelled; `told` is called with what the process is to do: `serving`, `draining`, `stopped`."""
        while True:
            try:
                answer = await self._renew(detail())
                told(str(answer.get("wish", "serving")))
            except Unavailable as error:
                _log.debug("module.hub-silent", module=self._module.name, code=error.code)
            except BackboneError as error:
                _log.warning("module.not-registered", module=self._module.name, code=error.code, reason=error.message)
                self._registered = False
            await asyncio.sleep(RENEWAL_S)

    async def _renew(self, detail: Any) -> dict[str, Any]:
        parameters: dict[str, Any] = {"module": self._module.name, "instance": self.instance, "lease": LEASE_MS, "detail": detail}
        if not self._registered:
            offered = registration_event(self._module).data
            parameters |= {"operations": offered["operations"], "description": self._module.description}
        answer: Any = await self._call("register", parameters)
        if not self._registered and self._module.listeners:
            await self._call("subscribe", {"subscriber": self._module.name, "types": list(self._module.listeners), "module": True})
        self._registered = True
        return answer if isinstance(answer, dict) else {}

    async def leave(self) -> None:
        """Says that the process is gone."""
        if self._registered:
            with contextlib.suppress(BackboneError):
                await self._call("unregister", {"module": self._module.name, "instance": self.instance})

    async def _call(self, operation: str, parameters: dict[str, Any]) -> Any:
        return await self._hub.call_module(HUB, operation, parameters, home=HUB, timeout=ANSWER_S)
