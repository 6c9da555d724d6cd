"""What Faust has brought of a source partition and routes have not looked at yet, and from where on it is about to bring more.

So a partition that lies where Faust delivers waits for it: to read the log beside it costs as much again. Nothing depends on that: what
does not come in a while, or was let go for want of room, is read from the log.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import TypeAlias

from streams.faust_app.prefix import Chunk

#: Chunks that wait; what comes beyond them is let go.
CHUNKS_MAX = 8
#: How long Faust waits for room for one more while the routes get on, and if they do not, seconds: to read it anew costs more, but others
#: want to see it, too.
_PATIENCE_S, _LOOK_S = 1.0, 0.2
#: How long nothing comes of what is expected before it is read from the log, seconds, and how often is looked.
_OVERDUE_S, _EXPECT_LOOK_S = 1.0, 0.1
#: Records behind a partition's position from which on Faust takes too long to come here.
_NEAR = 4000


#: Of a topic (name on the broker) and partition: from where on Faust brings what it has not brought yet; None: it is not known yet.
NextOffset: TypeAlias = Callable[[str, int], int | None]


class Brought:
    """See the module. `next_offset`: see `NextOffset`, of the partition."""

    def __init__(self, next_offset: Callable[[], int | None]) -> None:
        self._next_offset = next_offset
        self._chunks: deque[Chunk] = deque()
        self._end = 0  # of what was brought last, kept or let go
        self._roomy = asyncio.Event()  # a chunk has left
        self._came = asyncio.Event()
        self._waits_since_s: float | None = None  # for what is expected
        self.looked_at = 0  #: the offset to which the routes have come in what they are looking at

    def put(self, chunk: Chunk) -> None:
        """The next chunk; without room it is let go."""
        self._end = chunk.end
        if len(self._chunks) < CHUNKS_MAX:
            self._chunks.append(chunk)
        self._waits_since_s = None
        self._came.set()

    def take(self, position: int) -> Chunk | None:
        """The chunk in which the position lies; it leaves, and so does what lies before it."""
        while self._chunks and self._chunks[0].end <= position:
            self._leave()
        return self._leave() if self._chunks and self._chunks[0].start <= position else None

    def holds(self, position: int) -> bool:
        """Whether the position lies in a chunk."""
        return any(each.start <= position < each.end for each in self._chunks)

    def clear(self) -> None:
        """Nobody wants any of it."""
        while self._chunks:
            self._leave()

    def _leave(self) -> Chunk:
        self._roomy.set()
        return self._chunks.popleft()

    async def room(self) -> None:
        """Returns when there is room for one more, or after a short while."""
        until_s = monotonic() + _PATIENCE_S
        while len(self._chunks) >= CHUNKS_MAX:
            before = self.looked_at
            self._roomy.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._roomy.wait()
            if monotonic() >= until_s or (self.looked_at == before and not self._roomy.is_set()):
                return

    def missing(self, position: int, end: int) -> int:
        """To where the log is to be read from this position on, which lies in no chunk; the position itself: Faust is about to bring it.

        `end`: of the log.
        """
        if self._chunks:
            return self._chunks[0].start
        following = self._next_offset()
        if self._is_overdue() or (following is not None and max(following, self._end) < position - _NEAR):
            return end
        return min(max(following or 0, self._end, position), end)

    def _is_overdue(self) -> bool:
        return self._waits_since_s is not None and monotonic() >= self._waits_since_s + _OVERDUE_S

    async def expected(self) -> None:
        """Returns when something has come, or after a short while."""
        if self._waits_since_s is None:
            self._waits_since_s = monotonic()
        self._came.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_EXPECT_LOOK_S):
                await self._came.wait()
