"""Matches that this process writes to a partition that it owns itself are handed over in memory, as soon as they are acknowledged.

That spares them the way back from the broker, which takes longer than everything else that is done with them. It changes nothing but
when they are read: an owner takes over only what lies in its partition right behind what it has read, with the bytes, offsets and times
that are stored there. What it does not take, or loses in memory, comes with the next fetch; what it took and is fetched again lies before
its position, and is skipped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from streams import limits
from streams.concurrency import cancelled
from streams.faust_app.batches import Written
from streams.faust_app.prefix import Chunk, Placed

#: Of no session of a consumer: nobody acknowledges it.
_NO_SESSION = -1
_CLOSE_TIMEOUT_S = 3.0
#: Chunks that wait for an owner which has not come to them yet.
_CHUNKS_MAX = 16


class Taker(Protocol):
    """Who owns a partition of the matches (`streams.faust_app.correlate_stage.Owner`)."""

    position: int  #: next offset that it has not handled

    @property
    def ready(self) -> bool:
        """Whether the partition is its own, and its matches can be handled."""

    async def handle(self, chunk: Chunk) -> None:
        """Handles what of the chunk lies behind its position; returns when what that leads to is acknowledged."""


class _Line:
    """What was written to a partition and its owner has not handled, one behind the other without a gap."""

    __slots__ = ("chunks", "end", "taken")

    def __init__(self) -> None:
        self.chunks: deque[Chunk] = deque()
        self.end = 0  #: of what was written last
        self.taken = False  #: whether the owner is handling it

    def put(self, chunk: Chunk) -> None:
        """What comes behind a gap, or waits too long for its owner to come here, begins anew: the next fetch has what was before."""
        if self.chunks and (self.chunks[-1].end != chunk.start or (not self.taken and len(self.chunks) >= _CHUNKS_MAX)):
            self.chunks.clear()
        self.chunks.append(chunk)
        self.end = chunk.end

    def begins(self, position: int) -> bool:
        """Whether there is something to be handled by an owner at this position, with nothing missing before it."""
        while self.chunks and self.chunks[0].end <= position:
            self.chunks.popleft()
        return bool(self.chunks) and self.chunks[0].start <= position

    def joined(self) -> Chunk:
        """All of it as one: what it leads to is appended together."""
        first, last = self.chunks[0], self.chunks[-1]
        records = tuple(record for chunk in self.chunks for record in chunk.records)
        return Chunk(first.topic, first.partition, first.start, last.end, records, first.session)


class Handover:
    """From the match stage to the owners of this process."""

    def __init__(self, topic: str, owners: Mapping[int, Taker], failed: Callable[[BaseException], None]) -> None:
        """`topic`: the matches, name on the broker; `failed` is told of an exception, which must end the process."""
        self._topic = topic
        self._owners = owners
        self._failed = failed
        self._lines: dict[int, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._handled = asyncio.Event()  # something was

    def offer(self, written: Sequence[Written]) -> None:
        """These are in the log now."""
        for batch in written:
            line = self._lines.setdefault(batch.partition, _Line())
            line.put(self._chunk(batch))
            self.look(batch.partition)

    def look(self, partition: int) -> None:
        """The owner of the partition may have come to where it can take over what waits for it."""
        line, owner = self._lines.get(partition), self._owners.get(partition)
        if line is None or line.taken or owner is None or not owner.ready or not line.begins(owner.position):
            return
        line.taken = True
        task = asyncio.create_task(self._handle(owner, line))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def keeps_up(self, partition: int) -> bool:
        """Whether its owner has all that was written here, or is about to: then nobody waits for what is fetched of it."""
        line, owner = self._lines.get(partition), self._owners.get(partition)
        return line is not None and owner is not None and owner.ready and (line.taken or owner.position >= line.end)

    async def room(self) -> None:
        """Returns when owners have not much left to handle: who writes faster than they can handle waits here."""
        while any(line.taken and len(line.chunks) >= limits.CHUNK_BACKLOG_MAX for line in self._lines.values()):
            self._handled.clear()
            await self._handled.wait()

    def _chunk(self, batch: Written) -> Chunk:
        records = tuple(
            Placed(self._topic, batch.partition, offset, timestamp_ms, key, value, headers)
            for offset, (timestamp_ms, (key, value, headers)) in enumerate(zip(batch.timestamps_ms, batch.raws, strict=True), batch.start)
        )
        return Chunk(self._topic, batch.partition, batch.start, batch.start + len(records), records, _NO_SESSION)

    async def _handle(self, owner: Taker, line: _Line) -> None:
        try:
            while owner.ready and line.begins(owner.position):
                await owner.handle(line.joined())
                self._handled.set()
        finally:
            line.taken = False
            self._handled.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def close(self) -> None:
        """Lets what is under way come to its end, but does not wait for it long: it lies in the log."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CLOSE_TIMEOUT_S)
        await cancelled(*self._tasks)
