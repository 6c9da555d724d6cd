"""How far the tables are, per partition, and waiting for it. Fed by our own inserts, and by what other sinks note in the log of blocks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from services.history import blocks
from services.history.ports import Place
from streams.records import Inserted, Record


class Reached:
    """Offset after the last inserted block, and the last known end, of every partition."""

    def __init__(self) -> None:
        self._inserted: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._moved = asyncio.Condition()

    def knows(self, place: Place) -> bool:
        """Whether it is known how far a partition is inserted."""
        return place in self._inserted

    def begins(self, place: Place, inserted: int) -> None:
        """A partition is taken up where its owner found it."""
        self._inserted[place] = inserted

    def forget(self, places: Iterable[Place]) -> None:
        """These partitions are no more."""
        for place in places:
            self._inserted.pop(place, None)
            self._ends.pop(place, None)

    async def inserted(self, place: Place, end: int) -> None:
        """Everything before `end` is in the tables."""
        async with self._moved:
            if end > self._inserted.get(place, -1):
                self._inserted[place] = end
                self._moved.notify_all()

    async def follow(self, record: Record, history: str) -> None:
        """Takes in a record of the log of blocks that another sink wrote. What it inserted is there, whatever became of its hold."""
        if isinstance(record, Inserted) and blocks.is_of(record, history):
            await self.inserted((record.topic, record.partition), record.end_offset)

    def ends_at(self, ends: Mapping[Place, int]) -> None:
        """What the ends of partitions are now."""
        self._ends.update(ends)

    def behind(self, ends: Mapping[Place, int] | None = None) -> int:
        """How many offsets before `ends` (default: the last known ones) are not inserted yet."""
        return blocks.behind((self._ends if ends is None else ends).items(), self._inserted)

    async def wait(self, ends: Mapping[Place, int]) -> None:
        """Returns when everything before `ends` is inserted."""
        async with self._moved:
            await self._moved.wait_for(lambda: not self.behind(ends))
