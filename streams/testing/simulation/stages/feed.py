"""What Faust does for a worker, simulated: membership, fetching, chunks in queues, acknowledgements, commits, rebalances.

The bookkeeping of what may be committed is the real one (`streams.faust_app.prefix`). As with Faust a rebalance empties the queues
and goes back to the committed offsets, also of partitions that stay; the handler of a chunk that is under way is not disturbed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from streams.faust_app.feed import Handler, Subscription
from streams.faust_app.prefix import Chunk, CommitPrefix
from streams.log.ports import Stored
from streams.testing.simulation.broker import SimulatedBroker
from streams.testing.simulation.loop import ProcessLoop
from streams.testing.simulation.stages.clients import fetch, record_of
from streams.testing.simulation.stages.group import StageGroup, StageMember

Place = tuple[str, int]

_log = structlog.get_logger("feed")

COMMIT_INTERVAL_MAX_S = 1.0
FETCH_WAIT_US = 5_000_000
BACKLOG_CHUNKS = 4


class SimulatedFeed:
    """See `streams.faust_app.feed.Feed`."""

    def __init__(self, broker: SimulatedBroker, loop: ProcessLoop, group: StageGroup, name: str, subscription: Subscription) -> None:
        self._broker, self._loop, self._group, self._subscription = broker, loop, group, subscription
        self.member = StageMember(name=subscription.instance or name, loop=loop, topics=frozenset(subscription.handlers))
        self._prefix: CommitPrefix[Place] = CommitPrefix()
        self._positions: dict[Place, int] = {}
        self._begun: dict[Place, int] = {}  # where the session began
        self._ends: dict[Place, int] = {}  # high watermarks, as the last fetch or the start said
        self._queues: dict[str, asyncio.Queue[Chunk]] = {topic: asyncio.Queue(BACKLOG_CHUNKS) for topic in subscription.handlers}
        self._tasks: list[asyncio.Task[None]] = []
        self._crash: BaseException | None = None

    # --- Feed -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """See `Feed.start`."""
        handlers = self._subscription.handlers
        self._tasks = [asyncio.create_task(self._agent(self._queues[topic], handle)) for topic, (_, handle) in handlers.items()]
        self._tasks += [asyncio.create_task(self._take_part()), asyncio.create_task(self._commit_often())]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """See `Feed.stop`. The handlers under way come to their end first, as Faust's agents do, but are not waited for long."""
        for task in self._tasks[len(self._subscription.handlers) :]:
            task.cancel()
        self._clear()
        await asyncio.sleep(self._broker.scheduler.random.random() ** 3 * 3)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.member.gone = True
        self._group.heartbeat_lost(self.member)

    def crash(self) -> BaseException | None:
        """See `Feed.crash`."""
        return self._crash

    def place(self, topic: str, partition: int) -> tuple[int, bool] | None:
        """See `Feed.place`."""
        place = (topic, partition)
        position = self._positions.get(place)
        if position is None:
            return None
        handled = self._prefix.handled(place)
        at_end = place in self._ends and position >= self._ends[place] and not self._prefix.waits(place)
        return self._begun[place] if handled is None else handled, at_end

    def is_current(self, chunk: Chunk) -> bool:
        """See `Feed.is_current`."""
        return self._prefix.session((chunk.topic, chunk.partition)) == chunk.session

    def waiting_s(self) -> float:
        """See `Feed.waiting_s`."""
        oldest = self._prefix.oldest()
        return 0.0 if oldest is None else self._loop.time() - oldest

    # --- membership -------------------------------------------------------------------------------------------------

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._crash = task.exception()

    async def _take_part(self) -> None:
        fetching: asyncio.Task[None] | None = None
        try:
            while True:
                indices = await self._group.join(self.member)
                if fetching is not None:
                    # A fetch that was sent before the rebalance ends here: what it brings belongs to nobody.
                    fetching.cancel()
                    await asyncio.gather(fetching, return_exceptions=True)
                held = {self._group.places[index] for index in indices}
                await self._assigned(held)
                fetching = asyncio.create_task(self._fetch_all())
                fetching.add_done_callback(self._ended)
                await self.member.rejoin.wait()
                self._revoked()
                if self._broker.scheduler.random.random() < 0.5:
                    await self._commit()
        finally:
            if fetching is not None:
                fetching.cancel()
                await asyncio.gather(fetching, return_exceptions=True)

    async def _assigned(self, held: set[Place]) -> None:
        committed = await self._group.committed(self._loop, held)
        self._clear()
        self._positions.clear()
        self._ends.clear()
        for place in sorted(held):
            self._prefix.begin(place)
            self._positions[place] = self._begun[place] = committed[place]
        await self._subscription.assigned(held)

    def _revoked(self) -> None:
        for place in self._prefix.partitions():
            self._prefix.forget(place)
        self._positions.clear()
        self._clear()

    def _clear(self) -> None:
        for queue in self._queues.values():
            while not queue.empty():
                queue.get_nowait()

    # --- records ----------------------------------------------------------------------------------------------------

    async def _fetch_all(self) -> None:
        while True:
            sessions = {place: self._prefix.session(place) for place in self._positions}
            if not self._positions:
                await asyncio.sleep(1.0)
                continue
            found, ends = await fetch(self._broker, self._loop, dict(self._positions), FETCH_WAIT_US)
            chunks = []
            for place, records in _by_place(found).items():
                session = sessions.get(place)
                if session is None or session != self._prefix.session(place):
                    continue
                start, end = self._positions[place], records[-1].offset + 1
                self._positions[place] = end
                self._prefix.cut(place, end)
                chunks.append((place, Chunk(*place, start, end, tuple(map(record_of, records)), session)))
            self._ends.update({place: end for place, end in ends.items() if sessions[place] == self._prefix.session(place)})
            for place, chunk in chunks:
                if self._prefix.deliver(place, chunk, self._loop.time()):
                    await self._queues[chunk.topic].put(chunk)

    async def _agent(self, queue: asyncio.Queue[Chunk], handle: Handler) -> None:
        while True:
            chunk = await queue.get()
            _log.debug("chunk.begun", topic=chunk.topic, partition=chunk.partition, start=chunk.start, end=chunk.end)
            try:
                await handle(chunk)
            except Exception as error:
                self._subscription.failed(error)
                raise
            counts = self._prefix.acknowledge((chunk.topic, chunk.partition), chunk)
            _log.debug("chunk.done", topic=chunk.topic, partition=chunk.partition, start=chunk.start, end=chunk.end, counts=counts)

    # --- commits ----------------------------------------------------------------------------------------------------

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(self._broker.scheduler.random.random() ** 2 * COMMIT_INTERVAL_MAX_S)
            await self._commit()

    async def _commit(self) -> None:
        offsets = {place: end for place in self._prefix.partitions() if (end := self._prefix.committable(place)) is not None}
        if offsets:
            _log.debug("offsets.committed", **{f"{topic}/{partition}": end for (topic, partition), end in offsets.items()})
            await self._group.commit(self.member, offsets)


def _by_place(found: Sequence[Stored]) -> dict[Place, list[Stored]]:
    by_place: dict[Place, list[Stored]] = {}
    for stored in found:
        by_place.setdefault((stored.topic, stored.partition), []).append(stored)
    return by_place
