"""Tables in memory as the sink relies on them: a block of one table is in or not, a token that is remembered makes an insert do nothing.

What is weather: how long an insert takes, whether its answer arrives, whether it is done later, when the server is away.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, TypeVar

from services.history.blocks import Span, token
from services.history.container import Row, body_id
from services.history.incarnations import name_aside
from services.history.ports import BlockRefused, Incarnation, Kept, Place
from services.history.rows import REPEAT_WINDOW_OFFSETS
from services.history.tables import DEAD_LETTERS, LOG_RECORDS
from streams.errors import Unavailable
from streams.testing.simulation.broker import SimulatedBroker
from streams.testing.simulation.loop import ProcessLoop

T = TypeVar("T")
#: Tokens that a table remembers: more than are inserted in two leases, as on the real tables, and as few as that allows.
WINDOW_BLOCKS = 150


@dataclass(slots=True, kw_only=True)
class TableWeather:
    """Chances per insert, and when the server is away (µs)."""

    slow_us: int = 100_000  #: an insert takes up to that long
    failed: float = 0.0  #: nothing is inserted, and the client is told so
    unknown: float = 0.0  #: it is inserted, and the client is told that it failed
    late: float = 0.0  #: the client is told that it failed, and it is inserted later
    late_us: int = 40_000_000  #: at most so much later
    away: tuple[int, int] = (0, 0)  #: from, to


class Shelf:
    """The server. `good`: bodies that are what they say; a block of a table with another one is refused."""

    def __init__(self, broker: SimulatedBroker, weather: TableWeather, good: Collection[bytes], chance: Random) -> None:
        self.broker, self.weather, self._good = broker, weather, good
        self.count: Counter[tuple[Place, int]] = Counter()  #: rows per offset, over all tables
        self.table_of: dict[tuple[Place, int], str] = {}
        self.ids: dict[Place, dict[int, bytes]] = defaultdict(dict)
        self._tokens: dict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)
        self.deduplicates = True  #: switched by tests of the tests
        self.deadlines = True
        self.incarnations: dict[Place, Incarnation] = {}
        self.connections = 0  #: grows when everything that is on its way is lost
        self.totals: Counter[str] = Counter()
        self._chance = chance

    @property
    def away(self) -> bool:
        """Whether nobody can reach it."""
        return self.weather.away[0] <= self.broker.scheduler.now_us < self.weather.away[1]

    def die_in_between(self, span: Span, table: str, again: int) -> None:
        """An insert is cut off with its server: perhaps after its token was noted, and before its rows were there."""
        if self._chance.random() < 0.3:
            self._tokens[table][token(span, table, 0, again)] = None
            self.totals["tokens without rows"] += 1

    def insert(self, span: Span, table: str, rows: Sequence[Row], deadline_us: int, again: int) -> Exception | None:
        """One insert reaches the server."""
        if self.deadlines and self.broker.scheduler.now_us > deadline_us:
            self.totals["expired"] += 1
            return Unavailable("history.unavailable", "expired")
        if table not in (LOG_RECORDS, DEAD_LETTERS) and any(body not in self._good for _, _, body in rows):
            self.totals["refused"] += 1
            return BlockRefused("misaligned")
        remembered, name = self._tokens[table], token(span, table, 0, again)
        if name in remembered and self.deduplicates:
            self.totals["deduplicated"] += 1
            return None
        remembered[name] = None
        while len(remembered) > WINDOW_BLOCKS:
            remembered.popitem(last=False)
        place = (span.topic, span.partition)
        for offset, _, body in rows:
            self.count[place, offset] += 1
            self.table_of[place, offset] = table
            if table != LOG_RECORDS:
                self.ids[place][offset] = body_id(b"\x00" * 5 + body)
        self.totals["inserts"] += 1
        return None

    def move(self, place: Place, aside: Place, table: str) -> None:
        """Gives the rows of a place in a table to another one."""
        for offset in [at for (of, at), name in self.table_of.items() if of == place and name == table]:
            self.table_of[aside, offset] = self.table_of.pop((place, offset))
            self.count[aside, offset] += self.count.pop((place, offset))
            if offset in self.ids[place]:
                self.ids[aside][offset] = self.ids[place].pop(offset)
            self.totals["set aside"] += 1


class SimulatedTables:
    """`ports.Tables` of one process."""

    def __init__(self, shelf: Shelf, loop: ProcessLoop) -> None:
        self._shelf, self._loop, self._broker = shelf, loop, shelf.broker

    async def identity(self) -> str:
        """See `ports.Tables`."""
        return await self._ask(lambda: "history")

    async def insert(self, span: Span, table: str, rows: Sequence[Row], *, within_s: float, again: int = 0) -> None:
        """See `ports.Tables`."""
        weather, scheduler = self._shelf.weather, self._broker.scheduler
        chance = scheduler.random.random
        deadline_us = scheduler.now_us + int(within_s * 1e6)
        future: asyncio.Future[None] = self._loop.create_future()
        fate, away, connection = chance(), self._shelf.away, self._shelf.connections

        def answer(what: Exception | None) -> None:
            scheduler.at(self._broker.delay(), lambda: self._broker.resolve(self._loop, future, what))

        def late() -> None:
            if connection == self._shelf.connections:
                self._shelf.insert(span, table, rows, deadline_us, again)

        def arrived() -> None:
            lost = Unavailable("history.unavailable", "no answer")
            if away or connection != self._shelf.connections or fate < weather.failed:
                self._shelf.die_in_between(span, table, again)
                answer(lost)
            elif fate < weather.failed + weather.unknown:
                self._shelf.insert(span, table, rows, deadline_us, again)
                answer(lost)
            elif fate < weather.failed + weather.unknown + weather.late:
                answer(lost)
                scheduler.at(int(chance() ** 2 * weather.late_us), late)
            else:
                answer(self._shelf.insert(span, table, rows, deadline_us, again))

        await asyncio.sleep(0)  # it waits for a thread; a process may be stopped just here
        scheduler.at(self._broker.delay() + int(chance() * weather.slow_us), arrived)
        await future

    async def offsets_of(self, span: Span) -> Collection[int]:
        """See `ports.Tables`."""
        place = (span.topic, span.partition)
        return await self._ask(lambda: {offset for offset in range(span.first, span.end) if self._shelf.count[place, offset]})

    async def kept(self, topics: Collection[str]) -> Mapping[Place, Kept]:
        """See `ports.Tables`."""

        def look() -> dict[Place, Kept]:
            offsets: dict[Place, list[int]] = defaultdict(list)
            for (place, offset), count in self._shelf.count.items():
                if count and place[0] in topics:
                    offsets[place].append(offset)
            return {place: Kept(first=min(found), last=max(found)) for place, found in offsets.items()}

        return await self._ask(look)

    async def incarnations(self, places: Collection[Place]) -> Mapping[Place, Incarnation]:
        """See `ports.Tables`."""
        noted = self._shelf.incarnations
        return await self._ask(lambda: {place: noted[place] for place in places if place in noted})

    async def note_incarnations(self, incarnations: Mapping[Place, Incarnation]) -> None:
        """See `ports.Tables`."""
        await self._ask(lambda: self._shelf.incarnations.update(incarnations))

    async def set_aside(self, place: Place, incarnation: Incarnation) -> str:
        """See `ports.Tables`. Table by table: it may be cut off in between, and go on another time."""
        aside = (name_aside(place[0], incarnation), place[1])
        for table in sorted(set(self._shelf.table_of.values())):
            await self._ask(partial(self._shelf.move, place, aside, table))
        return aside[0]

    async def recent_ids(self, topic: str, partition: int, before: int) -> Sequence[tuple[int, bytes]]:
        """See `ports.Tables`."""
        ids = self._shelf.ids[topic, partition]
        return await self._ask(lambda: sorted((at, each) for at, each in ids.items() if before - REPEAT_WINDOW_OFFSETS <= at < before))

    async def _ask(self, look: Callable[[], T]) -> T:
        if self._broker.scheduler.over:
            raise asyncio.CancelledError
        future: asyncio.Future[Any] = self._loop.create_future()
        scheduler = self._broker.scheduler
        failed = self._shelf.away or scheduler.random.random() < self._shelf.weather.failed / 4

        def arrived() -> None:
            answer = Unavailable("history.unavailable", "no answer") if failed else look()
            scheduler.at(self._broker.delay(), lambda: self._broker.resolve(self._loop, future, answer))

        scheduler.at(self._broker.delay(), arrived)
        found: T = await future
        return found
