"""A worker that does not run for a while (stopped, a laptop asleep) reads what came meanwhile as if it had just come."""

from __future__ import annotations

import asyncio
import signal

import pytest

from streams.bus.bus import Bus
from streams.correlation import control
from streams.records import SystemEvent
from streams.settings import Settings
from streams.topics import COMPOSITES
from tests.integration.streams.workers import count_rule, wait_for_composites, worker

pytestmark = pytest.mark.broker


def failed(customer: str, number: int) -> SystemEvent:
    return SystemEvent(type="order.failed", source="shop", subject=f"{customer}-{number}", data={"customer": customer})


async def test_what_came_while_a_worker_was_stopped_is_not_late(settings: Settings, bus: Bus) -> None:
    during = [f"during-{second}" for second in range(6)]
    patient = settings.model_copy(update={"group_session_timeout_ms": 30_000})
    async with worker(patient) as process:
        await control.apply(bus, [count_rule(condition={"gte": 2}, grace="1s", timespan="5s")], who="test")
        await bus.publish([failed("before", number) for number in range(8)])
        await wait_for_composites(bus, 1)
        await asyncio.sleep(2.5)  # its partitions are idle now: event time goes on at the rate of the wall clock
        process.signal(signal.SIGSTOP)
        for customer in during:
            await bus.publish([failed(customer, number) for number in range(2)])
            await asyncio.sleep(1.0)
        process.signal(signal.SIGCONT)
        said: set[str] = set()
        async with asyncio.timeout(180):
            async for delivered in bus.read(COMPOSITES, since="beginning"):
                said.add(delivered.record.group_key["data.customer"])  # type: ignore[attr-defined]
                if said >= set(during):
                    break
