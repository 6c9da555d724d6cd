"""The gateway's port for looking after the history, over the store, the sink and the bus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Protocol

from services.gateway.ports import Verification
from services.history.sink import Sink
from services.history.store import History
from services.history.verify import Ask, Place, Verifier
from streams.bus.bus import Bus

#: Seconds between two lines of progress.
PROGRESS_S = 0.5


class Told(Protocol):
    """Something that says how far it is."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""


async def in_steps(work: Callable[[Callable[[Told], None]], Awaitable[Told]]) -> AsyncGenerator[Mapping[str, Any], None]:
    """`work` as steps: what it tells, not too often, then what it returns. Ended early, it is cancelled and waited for."""
    told: asyncio.Queue[Told] = asyncio.Queue(maxsize=1)
    said_s = 0.0

    def tell(progress: Told) -> None:
        nonlocal said_s
        if not told.full() and time.monotonic() - said_s >= PROGRESS_S:
            said_s = time.monotonic()
            told.put_nowait(progress)

    working = asyncio.ensure_future(work(tell))
    waiting = asyncio.ensure_future(told.get())
    try:
        while not working.done():
            await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                yield {"progress": waiting.result().to_dict()}
                waiting = asyncio.ensure_future(told.get())
        yield {"report": working.result().to_dict()}
    finally:
        waiting.cancel()
        working.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)


class HistoryUpkeep:
    """`ports.Upkeep`."""

    def __init__(self, bus: Bus, store: History, sink: Sink, check_open: Callable[[], None]) -> None:
        """`check_open` raises while the history is not open."""
        self._bus, self._store, self._sink, self._check_open = bus, store, sink, check_open

    async def verify(self, asked: Verification) -> AsyncGenerator[Mapping[str, Any], None]:
        """See `ports.Upkeep`."""
        self._check_open()
        ask = Ask(topics=asked.topics, since=asked.since, until=asked.until, quick=asked.quick, timeout_s=asked.timeout_s)
        verifier = Verifier(self._bus.kafka, self._bus.codec, self._store, self._reached)
        async for step in in_steps(lambda tell: verifier.run(ask, tell)):
            yield step

    async def _reached(self, ends: Mapping[Place, int], timeout: float) -> Mapping[Place, int]:
        if not await self._sink.wait_until(ends, timeout):
            return ends
        return {place: end - await self._sink.wait_until({place: end}, 0.001) for place, end in ends.items()}
