"""The sink's other ports over the simulated broker: reading, and a group that shares the work."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from services.history.ports import Fetched, Place
from streams.log.rule import ReadersRule
from streams.testing.simulation.broker import SimulatedBroker
from streams.testing.simulation.group import Member, SimulatedGroup
from streams.testing.simulation.loop import ProcessLoop
from tests.simulation.history.traffic import Traffic

#: A fetch that finds nothing is answered after so long.
FETCH_WAIT_US = 300_000


class SimulatedFeed:
    """`ports.Feed`. The traffic knows which topics there are, and everything that was ever stored, as the index of fences does."""

    def __init__(self, broker: SimulatedBroker, loop: ProcessLoop, traffic: Traffic) -> None:
        self._broker, self._loop, self._traffic = broker, loop, traffic
        self._cluster: Mapping[str, int] = traffic.cluster  #: it may grow
        self._history: Mapping[Place, list[Any]] = traffic.all
        self._positions: dict[Place, int] = {}
        self._paused: frozenset[Place] = frozenset()
        self._changed = asyncio.Event()

    async def topics(self) -> Mapping[str, int]:
        """See `ports.Feed`."""
        return await self._broker.ask(self._loop, lambda: dict(self._cluster))

    async def topic_ids(self, topics: Collection[str]) -> Mapping[str, str]:
        """See `ports.Feed`."""
        return await self._broker.ask(self._loop, lambda: {each: self._traffic.topic_id(each) for each in topics if each in self._cluster})

    async def starts(self, places: Iterable[Place]) -> Mapping[Place, int]:
        """See `ports.Feed`."""
        asked = list(places)
        return await self._broker.ask(self._loop, lambda: {place: self._broker.partition(*place).first for place in asked})

    async def ends(self, places: Iterable[Place]) -> Mapping[Place, int]:
        """See `ports.Feed`."""
        asked = list(places)
        return await self._broker.ask(self._loop, lambda: {place: self._broker.partition(*place).visible for place in asked})

    async def epoch_at(self, topic: str, partition: int, offset: int) -> int:
        """See `ports.Feed`."""

        def look() -> int:
            rule = ReadersRule()
            for stored in self._history[topic, partition]:
                if stored.offset < offset:
                    rule.judge_headers(stored.headers)
            return rule.epoch

        return await self._broker.ask(self._loop, look)

    def assign(self, positions: Mapping[Place, int]) -> None:
        """See `ports.Feed`."""
        self._positions = dict(positions)
        self._changed.set()

    def pause(self, places: Collection[Place]) -> None:
        """See `ports.Feed`."""
        self._paused = frozenset(places)

    async def fetch(self) -> Sequence[Fetched]:
        """See `ports.Feed`: some of what is there, of every partition."""
        self._changed.clear()
        asked = dict(self._positions)
        found = await self._broker.ask(self._loop, partial(self._at_hand, asked))
        # As the client does: what was fetched from another position than the one of now is fetched again.
        found = [fetched for fetched in found if self._positions.get(fetched.place, -1) == asked.get(fetched.place)]
        if not found:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FETCH_WAIT_US / 1e6):
                    await self._changed.wait()
        for fetched in found:
            self._positions[fetched.place] = fetched.position
        return found

    def _at_hand(self, positions: Mapping[Place, int]) -> list[Fetched]:
        chance = self._broker.scheduler.random.random
        found = []
        for place, position in positions.items():
            if place in self._paused:
                continue
            partition = self._broker.partition(*place)
            # Behind the end there is nothing: the client begins anew, as it does after its topic was made again.
            start = max(position, partition.first) if position <= partition.end else partition.first
            records = partition.between(start, partition.visible, 1 + int(chance() * 60))
            following = records[-1].offset + 1 if records else start
            if following != position:
                adapted = [_Raw(stored) for stored in records]
                found.append(Fetched(place=place, records=adapted, position=following, end=partition.visible))
        return found

    async def close(self) -> None:
        """See `ports.Feed`."""


class _Raw:
    """A stored record with the client's names."""

    __slots__ = ("headers", "key", "offset", "timestamp", "value")

    def __init__(self, stored: Any) -> None:
        self.offset, self.timestamp, self.key = stored.offset, stored.timestamp_ms, stored.key
        self.value, self.headers = stored.value, stored.headers


class SimulatedMembership:
    """`ports.Membership` by the simulated group."""

    def __init__(self, group: SimulatedGroup, member: Member) -> None:
        self._group, self._member = group, member
        self.units: frozenset[int] | None = None

    async def run(self, changed: Callable[[], None]) -> None:
        """See `ports.Membership`."""
        while True:
            self.units = frozenset(await self._group.join(self._member))
            changed()
            await self._member.rejoin.wait()
