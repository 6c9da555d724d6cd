"""A rule that costs too much is disabled for all, with a reason; the worker lives on, and the other rules with it."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from streams.bus.bus import Bus
from streams.correlation import control
from streams.records import SystemEvent
from streams.settings import Settings
from tests.integration.streams.workers import count_rule, wait_for_composites, worker

pytestmark = pytest.mark.broker


async def test_a_rule_that_takes_the_processor_is_disabled_and_the_others_go_on(settings: Settings, bus: Bus) -> None:
    dear = count_rule("dear")
    dear["events"]["failed"]["where"] = "data.l.all(x, data.l.all(y, x + y >= 0))"
    async with worker(settings):
        await control.apply(bus, [dear, count_rule()], who="ann")
        event = SystemEvent(type="order.failed", source="shop", subject="s", data={"customer": "ann", "l": list(range(400))})

        async def produce() -> None:
            for number in range(10_000):
                await bus.publish([dataclasses.replace(event, id=f"00000000-0000-7000-8000-{number:06}{part:06}") for part in range(100)])
                await asyncio.sleep(0.5)

        producing = asyncio.create_task(produce())
        try:
            async with asyncio.timeout(180):
                told = await anext(bus.subscribe("mplp.system.events", since="beginning", type="rule.disabled"))
        finally:
            producing.cancel()
        assert (told.subject, told.severity, told.data["version"], told.data["who"]) == ("dear", "error", 2, "worker-1")
        assert "Its matching took" in told.data["why"]
        stored = await control.show(bus, "dear")
        assert stored.document["enabled"] is False
        # The worker has gone on: the other rule says what it has seen since.
        found = await wait_for_composites(bus, 1)
        assert {composite.rule_id for composite in found} <= {"count", "dear"}
        before = len(found)
        await bus.publish([SystemEvent(type="order.failed", source="shop", subject="s", data={"customer": "bob"}) for _ in range(3)])
        async with asyncio.timeout(180):
            async for composite in bus.subscribe("mplp.composite.events", since="beginning"):
                if composite.group_key["data.customer"] == "bob":
                    break
        assert composite.rule_id == "count"
        assert before
