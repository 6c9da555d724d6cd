"""A session of the sink: from a connection to Kafka to its loss. It reads, looks for topics, and runs the units that are ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog
from aiokafka.errors import KafkaError

from services.history.blocks import BLOCK_BYTES_MAX, BLOCK_INSERTED, unit_of
from services.history.partition import Partition
from services.history.ports import Feed, Fetched, Membership, Place, Ports
from services.history.reached import Reached
from services.history.rows import Raw, Source
from services.history.source import sunk
from services.history.unit import AGE_S, RETRY_S, SHARED_AGE_S, Pace, Unit
from streams.concurrency import cancelled
from streams.errors import BackboneError, Unavailable
from streams.log.rule import type_and_epoch
from streams.topics import BLOCKS

log = structlog.get_logger(__name__)

#: Memory of what waits to be inserted, bytes; reading stops above it.
BUFFER_BYTES_MAX = 96 * 1024 * 1024
#: How often new topics are looked for, seconds.
DISCOVER_S = 5.0


class Session:
    """From a connection to its loss: reads, looks for topics, and runs the units that are ours."""

    def __init__(self, ports: Ports, reached: Reached, pace: Pace) -> None:
        self._ports, self._reached, self._pace = ports, reached, pace
        self._feed: Feed | None = None
        self._blocks_topic = ports.names.physical(BLOCKS)
        self._history = ""
        self._count = 0  #: partitions of the log of blocks
        self._group: Membership | None = None
        self._units: dict[int, Unit] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._parts: dict[Place, Partition] = {}  #: of all units
        self._followed: dict[Place, int] = {}  #: partitions of the log of blocks that others own → position
        self._look = asyncio.Event()
        self._room = asyncio.Event()
        self._discovering = asyncio.Lock()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()  #: a defect of a unit

    async def _fail(self) -> None:
        await self._failed

    def _unit_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def run(self, begun: Callable[[], None]) -> None:
        """Works until cancelled. Raises what the broker or the group raises."""
        self._feed = await self._ports.open_feed()
        try:
            self._count = (await self._feed.topics()).get(self._blocks_topic, 0)
            if not self._count:
                raise Unavailable("topics.missing", f"There is no topic {self._blocks_topic}.", advice="Run `mplp topics apply`.")
            self._history = await self._ports.tables.identity()
            self._group = self._ports.membership(self._count)
            await _together(self._group.run(self._look.set), self._discover_on(begun), self._read(self._feed), self._fail())
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await self._feed.close()

    def troubles(self) -> dict[Place, str]:
        """Partitions whose inserts wait, and why."""
        return {place: why for unit in self._units.values() for place, why in unit.troubles.items()}

    def wake(self) -> None:
        """Lets all units look for what is due."""
        for unit in self._units.values():
            unit.wake.set()

    # -- which units and topics

    async def _discover_on(self, begun: Callable[[], None]) -> None:
        while True:
            self._look.clear()
            for unit in list(self._units.values()):
                if unit.claimed.is_set():
                    await unit.drop_remade()
            await self.discover()
            if self._group is not None and self._group.units is not None and self._all_claimed(self._group.units):
                begun()
            try:
                async with asyncio.timeout(DISCOVER_S):
                    await self._look.wait()
            except TimeoutError:
                pass

    def _all_claimed(self, numbers: frozenset[int]) -> bool:
        return all(number in self._units and self._units[number].claimed.is_set() for number in numbers)

    async def discover(self) -> Mapping[Place, Source]:
        """Starts and stops units as the group says, and takes in sunk topics that are new; returns all sunk partitions."""
        assert self._feed is not None
        async with self._discovering:
            cluster = await self._feed.topics()
            found = sunk(cluster, self._ports.names)
            places = {(topic, number): source for topic, source in found.items() for number in range(cluster[topic])}
            ours = self._group.units if self._group is not None else None
            changed = await self._share(ours or frozenset())
            for number, unit in list(self._units.items()):
                if unit.claimed.is_set():
                    mine = {place: source for place, source in places.items() if unit_of(*place, self._count) == number}
                    changed |= await unit.take_in(mine)
            self._reached.forget([place for place in self._parts if place not in places])
            if ours is not None and len(ours) < self._count:
                # Of what is ours the units know it.
                self._reached.are(await self._feed.topic_ids(found))
            if ours is not None:
                changed |= await self._look_at_others(places, ours)
            if changed:
                self._reassign()
            return places

    async def _share(self, ours: frozenset[int]) -> bool:
        """Runs the units that are ours, and ends the others."""
        self._pace.age_s = AGE_S if len(ours) == self._count else SHARED_AGE_S
        gone = [number for number in self._tasks if number not in ours]
        for number in gone:
            task = self._tasks.pop(number)
            await cancelled(task)
        for number in sorted(ours - set(self._tasks)):
            self._tasks[number] = asyncio.create_task(self._keep(number))
            self._tasks[number].add_done_callback(self._unit_ended)
        return bool(gone)

    async def _keep(self, number: int) -> None:
        """Runs a unit, again and again, until cancelled: a hold that was lost is claimed anew as long as the unit is ours."""
        delay = RETRY_S[0]
        assert self._feed is not None
        while True:
            unit = self._units[number] = Unit(
                self._ports, number, history=self._history, feed=self._feed, reached=self._reached, pace=self._pace, room=self._room.set
            )
            watching = asyncio.create_task(self._look_when(unit.claimed))
            try:
                await unit.run()
            except (BackboneError, KafkaError, OSError) as error:
                delay = RETRY_S[0] if unit.claimed.is_set() else min(delay * 2, RETRY_S[1])
                log.warning("history.unit.lost", unit=number, error=str(error), seconds=delay)
            finally:
                watching.cancel()
                del self._units[number]
                self._parts = {place: part for place, part in self._parts.items() if place not in unit.places}
            await asyncio.sleep(delay)

    async def _look_when(self, event: asyncio.Event) -> None:
        await event.wait()
        self._look.set()

    async def _look_at_others(self, places: Mapping[Place, Source], ours: frozenset[int]) -> bool:
        """Follows what other sinks insert: queries here wait for their partitions, too."""
        assert self._feed is not None
        foreign = {(self._blocks_topic, number) for number in range(self._count) if number not in ours}
        new = foreign - set(self._followed)
        ends = await self._feed.ends(new) if new else {}
        # What was noted before the end from which we follow is not heard: the tables say it.
        begun = {number for _, number in new}
        others = [place for place in places if unit_of(*place, self._count) not in ours]
        unknown = [place for place in others if unit_of(*place, self._count) in begun or not self._reached.knows(place)]
        self._followed = {place: end for place, end in {**self._followed, **ends}.items() if place in foreign}
        if unknown:
            kept = await self._ports.tables.kept({topic for topic, _ in unknown})
            noted = await self._ports.tables.incarnations(unknown)
            for place in unknown:
                # Until its owner has set them aside, rows may be of an earlier topic of the name.
                if place in kept and (place not in noted or self._reached.is_of(place[0], noted[place].topic_id)):
                    await self._reached.inserted(place, kept[place].last + 1)
        return bool(new)

    # -- reading

    def _reassign(self) -> None:
        assert self._feed is not None
        self._parts = {place: part for unit in self._units.values() for place, part in unit.places.items()}
        self._feed.assign({**{place: part.read for place, part in self._parts.items()}, **self._followed})

    async def _read(self, feed: Feed) -> None:
        while True:
            parts = list(self._parts.values())
            if sum(part.bytes for part in parts) >= BUFFER_BYTES_MAX:
                # Many partitions at once, and none with a whole block: the fullest are inserted as they are.
                self._pace.enough_bytes = max(part.bytes for part in parts) // 2
                self._room.clear()
                self.wake()
                await self._room.wait()
                continue
            self._pace.enough_bytes = BLOCK_BYTES_MAX
            feed.pause([place for place, part in self._parts.items() if part.full])
            fetched = await feed.fetch()
            now_s = asyncio.get_running_loop().time()
            notes = [record for each in fetched for record in self._take(each, now_s)]
            self.wake()
            for record in notes:
                await self._reached.follow(self._ports.codec.decode(record.value), self._history)

    def _take(self, fetched: Fetched, now_s: float) -> list[Raw]:
        """Hands records to their partition; returns what others noted as inserted."""
        place = fetched.place
        if place in self._followed:
            if fetched.records:
                self._followed[place] = fetched.records[-1].offset + 1
            return [record for record in fetched.records if type_and_epoch(record.headers)[0] == BLOCK_INSERTED]
        part = self._parts.get(place)
        if part is not None:
            part.take(fetched.records, fetched.position, now_s)
            if fetched.end or fetched.position:
                self._reached.ends_at({place: max(fetched.end, fetched.position, part.read)})
        return []

    async def current_ends(self) -> Mapping[Place, int]:
        """End offsets of all sunk topics now, also of topics that were made a moment ago."""
        places = await self.discover()
        assert self._feed is not None
        ends = await self._feed.ends(places)
        self._reached.ends_at(ends)
        return ends


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """Runs all; the first failure ends the others and is raised as it is."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            # Once only: a second time would cut short what the first one put in order.
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
