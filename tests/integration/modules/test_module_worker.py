"""Users' modules on a real broker: calls, failures, at-least-once delivery, limits, what is no request, deadlines, cancellation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from services.modules import Call, Module, OperationFailed
from services.modules.registration import registered_modules
from streams.bus import Bus
from streams.errors import BackboneError, InvalidInput, NotFound, Unavailable
from streams.kafka import Kafka
from streams.records import ModuleMessage, new_id, now
from streams.settings import Settings
from streams.topics import RESPONSES, SYSTEM_EVENTS, module_requests
from tests.raw_records import raw_records

pytestmark = pytest.mark.broker

PATIENCE_S = 180.0


class Item(BaseModel):
    name: str


class Shop:
    """A module whose operations are held up and observed by the test."""

    def __init__(self) -> None:
        self.module = Module("shop")
        self.calls: list[tuple[str, Call]] = []
        self.begun = asyncio.Event()
        self.gates: dict[str, asyncio.Event] = {}
        self.cancelled: list[str] = []
        self.running = 0
        self.running_max = 0

        @self.module.operation("sell")
        async def sell(parameters: Item, call: Call) -> Item:
            """Sells an item, when its gate opens."""
            self.calls.append((parameters.name, call))
            self.running += 1
            self.running_max = max(self.running_max, self.running)
            self.begun.set()
            try:
                gate = self.gates.get(parameters.name)
                if gate is not None:
                    await gate.wait()
            except asyncio.CancelledError:
                self.cancelled.append(parameters.name)
                raise
            finally:
                self.running -= 1
            return parameters

        @self.module.operation("fail")
        def fail(parameters: Item) -> None:
            """Fails in the way that it is told."""
            match parameters.name:
                case "refuse":
                    raise OperationFailed("stock.empty", "Sold out.", retryable=True)
                case "denied":
                    raise Unavailable("bank.silent", "The bank does not answer.")
                case _:
                    raise KeyError("surprise")

        @self.module.operation("flood")
        def flood() -> str:
            """Answers more than a record takes."""
            return "x" * 2_000_000

        @self.module.operation("divide")
        def divide() -> float:
            """Answers what no record takes."""
            return float("nan")

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


@asynccontextmanager
async def serving(shop: Shop, settings: Settings, drain_ms: int = 5000) -> AsyncIterator[asyncio.Task[None]]:
    ready = asyncio.Event()
    task = asyncio.create_task(shop.module.run(settings.model_copy(update={"module_drain_ms": drain_ms}), ready=ready.set))
    waiting = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield task
    finally:
        waiting.cancel()
        task.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)


def request(operation: str = "sell", name: str = "tea", **more: Any) -> ModuleMessage:
    return ModuleMessage(
        type="shop.requested",
        kind="request",
        source_module="test",
        target_module="shop",
        operation=operation,
        data={"name": name},
        reply_to="test",
        correlation_id="story",
        **more,
    )


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.02)


async def answers_to(bus: Bus, *ids: str) -> list[ModuleMessage]:
    """The responses in the topic to these requests, once there is one for each."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = [each.record async for each in bus.read(RESPONSES, until_end=True) if each.record.causation_id in ids]
            if {each.causation_id for each in found} == set(ids):
                return found


async def test_calls_are_answered_and_failures_have_their_codes(settings: Settings, bus: Bus) -> None:
    async with serving(Shop(), settings):
        assert await bus.call_module("shop", "sell", {"name": "tea"}) == {"name": "tea"}
        for name, code in (("refuse", "stock.empty"), ("denied", "bank.silent"), ("crash", "internal")):
            with pytest.raises(BackboneError) as failed:
                await bus.call_module("shop", "fail", {"name": name})
            assert failed.value.code == code
        with pytest.raises(InvalidInput) as invalid:
            await bus.call_module("shop", "sell", {"name": 5})
        assert invalid.value.pointer == "/name"
        with pytest.raises(NotFound, match=r"operation\.unknown"):
            await bus.call_module("shop", "steal", {})
        with pytest.raises(BackboneError, match=r"payload\.too-large"):
            await bus.call_module("shop", "flood", {})
        with pytest.raises(BackboneError, match="internal: The result cannot be sent"):
            await bus.call_module("shop", "divide", {})


