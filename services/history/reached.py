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
        self._topic_ids: dict[str, str] = {}  #: which topic what is known is about
        self._moved = asyncio.Condition()

    def knows(self, place: Place) -> bool:
        """Whether it is known how far a partition is inserted."""
        return place in self._inserted

    def are(self, topic_ids: Mapping[str, str]) -> None:
        """Which topics there are by these names now. What is known of an earlier one of the name is forgotten."""
        for topic, topic_id in topic_ids.items():
            before = self._topic_ids.get(topic, "")
            if not blocks.same_topic(before, topic_id):
                self.forget([place for place in (*self._inserted, *self._ends) if place[0] == topic])
            self._topic_ids[topic] = topic_id or before

    def is_of(self, topic: str, topic_id: str) -> bool:
        """Whether what is known of a topic is about this one."""
        return blocks.same_topic(topic_id, self._topic_ids.get(topic, ""))

    def begins(self, place: Place, inserted: int, topic_id: str) -> None:
        """A partition of a topic is taken up where its owner found it."""
        self.are({place[0]: topic_id})
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
        if not isinstance(record, Inserted) or not blocks.is_of(record, history) or not isinstance(record.data, dict):
            return
        if self.is_of(record.topic, str(record.data.get("topic_id", ""))):
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
