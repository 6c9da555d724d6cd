"""The gateway's port for looking after the history, over the store, the sink and the bus."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, Protocol

from services.gateway.ports import Rebuild, Verification
from services.history.rebuild import RebuildAsk, Rebuilder, Rebuilt
from services.history.sink import Sink
from services.history.store import History
from services.history.verify import Ask, Place, Verifier
from streams.bus.bus import Bus
from streams.records import SystemEvent

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


class Pausable:
    """Work that goes on for ever, but for pauses: it is cancelled, and begun again."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._going = asyncio.Event()
        self._going.set()
        self._task: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Works until cancelled. Raises what the work raises."""
        while True:
            await self._going.wait()
            task = self._task = asyncio.create_task(self._work())
            try:
                await asyncio.wait({task})
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            if self._going.is_set() or not task.cancelled():
                return task.result()

    @contextlib.asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Nothing is done inside of it. One pause at a time."""
        self._going.clear()
        try:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait({self._task})
            yield
        finally:
            self._going.set()


class HistoryUpkeep:
    """`ports.Upkeep`."""

    def __init__(self, bus: Bus, store: History, sink: Sink, sinking: Pausable, check_open: Callable[[], None]) -> None:
        """`sinking` runs the sink; `check_open` raises while the history is not open."""
        self._bus, self._store, self._sink, self._sinking, self._check_open = bus, store, sink, sinking, check_open
        self.busy = asyncio.Lock()  #: what makes tables anew goes on alone
        self._rebuilder = Rebuilder(bus.kafka, bus.codec, store, self._reached, self._paused, self.busy)

    async def verify(self, asked: Verification) -> AsyncGenerator[Mapping[str, Any], None]:
        """See `ports.Upkeep`."""
        self._check_open()
        ask = Ask(topics=asked.topics, since=asked.since, until=asked.until, quick=asked.quick, timeout_s=asked.timeout_s)
        verifier = Verifier(self._bus.kafka, self._bus.codec, self._store, self._reached)
        async for step in in_steps(lambda tell: verifier.run(ask, tell)):
            yield step

    async def rebuild(self, asked: Rebuild) -> AsyncGenerator[Mapping[str, Any], None]:
        """See `ports.Upkeep`; told as the event `history.rebuilt`."""
        self._check_open()
        ask = RebuildAsk(topics=asked.topics, keep=asked.keep, timeout_s=asked.timeout_s)

        async def work(tell: Callable[[Told], None]) -> Rebuilt:
            done = await self._rebuilder.run(ask, tell)
            await self._bus.publish([_event(done, asked)])
            return done

        async for step in in_steps(work):
            yield step

    @contextlib.asynccontextmanager
    async def _paused(self) -> AsyncIterator[None]:
        async with self._sinking.paused():
            await self._store.inserts_ended()
            yield

    async def _reached(self, ends: Mapping[Place, int], timeout: float) -> Mapping[Place, int]:
        # Up to the ends of now, which are behind `ends`: that also waits for a sink which has just begun.
        if not await self._sink.wait_until(None, timeout):
            return ends
        return {place: end - await self._sink.wait_until({place: end}, 0.001) for place, end in ends.items()}


def _event(done: Rebuilt, asked: Rebuild) -> SystemEvent:
    """Administrative acts are events: who, why, what."""
    return SystemEvent(
        type="history.rebuilt", source="mplp/history", subject="history", data={"who": asked.who, "why": asked.why, **done.to_dict()}
    )