async def test_a_response_says_whether_a_repetition_may_help(settings: Settings, bus: Bus) -> None:
    async with serving(Shop(), settings):
        wanted = {name: request("fail", name) for name in ("refuse", "denied", "crash")}
        for each in wanted.values():
            await bus.send(module_requests("shop"), "h", each)
        found = {each.causation_id: each for each in await answers_to(bus, *(each.id for each in wanted.values()))}
        retryable = {name: found[each.id].error.retryable for name, each in wanted.items()}  # type: ignore[union-attr]
        assert retryable == {"refuse": True, "denied": True, "crash": False}


async def test_it_registers_itself_with_its_operations(settings: Settings, bus: Bus) -> None:
    async with serving(Shop(), settings):
        found = registered_modules(await bus.history(type="module.registered"))
    assert sorted(found["shop"]["operations"]) == ["divide", "fail", "flood", "sell"]
    assert found["shop"]["operations"]["sell"]["description"] == "Sells an item, when its gate opens."


async def test_a_request_that_was_not_answered_comes_again_with_the_same_id(settings: Settings, bus: Bus) -> None:
    first, second = Shop(), Shop()
    first.gates["slow"] = asyncio.Event()
    slow, quick = request(name="slow"), request(name="quick")
    async with serving(first, settings, drain_ms=100) as task:
        for each in (slow, quick):
            await bus.send(module_requests("shop"), "h", each)
        await answers_to(bus, quick.id)
        task.cancel()  # ends while the slow one, which lies before the quick one, still runs
        await asyncio.gather(task, return_exceptions=True)
    assert first.cancelled == ["slow"]
    async with serving(second, settings):
        found = await answers_to(bus, slow.id)
    assert "slow" in second.names()
    assert {call.request_id for name, call in first.calls + second.calls if name == "slow"} == {slow.id}
    assert [each.data for each in found] == [{"name": "slow"}]


async def test_what_was_answered_does_not_come_again(settings: Settings, bus: Bus) -> None:
    first, second = Shop(), Shop()
    wanted = [request(name=f"n{number}") for number in range(20)]
    async with serving(first, settings):
        for number, each in enumerate(wanted):
            await bus.send(module_requests("shop"), f"key-{number}", each)
        await answers_to(bus, *(each.id for each in wanted))
    last = request(name="last")
    async with serving(second, settings):
        await bus.send(module_requests("shop"), "h", last)
        await answers_to(bus, last.id)
    assert second.names() == ["last"]


async def test_a_request_that_runs_is_not_begun_twice(settings: Settings, bus: Bus) -> None:
    shop = Shop()
    shop.gates["slow"] = asyncio.Event()
    slow, marker = request(name="slow"), request(name="marker")
    async with serving(shop, settings):
        for each in (slow, slow, marker):
            await bus.send(module_requests("shop"), "h", each)
        await answers_to(bus, marker.id)
        shop.gates["slow"].set()
        await answers_to(bus, slow.id)
    assert sorted(shop.names()) == ["marker", "slow"]


async def test_requests_run_side_by_side_up_to_the_limit(settings: Settings, bus: Bus) -> None:
    shop = Shop()
    shop.gates["slow"] = asyncio.Event()
    wanted = [request(name="slow") for _ in range(10)]
    async with serving(shop, settings.model_copy(update={"module_concurrency": 3})):
        for number, each in enumerate(wanted):
            await bus.send(module_requests("shop"), f"key-{number}", each)
        await until(lambda: shop.running == 3)
        shop.gates["slow"].set()
        await answers_to(bus, *(each.id for each in wanted))
    assert shop.running_max == 3
    assert len(shop.calls) == 10


