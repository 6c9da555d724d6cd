"""What workers tell of the records of a rule: figures over all of them, and an event when records were not used."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from datetime import timedelta

import pytest

from streams.bus.bus import Bus
from streams.correlation import control
from streams.correlation.tallies import Tally
from streams.correlation.workers import living
from streams.records import SystemEvent, now
from streams.settings import Settings
from tests.integration.streams.workers import count_rule, wait_for_composites, worker

pytestmark = pytest.mark.broker


def failed(customer: str, *, seconds_ago: float = 0.0) -> SystemEvent:
    return SystemEvent(
        type="order.failed", source="shop", subject="s", time=now() - timedelta(seconds=seconds_ago), data={"customer": customer}
    )


async def told(bus: Bus, holds: Callable[[Tally], bool]) -> Tally:
    async with asyncio.timeout(180):
        while (tally := (await living(bus))[1].get("count")) is None or not holds(tally):
            await asyncio.sleep(0.2)
    return tally


async def test_late_and_ahead_records_are_counted_and_reported_and_figures_survive_a_worker(settings: Settings, bus: Bus) -> None:
    async with worker(settings) as process:
        await control.apply(bus, [count_rule(condition={"gte": 1}, grace="1s")], who="test")
        await bus.publish([failed("ann"), failed("bob")])
        await wait_for_composites(bus, 2)
        before = await told(bus, lambda tally: tally.composites == 2)
        assert (before.matched, before.late, before.names) == (2, 0, {"failed": 2})
        late, ahead = failed("ann", seconds_ago=600), failed("ann", seconds_ago=-3600)
        await bus.publish([late, ahead])
        tally = await told(bus, lambda tally: tally.late == 1 and tally.ahead == 1)
        assert (tally.late_ids, tally.ahead_ids) == ((late.id,), (ahead.id,))
        assert tally.late_by_us > 500_000_000
        events = {}
        async with asyncio.timeout(180):
            async for event in bus.subscribe("mplp.system.events", since="beginning", type="rule.records-ignored"):
                events[event.data["reason"]] = event.data
                if len(events) == 2:
                    break
        assert (events["late"]["rule"], events["late"]["examples"], events["late"]["count"]) == ("count", [late.id], 1)
        assert (events["ahead"]["examples"], events["ahead"]["count"]) == ([ahead.id], 1)

        process.signal(signal.SIGTERM)
        assert await process.wait() == 0
        await process.start()
        await bus.publish([failed("carl")])
        again = await told(bus, lambda tally: tally.composites == 3)
        assert (again.matched, again.late, again.late_ids) == (4, 1, (late.id,))
