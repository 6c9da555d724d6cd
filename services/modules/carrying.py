"""One request from its beginning to its outcome: the operation called, its heartbeats passed on, ended early when nobody waits for it."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Self

import structlog

from services.modules.beating import Heart, is_of_step
from services.modules.call import Lifeline, Outlet
from services.modules.handling import carry_out, operation_of
from services.modules.operation import Refusal
from services.modules.progress import Place
from services.modules.user_module import Module
from streams.bus.executions import Executions
from streams.records import Json, ModuleMessage, now

_log = structlog.get_logger("modules.worker")

#: Outcomes that are no answer: nobody waits any more, since the caller gave it up, or since the deadline has passed.
UNWANTED = Refusal(code="operation.cancelled", message="Nobody waits for it any more.")
EXPIRED = Refusal(code="deadline.passed", message="Its deadline has passed.")


@dataclass(slots=True)
class Running:
    """A request that is worked on, and the places in the topic where it lies."""

    places: list[Place]
    lifeline: Lifeline
    operation: asyncio.Task[Json | Refusal] | None = None

    @classmethod
    def of(cls, module: Module, request: ModuleMessage, places: list[Place]) -> Self:
        """A request that was just taken."""
        operation = operation_of(module, request)
        return cls(places=places, lifeline=Lifeline(silence_ms=None if operation is None else operation.silence_ms))

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.lifeline.cancel()
        if self.operation is not None:
            self.operation.cancel()


class Carrying:
    """How the requests of one process are carried out. `instance` is what the process is called."""

    def __init__(self, module: Module, hub: Executions, instance: str, executor: Executor, outlet: Outlet) -> None:
        self._module = module
        self._hub = hub
        self._instance = instance
        self._executor = executor
        self._outlet = outlet

    async def carry(self, request: ModuleMessage, running: Running) -> Json | Refusal:
        """The operation's result or refusal; `UNWANTED` or `EXPIRED`: there is nothing to answer."""
        heart = None
        details: Json = None
        if running.lifeline.silence_ms is not None and is_of_step(request):
            heart = Heart(self._hub, self._instance, request, running.lifeline)
            is_wanted, details = await heart.begin()
            if not is_wanted or running.lifeline.is_cancelled:
                return self._unwanted(request)
        beating = None if heart is None else asyncio.create_task(heart.run(running.cancel))
        try:
            outcome = await self._outcome(request, running, details)
        finally:
            if beating is not None:
                beating.cancel()
        if heart is not None and isinstance(outcome, Refusal) and outcome not in (UNWANTED, EXPIRED):
            await heart.finish()
        return outcome

    async def _outcome(self, request: ModuleMessage, running: Running, details: Json) -> Json | Refusal:
        work = carry_out(self._module, request, self._executor, lifeline=running.lifeline, details=details, outlet=self._outlet)
        running.operation = asyncio.create_task(work)
        patience_s = None if request.deadline is None else max(0.0, (request.deadline - now()).total_seconds())
        try:
            done, _ = await asyncio.wait([running.operation], timeout=patience_s)
        except asyncio.CancelledError:
            running.cancel()  # the process ends; the request comes again
            raise
        if not done:
            running.cancel()
            await asyncio.wait([running.operation])
            return EXPIRED
        if running.lifeline.is_cancelled or running.operation.cancelled():
            return self._unwanted(request)
        return running.operation.result()

    def _unwanted(self, request: ModuleMessage) -> Refusal:
        _log.info("operation.cancelled", module=self._module.name, operation=request.operation, request=request.id)
        return UNWANTED
