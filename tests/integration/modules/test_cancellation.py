"""Callers that give up, and processes that end: notices are heard however busy a process is, and what hangs holds nobody up."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace

import pytest

from streams.bus import Bus
from streams.records import ModuleMessage, new_id
from streams.settings import Settings
from streams.topics import module_requests
from tests.integration.modules.test_module_worker import PATIENCE_S, Shop, answers_to, request, serving, until
from tests.integration.modules.test_worker_processes import process

pytestmark = pytest.mark.broker


def notice_for(given_up: ModuleMessage) -> ModuleMessage:
    return replace(given_up, id=new_id(), kind="notification", type="shop.cancelled", causation_id=given_up.id)


async def send(bus: Bus, *messages: ModuleMessage) -> None:
    for each in messages:
        await bus.send(module_requests("shop"), "h", each)


async def test_a_notice_is_heard_while_all_places_are_taken_and_others_wait(settings: Settings, bus: Bus) -> None:
    shop = Shop()
    shop.gates = {name: asyncio.Event() for name in ("slow", "waits", "unwanted", "last")}
    slow, waits, unwanted, last = (request(name=name) for name in shop.gates)
    async with serving(shop, settings.model_copy(update={"module_concurrency": 1})):
        await send(bus, slow, waits, unwanted, last)
        await until(lambda: shop.names() == ["slow"])
        await send(bus, notice_for(unwanted), notice_for(slow))
        await until(lambda: shop.names() == ["slow", "waits"])
        assert shop.cancelled == ["slow"]
        shop.gates["waits"].set()
        shop.gates["last"].set()
        found = await answers_to(bus, waits.id, last.id)
    assert shop.names() == ["slow", "waits", "last"], "what was given up while it waited is not begun"
    assert {each.causation_id for each in found} == {waits.id, last.id}
    async with serving(next_one := Shop(), settings):
        await send(bus, marker := request(name="marker"))
        await answers_to(bus, marker.id)
    assert next_one.names() == ["marker"], "what was given up does not come again"


async def test_a_notice_is_heard_while_the_process_drains(settings: Settings, bus: Bus) -> None:
    shop = Shop()
    shop.gates["slow"] = asyncio.Event()
    slow, next_one = request(name="slow"), request(name="next")
    async with serving(shop, settings, drain_ms=600_000) as task:
        await send(bus, slow)
        await shop.begun.wait()
        task.cancel()
        await send(bus, next_one, notice_for(slow))
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), PATIENCE_S)
    assert (shop.names(), shop.cancelled) == (["slow"], ["slow"]), "nothing is begun by a process that drains"


async def test_a_plain_function_that_hangs_does_not_keep_a_process_that_was_told_to_end(settings: Settings, bus: Bus) -> None:
    hung = replace(request("hang"), target_module="diggers", data={})
    for turn in range(2):
        async with process(settings, MPLP_MODULE_DRAIN_MS="100") as running:
            if turn == 0:  # to the second process the request comes again
                await bus.send(module_requests("diggers"), "h", hung)
            assert running.stdout is not None
            assert await asyncio.wait_for(running.stdout.readline(), PATIENCE_S) == f"hangs {hung.id}\n".encode()
            running.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(running.wait(), PATIENCE_S) == 0
