"""Which topic the rows of a partition are of, when a sink takes it in; rows of a topic that is no more are set aside first."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from services.history.block_log import BlockLog
from services.history.blocks import same_topic
from services.history.partition import Partition
from services.history.ports import Feed, Incarnation, Place, Ports

log = structlog.get_logger(__name__)


class Origins:
    """Of the partitions of a unit. Its hold must be claimed: who has lost it moves nothing."""

    def __init__(self, ports: Ports, feed: Feed) -> None:
        self._ports, self._feed = ports, feed
        self.leaving: dict[Place, Partition] = {}  #: of an earlier topic, with a block of it on its way into the tables

    async def of(self, places: Iterable[Place], hold: BlockLog) -> dict[Place, Incarnation]:
        """The topics of partitions that can be taken in now: those whose tables have nothing of an earlier topic of that name.

        Rows of an earlier one are given to another name here, once no insert of them can be under way.
        """
        self.leaving = {place: part for place, part in self.leaving.items() if part.busy}
        asked = [place for place in places if place not in self.leaving]
        if not asked:
            return {}
        ids = await self._feed.topic_ids({topic for topic, _ in asked})
        noted = dict(await self._ports.tables.incarnations(asked))
        found: dict[Place, Incarnation] = {}
        new: dict[Place, Incarnation] = {}
        for place in asked:
            now, before = ids.get(place[0], ""), noted.get(place)
            if before is None:
                found[place] = Incarnation(topic_id=now, number=0)
                if now:
                    new[place] = found[place]
            elif same_topic(before.topic_id, now):
                found[place] = before
            elif self._ports.alone or hold.outwaited:
                await hold.confirm()
                aside = await self._ports.tables.set_aside(place, before)
                log.warning("history.topic.set-aside", topic=place[0], partition=place[1], rows_are_now_of=aside)
                found[place] = new[place] = Incarnation(topic_id=now, number=before.number + 1)
        if new:
            await self._ports.tables.note_incarnations(new)
        return found
