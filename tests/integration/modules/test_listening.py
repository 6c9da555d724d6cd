"""Broadcasts to users' modules, and what lists tell of their processes: away and back, crashed in the middle, dead without a word."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.modules import Call, Module, presence
from services.processes import gateway_modules
from services.processes.gateway_modules import BusModules
from streams.bus import Bus, connect
from streams.codec.avro import Codec
from streams.errors import Unavailable
from streams.kafka import Kafka
from streams.records import to_micros
from streams.settings import Settings
from tests.integration.orchestrator.cores import core

pytestmark = pytest.mark.broker

PATIENCE_S = 120.0


class Ears:
    """A module that hears of orders, in the way that the test wants."""

    def __init__(self) -> None:
        self.module = Module("ears")
        self.heard: list[tuple[str, str]] = []
        self.deaf = 0  #: how many more messages its listener fails at
        self.held: asyncio.Event | None = None

        @self.module.on("order.*")
        async def order(data: dict[str, Any], call: Call) -> None:
            if self.held is not None:
                await self.held.wait()
            self.heard.append((data["name"], call.request_id))
            if self.deaf:
                self.deaf -= 1
                raise RuntimeError("it did not get that")

    def names(self) -> list[str]:
        return [name for name, _ in self.heard]


@asynccontextmanager
async def serving(ears: Ears, settings: Settings, bus: Bus) -> AsyncIterator[None]:
    """The module serves, and the hub knows it."""
    ready = asyncio.Event()
    task = asyncio.create_task(ears.module.run(settings.model_copy(update={"module_drain_ms": 100}), ready=ready.set))
    try:
        await asyncio.wait_for(ready.wait(), PATIENCE_S)
        await until_subscribed(bus)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_subscribed(bus: Bus) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while "ears" not in [each["subscriber"] for each in (await hub(bus, "subscriptions"))["subscriptions"]]:
            await asyncio.sleep(0.05)


async def hub(bus: Bus, operation: str, **parameters: Any) -> Any:
    return await bus.call_module("hub", operation, parameters, home="hub", timeout=PATIENCE_S)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
async def bus(settings: Settings, kafka: Kafka, codec: Codec) -> AsyncIterator[Bus]:
    async with core(kafka, codec, "core-1"), connect(settings) as bus:
        yield bus


async def test_a_module_hears_what_it_wants_and_its_sender_is_told(settings: Settings, bus: Bus) -> None:
    ears = Ears()
    async with serving(ears, settings, bus):
        report = await bus.broadcast("order.paid", {"name": "tea"})
        assert (report["received"], report["missing"]) == (["ears"], [])
        assert (await bus.broadcast("stock.empty", {}))["subscribers"] == 0
    assert ears.names() == ["tea"]


async def test_what_is_sent_while_the_module_is_away_waits_within_its_deadline(settings: Settings, bus: Bus) -> None:
    async with serving(Ears(), settings, bus):
        pass
    lost = await bus.broadcast("order.paid", {"name": "lost"}, timeout=0.2)
    assert (lost["received"], lost["missing"]) == ([], ["ears"])
    waiting = asyncio.create_task(bus.broadcast("order.paid", {"name": "kept"}, timeout=PATIENCE_S))
    ears = Ears()
    async with serving(ears, settings, bus):
        assert (await waiting)["received"] == ["ears"]
    assert ears.names() == ["kept"], "nobody waits for the other one any more"


async def test_a_listener_that_fails_is_called_again_when_the_module_is_back_and_it_counts_once(settings: Settings, bus: Bus) -> None:
    ears = Ears()
    ears.deaf = 1
    async with serving(ears, settings, bus):
        waiting = asyncio.create_task(bus.broadcast("order.paid", {"name": "tea"}, timeout=PATIENCE_S))
        await until(lambda: ears.names() == ["tea"])
        assert not waiting.done(), "the module has not received it"
    again = Ears()
    async with serving(again, settings, bus):
        report = await waiting
    assert (report["received"], report["subscribers"]) == (["ears"], 1)
    assert again.names() == ["tea"]
    assert {message_id for _, message_id in ears.heard + again.heard} == {ears.heard[0][1]}, "a repeat is recognised by its id"


async def test_a_message_whose_listener_was_interrupted_comes_again(settings: Settings, bus: Bus) -> None:
    interrupted = Ears()
    interrupted.held = asyncio.Event()
    async with serving(interrupted, settings, bus):
        waiting = asyncio.create_task(bus.broadcast("order.paid", {"name": "tea"}, timeout=PATIENCE_S))
        async with asyncio.timeout(PATIENCE_S):
            while not (await bus.modules("registered"))[0]["instances"]:
                await asyncio.sleep(0.05)
    assert interrupted.names() == []
    ears = Ears()
    async with serving(ears, settings, bus):
        assert (await waiting)["received"] == ["ears"]
    assert set(ears.names()) == {"tea"}


async def test_lists_tell_which_processes_live_and_which_module_is_silent(
    settings: Settings, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "RENEWAL_S", 0.3)
    monkeypatch.setattr(gateway_modules, "PATIENCE_S", PATIENCE_S)  # a busy hub is waited for: the topics alone know less
    gateway = BusModules(bus)
    ears = Ears()

    async def becomes(told: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The module's row, as soon as it is there and tells what is waited for."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(Unavailable):  # a hub that is busy: it is asked again
                    for row in await bus.modules():
                        if row["module"] == "ears" and told(row):
                            return row
                await asyncio.sleep(0.05)

    ready = asyncio.Event()
    task = asyncio.create_task(ears.module.run(settings, ready=ready.set))
    await asyncio.wait_for(ready.wait(), PATIENCE_S)
    # It is registered when it serves already, and tells of itself with each renewal.
    row = await becomes(lambda row: row["status"] == "serving" and row["instances"] and row["instances"][0]["detail"])
    (instance,) = row["instances"]
    assert instance["instance"].startswith("ears-")
    assert instance["detail"] == {"running": 0, "limit": settings.module_concurrency, "abandoned": 0, "draining": False}
    told = {each["name"]: each for each in await gateway.list()}
    assert [name for name, each in told.items() if not each["built_in"]] == ["ears"]
    assert {name: {*each} - {"name", "built_in"} for name, each in told.items()} == {
        each["module"]: {*each} for each in await bus.modules()
    }
    async with asyncio.timeout(PATIENCE_S):
        while not (figures := await gateway.figures()):
            pass  # the hub took longer than a scrape waits
    assert (figures["ears"].serving, figures["ears"].processes) == (True, 1)
    await hub(bus, "drain", module="ears")
    assert (await becomes(lambda row: row["status"] == "draining"))["instances"] != []
    await hub(bus, "start", module="ears")
    await becomes(lambda row: row["status"] == "serving")

    # It dies without a word, soon after a short lease: whoever held its connection is gone, and no lease is renewed.
    monkeypatch.setattr(presence, "LEASE_MS", 500)
    async with asyncio.timeout(PATIENCE_S):
        while not [each async for each in _events(bus, "hub.lease-renewed") if each.data["lease_us"] - to_micros(each.time) < 1_000_000]:
            await asyncio.sleep(0.05)
    monkeypatch.setattr(presence.Presence, "leave", _without_a_word)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await becomes(lambda row: row["status"] == "silent"))["instances"] == []
    shown = await gateway.show("ears")
    assert (shown["status"], shown["instances"]) == ("silent", [])
    gone = [event.data async for event in _events(bus, "hub.instance-gone")]
    assert {each["lapsed"] for each in gone} == {True}, "a busy machine may have been late with a renewal before"


async def _without_a_word(_: Any) -> None:
    """As if it were killed."""


async def _events(bus: Bus, type: str) -> AsyncIterator[Any]:
    async for delivered in bus.read("mplp.module.messages", until_end=True, type=type):
        yield delivered.record


async def test_without_a_core_the_topics_tell_which_modules_there_are(settings: Settings, codec: Codec) -> None:
    module = Module("lonely")
    ready = asyncio.Event()
    task = asyncio.create_task(module.run(settings, ready=ready.set))
    try:
        await asyncio.wait_for(ready.wait(), PATIENCE_S)
        async with connect(settings) as bus:
            found = {each["name"]: each for each in await BusModules(bus).list()}
        assert (found["lonely"]["status"], found["lonely"]["operations"]) == ("unknown", None)
        assert {name for name, each in found.items() if not each["built_in"]} == {"lonely"}, "modules of other installations are not ours"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
