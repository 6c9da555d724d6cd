"""Disables, for all workers, the rules that cost too much in this one, with who, why and an event (`rule.disabled`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from streams.bus.bus import Bus
from streams.correlation import control
from streams.correlation.costs import TooDear
from streams.correlation.rules import ActiveRule
from streams.errors import BackboneError

_INTERVAL_S = 1.0

_log = structlog.get_logger("guard")


class RuleGuard:
    """See the module. A change that fails is tried again; a rule that has another version by now is left alone."""

    def __init__(self, bus: Bus, name: str, too_dear: Callable[[], Mapping[str, tuple[ActiveRule, TooDear]]]) -> None:
        """`too_dear`: what the worker has found so far, by rule (`Worker.too_dear`)."""
        self._bus = bus
        self._name = name
        self._too_dear = too_dear
        self._done: set[tuple[str, int]] = set()  # (rule, order) that was dealt with

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            for active, found in list(self._too_dear().values()):
                if (active.id, active.order) not in self._done:
                    await self._disable(active, found)

    async def _disable(self, active: ActiveRule, found: TooDear) -> None:
        try:
            done = await control.disable(self._bus, active.id, active.version, who=self._name, why=found.why)
        except BackboneError as error:
            _log.warning("rule.not-disabled", rule=active.id, code=error.code, message=error.message)
            return
        self._done.add((active.id, active.order))
        _log.error("rule.disabled", rule=active.id, version=active.version, by_this_worker=done, why=found.why)
