"""A broadcast to a hundred subscribers, ten of them killed: ninety have it once, ten when they are back, and the report says which."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from streams.bus import Bus
from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.settings import Settings
from tests.integration.modules.hosts import serving
from tests.integration.modules.subscribers import names

pytestmark = pytest.mark.broker

ROOT = Path(__file__).resolve().parents[3]
SUBSCRIBERS, KILLED = 100, 10
PATIENCE_S = 120.0


class Listeners:
    """A process with some of the subscribers, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode().strip())

    def received(self) -> Counter[str]:
        """How many messages each subscriber had."""
        return Counter(line.split()[0] for line in self.lines)

    async def kill(self) -> None:
        """kill -9."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading


@asynccontextmanager
async def listening(settings: Settings, first: int, count: int) -> AsyncIterator[Listeners]:
    environment = {**os.environ, "MPLP_KAFKA_BOOTSTRAP": settings.kafka_bootstrap, "MPLP_TOPIC_PREFIX": settings.topic_prefix}
    command = (sys.executable, "-m", "tests.integration.modules.subscribers", str(first), str(count))
    listeners = Listeners(await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE))
    try:
        yield listeners
    finally:
        await listeners.kill()


async def until_subscribed(bus: Bus, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await bus.call_module("hub", "subscriptions", {}))["total"] < count:
            await asyncio.sleep(0.1)


async def until_received(listeners: Listeners, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(listeners.lines) < count:
            await asyncio.sleep(0.05)


async def report_of(bus: Bus, broadcast_id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await bus.call_module("hub", "report", {"id": broadcast_id}))["broadcast"]
    return found


async def test_ninety_receive_once_and_ten_when_they_are_back(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    settings, living = kafka.settings, SUBSCRIBERS - KILLED
    everybody, away = names(0, SUBSCRIBERS), names(living, KILLED)
    async with serving(kafka, codec, "one"), listening(settings, 0, living) as there:
        async with listening(settings, living, KILLED) as killed:
            await until_subscribed(bus, SUBSCRIBERS)
            # when ten are killed, and a message is for all
            await killed.kill()
        sent = await bus.broadcast("weather.turned", {"to": "rain"}, timeout=PATIENCE_S, wait=False)
        await until_received(there, living)
        # then the report says who has it, and who not
        async with asyncio.timeout(PATIENCE_S):
            while len((report := await report_of(bus, sent["broadcastId"]))["received"]) < living:
                await asyncio.sleep(0.05)
        assert (report["status"], report["missing"], report["late"]) == ("running", away, [])
        # and they have it when they are back
        async with listening(settings, living, KILLED) as back:
            await until_received(back, KILLED)
            async with asyncio.timeout(PATIENCE_S):
                while (report := await report_of(bus, sent["broadcastId"]))["status"] == "running":
                    await asyncio.sleep(0.05)
            assert (report["received"], report["missing"], report["late"]) == (everybody, [], [])
            assert there.received() == Counter(names(0, living))
            assert back.received() == Counter(away)
        # a message that nobody is back for in time is told as such
        sent = await bus.broadcast("weather.turned", {"to": "snow"}, timeout=12)
        assert (sent["status"], sent["missing"]) == ("ended", away)
        await until_received(there, 2 * living)
        assert set(there.received().values()) == {2}, "each message once"
