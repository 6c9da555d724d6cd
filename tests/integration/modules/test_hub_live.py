"""The hub on a real broker: several modules in one operation, what fails of it, what is undone; answers that come late or never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from pydantic import BaseModel

from services.modules import Module, OperationFailed
from services.modules.answers import response_event, response_id
from streams.bus import Bus
from streams.codec.avro import Codec
from streams.errors import BackboneError, NotFound
from streams.kafka import Kafka
from streams.records import ModuleMessage, SystemEvent, now, to_micros
from streams.settings import Settings
from streams.topics import MESSAGES, RESPONSES, module_requests
from tests.integration.orchestrator.cores import core

pytestmark = pytest.mark.broker

PATIENCE_S = 120.0
CONTEXT = {
    "id": "room", "module": "context", "operation": "create-context", "parameters": {"name": "room"},
    "compensate": {"operation": "delete-context", "parameters": {"contextId": "${room.result.contextId}"}},
}  # fmt: skip
SALE = {
    "id": "sale", "module": "shop", "operation": "sell", "dependsOn": ["room"], "parameters": {"item": "${room.result.name}"},
    "compensate": {"operation": "refund", "parameters": {"item": "${sale.result.item}"}},
}  # fmt: skip
BROKEN = {"id": "broken", "module": "shop", "operation": "break", "dependsOn": ["sale"], "parameters": {"item": "vase"}}


class Item(BaseModel):
    """What all operations of the shop are about."""

    item: str


class Shop:
    """A user's module that the test looks into."""

    def __init__(self) -> None:
        self.module = Module("shop")
        self.refunded: list[str] = []

        @self.module.operation("sell")
        def sell(parameters: Item) -> Item:
            """Sells."""
            return parameters

        @self.module.operation("refund")
        def refund(parameters: Item) -> None:
            """Takes it back."""
            self.refunded.append(parameters.item)

        @self.module.operation("break")
        def break_(parameters: Item) -> None:
            """Fails."""
            raise OperationFailed("vase.broken", f"The {parameters.item} fell.")


@asynccontextmanager
async def open_shop(shop: Shop, settings: Settings) -> AsyncIterator[None]:
    ready = asyncio.Event()
    task = asyncio.create_task(shop.module.run(settings.model_copy(update={"module_drain_ms": 100}), ready=ready.set))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await ready.wait()
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until_offered(bus: Bus, module: str) -> None:
    """Until the hub knows a module."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            listed = await bus.call_module("hub", "list", {"kind": "registered"})
            if module in [each["module"] for each in listed["modules"]]:
                return
            await asyncio.sleep(0.05)


def statuses(answer: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    return {call["id"]: (call["status"], call["error"] and call["error"]["code"]) for call in answer["calls"]}


async def test_three_modules_coordinated_with_one_failing(kafka: Kafka, codec: Codec, bus: Bus) -> None:
    shop = Shop()
    async with core(kafka, codec, "core-1"), open_shop(shop, kafka.settings):
        await until_offered(bus, "shop")
        # partial success is reported as such, with the error, and results were handed on
        partial = await bus.call_module("hub", "coordinate", {"calls": [CONTEXT, SALE, BROKEN]})
        assert (partial["status"], partial["succeeded"], partial["failed"]) == ("partial", 2, 1)
        assert statuses(partial) == {"room": ("succeeded", None), "sale": ("succeeded", None), "broken": ("failed", "vase.broken")}
        assert partial["calls"][1]["result"] == {"item": "room"}
        assert shop.refunded == []
        # all or nothing: what succeeded is undone, the last first
        undone = await bus.call_module("hub", "coordinate", {"calls": [CONTEXT, SALE, BROKEN], "allOrNothing": True})
        assert undone["status"] == "compensated"
        assert statuses(undone) == {"room": ("compensated", None), "sale": ("compensated", None), "broken": ("failed", "vase.broken")}
        assert shop.refunded == ["room"]
        with pytest.raises(NotFound):
            await bus.call_module("context", "get-context", {"contextId": undone["calls"][0]["result"]["contextId"]})
        # the report is there afterwards
        report = await bus.call_module("hub", "report", {"id": undone["coordinationId"]})
        assert report["coordination"] == undone
        # an unknown module is an error with its place, before anything begins
        with pytest.raises(BackboneError) as refused:
            await bus.call_module("hub", "coordinate", {"calls": [CONTEXT, {"module": "ghost", "operation": "haunt"}]})
        assert (refused.value.code, refused.value.pointer) == ("module.unknown", "/calls/1/module")


async def test_a_reply_that_is_missing_times_out_and_one_that_comes_late_is_recorded_and_ignored(
    kafka: Kafka, codec: Codec, bus: Bus
) -> None:  # fmt: skip
    async with core(kafka, codec, "core-1"):
        async with open_shop(Shop(), kafka.settings):
            await until_offered(bus, "shop")
        # nobody is there: the message says so when its time is over
        with pytest.raises(BackboneError) as silent:
            await bus.send_message("shop", "sell", {"item": "tea"}, timeout=1)
        assert silent.value.code == "module.silent"
        # a reply that comes when nobody waits any more
        inbox = [delivered.record async for delivered in bus.read(module_requests("shop"), until_end=True)]
        asked = next(record for record in inbox if isinstance(record, ModuleMessage) and record.source_module == "hub")
        answer = replace(response_event(asked, {"item": "tea"}, None, to_micros(now())), id=response_id(asked.id))
        await bus.send(RESPONSES, asked.reply_to or "", answer)
        async with asyncio.timeout(PATIENCE_S):
            while not (late := [event async for event in events(bus, "hub.answered-late")]):
                await asyncio.sleep(0.05)
        assert [event.data["status"] for event in late] == ["success"]
        report = (await bus.call_module("hub", "report", {"id": late[0].aggregate_id}))["coordination"]
        assert (report["status"], statuses(report)) == ("failed", {"shop.sell": ("timed_out", "module.silent")})
        # who comes within the time answers
        waiting = asyncio.create_task(bus.send_message("shop", "sell", {"item": "tea"}, timeout=PATIENCE_S))
        async with open_shop(Shop(), kafka.settings):
            assert (await waiting)["result"] == {"item": "tea"}


async def events(bus: Bus, type: str) -> AsyncIterator[SystemEvent]:
    async for delivered in bus.read(MESSAGES, until_end=True, key="hub"):
        if isinstance(delivered.record, SystemEvent) and delivered.record.type == type:
            yield delivered.record
