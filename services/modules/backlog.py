"""Requests that the process of a user's module has read and not begun yet.

While all places are taken the process reads on: what gives up a running request lies behind the requests that wait, and must not wait
with them. What has been read is bounded in number and in bytes; beyond that the topic keeps it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass

from services.modules.progress import Place, Progress
from streams.records import ModuleMessage

#: Requests that a process reads ahead at most, and their bytes. A notice that lies further back is seen when some of these have begun.
REQUESTS_MAX = 2000
BYTES_MAX = 16 * 1024 * 1024


@dataclass(slots=True)
class Waiting:
    """A request that waits for its turn, and the places in the topic where it lies."""

    request: ModuleMessage
    places: list[Place]
    size: int  #: bytes in the topic


class Backlog:
    """The requests that wait, in their order."""

    def __init__(self, *, requests_max: int = REQUESTS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._requests_max = requests_max
        self._bytes_max = bytes_max
        self._waiting: OrderedDict[str, Waiting] = OrderedDict()
        self._bytes = 0
        self._some = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: ModuleMessage, place: Place, size: int) -> None:
        """Takes a request in; one that waits here already waits once, and lies at two places."""
        known = self._waiting.get(request.id)
        if known is not None:
            known.places.append(place)
            return
        self._waiting[request.id] = Waiting(request, [place], size)
        self._count(size)

    def cancel(self, request_id: str) -> bool:
        """The caller gave up a request: it is not begun. Whether it waited here."""
        waiting = self._waiting.pop(request_id, None)
        if waiting is None:
            return False
        self._count(-waiting.size)
        for progress, offset in waiting.places:
            progress.end(offset)
        return True

    def lose(self, progress: Progress) -> None:
        """A partition went to somebody else, and its requests with it."""
        for request_id, waiting in list(self._waiting.items()):
            waiting.places = [place for place in waiting.places if place[0] is not progress]
            if not waiting.places:
                del self._waiting[request_id]
                self._count(-waiting.size)

    async def some(self) -> None:
        """Returns when there is something to begin."""
        await self._some.wait()

    async def room(self) -> None:
        """Returns when there is room for another request."""
        await self._room.wait()

    def first(self) -> Waiting | None:
        """Takes out the request that is to begin next."""
        if not self._waiting:
            return None
        _, waiting = self._waiting.popitem(last=False)
        self._count(-waiting.size)
        return waiting

    def _count(self, size: int) -> None:
        self._bytes += size
        full = len(self._waiting) >= self._requests_max or self._bytes >= self._bytes_max
        for event, wanted in ((self._some, bool(self._waiting)), (self._room, not full)):
            event.set() if wanted else event.clear()
