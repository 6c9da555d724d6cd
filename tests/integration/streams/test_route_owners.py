"""Routes whose source partitions go to another worker and come back: what is written to a topic is there once."""

from __future__ import annotations

import asyncio
import signal

import pytest

from streams.bus import Bus
from streams.records import SystemEvent
from streams.routing import control
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS
from tests.integration.streams.workers import worker

pytestmark = pytest.mark.broker

COPIES = "mplp.copies"


async def published(bus: Bus, first: int, end: int) -> None:
    """Events of many keys, in every partition."""
    await bus.publish(
        [SystemEvent(type="order.paid", source="shop", subject=f"k{number % 50}", data={"number": number}) for number in range(first, end)]
    )


async def copied(bus: Bus, end: int) -> list[int]:
    """The numbers of what the destination has, once all up to `end` are there."""
    async with asyncio.timeout(120):
        while True:
            found = [each.record.data["number"] async for each in bus.read(COPIES, since="beginning", until_end=True)]
            if set(range(end)) <= set(found):
                return sorted(found)
            await asyncio.sleep(0.2)


async def test_who_comes_back_from_the_dead_goes_on_where_the_successor_has_stopped(bus: Bus, settings: Settings) -> None:
    async with worker(settings, "sleeper") as sleeper, worker(settings, "successor") as successor:
        await control.apply(
            bus,
            [{"id": "copy", "match": {"topic": SYSTEM_EVENTS, "type": "order.*"}, "destination": {"topic": COPIES}}],
            who="test",
        )
        await published(bus, 0, 100)
        await copied(bus, 100)
        sleeper.signal(signal.SIGSTOP)
        await published(bus, 100, 300)
        await copied(bus, 300)  # by the successor alone, once the group has missed the sleeper
        await successor.kill()
        sleeper.signal(signal.SIGCONT)  # and gets back what it had
        await published(bus, 300, 400)
        await copied(bus, 400)
        await published(bus, 400, 401)

        assert await copied(bus, 401) == list(range(401))
