"""The gateway's port for promoted columns, over the store and the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from services.gateway.ports_promote import Promotion
from services.history.promote import Promoted, Promoter
from services.history.store import History
from services.processes.gateway_history import Told, in_steps
from streams.bus.bus import Bus
from streams.records import SystemEvent


class HistoryPromotions:
    """`ports_promote.Promotions`."""

    def __init__(self, bus: Bus, store: History, busy: asyncio.Lock, check_open: Callable[[], None]) -> None:
        """`busy` is shared with whatever else makes tables anew; `check_open` raises while the history is not open."""
        self._bus, self._check_open = bus, check_open
        self._promoter = Promoter(store, busy)

    async def promote(self, asked: Promotion) -> AsyncGenerator[Mapping[str, Any], None]:
        """See `ports_promote.Promotions`; told as the event `history.promoted`, unless nothing was changed."""
        self._check_open()

        async def work(tell: Callable[[Told], None]) -> Promoted:
            done = await self._promoter.promote(asked.path, table=asked.table, type=asked.type, tell=tell)
            if done.created:
                await self._tell("history.promoted", asked, done.to_dict())
            return done

        async for step in in_steps(work):
            yield step

    async def demote(self, asked: Promotion) -> AsyncGenerator[Mapping[str, Any], None]:
        """See `ports_promote.Promotions`; told as the event `history.demoted`."""
        self._check_open()
        removed = await self._promoter.demote(asked.path, table=asked.table)
        await self._tell("history.demoted", asked, removed)
        yield {"report": removed}

    async def promoted(self) -> list[dict[str, Any]]:
        """See `ports_promote.Promotions`."""
        self._check_open()
        return await self._promoter.promoted()

    async def _tell(self, type_: str, asked: Promotion, what: Mapping[str, Any]) -> None:
        """Administrative acts are events: who, why, what."""
        data = {"who": asked.who, "why": asked.why, **what}
        await self._bus.publish([SystemEvent(type=type_, source="mplp/history", subject="history", data=data)])