async def test_what_is_no_request_goes_to_the_dead_letters_unchanged(settings: Settings, kafka: Kafka, bus: Bus) -> None:
    good = request()
    async with serving(Shop(), settings):
        async with kafka.producer() as producer:
            await producer.send_and_wait(kafka.names.physical(module_requests("shop")), b"garbage", key=b"h")
        await bus.send(module_requests("shop"), "h", replace(request(), kind="broadcast"))
        await bus.send(module_requests("shop"), "h", good)
        await answers_to(bus, good.id)
    letters = await raw_records(kafka, module_requests("shop") + ".dlq", 2)
    codes = {dict(letter.headers)["__streams.errors.exception"]: letter.value for letter in letters}
    assert codes[b"avro.framing"] == b"garbage"
    assert b"message.no-request" in codes


async def test_what_nobody_waits_for_is_not_done_but_on_record(settings: Settings, bus: Bus) -> None:
    shop = Shop()
    late, good = request(name="late", deadline=now() - timedelta(seconds=1)), request(name="good", deadline=now() + timedelta(hours=1))
    async with serving(shop, settings):
        for each in (late, good):
            await bus.send(module_requests("shop"), "h", each)
        await answers_to(bus, good.id)
        async with asyncio.timeout(PATIENCE_S):
            async for event in bus.subscribe(SYSTEM_EVENTS, since="beginning", type="request.expired"):
                assert (event.causation_id, event.data["operation"]) == (late.id, "sell")
                break
    assert shop.names() == ["good"]


async def test_a_caller_may_give_up_a_request_that_runs(settings: Settings, bus: Bus) -> None:
    shop = Shop()
    shop.gates["slow"] = asyncio.Event()
    slow, other = request(name="slow"), request(name="other")
    async with serving(shop, settings):
        await bus.send(module_requests("shop"), "h", slow)
        await shop.begun.wait()
        notice = replace(slow, id=new_id(), kind="notification", type="shop.cancelled", causation_id=slow.id)
        await bus.send(module_requests("shop"), "h", notice)
        await until(lambda: shop.cancelled == ["slow"])
        await bus.send(module_requests("shop"), "h", other)
        found = await answers_to(bus, other.id)
    assert [each.causation_id for each in found] == [other.id]


async def test_a_call_of_a_module_that_never_started_is_refused(bus: Bus) -> None:
    with pytest.raises(NotFound, match=r"module\.unknown"):
        await bus.call_module("ghost", "walk", {})


async def test_a_plain_function_that_was_given_up_keeps_its_place_until_it_returns(settings: Settings, bus: Bus) -> None:
    module, gate, begun = Module("slots"), threading.Event(), threading.Event()
    told: list[str] = []

    @module.operation("block")
    def block(call: Call) -> str:
        begun.set()
        gate.wait(PATIENCE_S)
        told.append(f"cancelled {call.is_cancelled}")
        return "late"

    @module.operation("quick")
    def quick() -> str:
        told.append("quick")
        return "done"

    def asked(operation: str, **more: Any) -> ModuleMessage:
        return replace(request(operation, **more), target_module="slots", data={})

    ready = asyncio.Event()
    task = asyncio.create_task(module.run(settings.model_copy(update={"module_concurrency": 1, "module_drain_ms": 100}), ready=ready.set))
    try:
        await asyncio.wait_for(ready.wait(), PATIENCE_S)
        late, other = asked("block", deadline=now() + timedelta(seconds=6)), asked("quick")
        for each in (late, other):
            await bus.send(module_requests("slots"), "h", each)
        assert await asyncio.to_thread(begun.wait, PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            async for event in bus.subscribe(SYSTEM_EVENTS, since="beginning", type="request.expired"):
                assert event.causation_id == late.id
                break
        assert told == [], "there is one place, and it is not free"
        gate.set()
        found = await answers_to(bus, other.id)
        assert [each.data for each in found] == ["done"], "the late one is not answered: nobody waits"
        assert told == ["cancelled True", "quick"]
    finally:
        gate.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
