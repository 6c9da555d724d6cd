"""Routes where it gets hard: a module that refuses and recovers, letters that cannot be written, logs with void records, broken bytes."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from pydantic import BaseModel

from services.modules import Module, OperationFailed
from streams.bus import Bus
from streams.bus.outgoing import Outgoing
from streams.codec.avro import headers_of
from streams.log.rule import FENCED
from streams.records import Fence, SystemEvent, WorkflowTransition
from streams.routing import control, dlq
from streams.routing.selection import LetterSelection
from streams.settings import Settings
from streams.topics import DEAD_LETTER_SUFFIX, SYSTEM_EVENTS, TRANSITIONS
from streams.topics_apply import WantedTopic, create_topics
from tests.integration.streams.workers import worker
from tests.unit.streams.webhooks.receiver import answer, in_turn, receiver

pytestmark = pytest.mark.broker

PATIENCE_S = 120.0
SOURCE = "mplp.sources"
REACHED = "mplp.reached"


async def make_topic(bus: Bus, topic: str, partitions: int, **config: str) -> None:
    wanted = WantedTopic(name=bus.kafka.names.physical(topic), partitions=partitions, replication=1, config=config)
    async with bus.kafka.admin() as admin:
        await create_topics(admin, [wanted])


async def first(bus: Bus, topic: str, count: int, **selection: Any) -> list[Any]:
    """The first records of a topic that are wanted."""
    found: list[Any] = []
    async with asyncio.timeout(PATIENCE_S):
        async for delivered in bus.read(topic, since="beginning", **selection):
            found.append(delivered.record)
            if len(found) >= count:
                break
    return found


@asynccontextmanager
async def serving(module: Module, settings: Settings) -> AsyncIterator[None]:
    """A module in this process, until the end of the block."""
    ready = asyncio.Event()
    task = asyncio.create_task(module.run(settings, ready=ready.set))
    try:
        async with asyncio.timeout(PATIENCE_S):
            await ready.wait()
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Order(BaseModel):
    """What is sold."""

    number: int


async def test_a_route_calls_a_module_again_when_it_says_so_and_buries_what_it_refuses(bus: Bus, settings: Settings) -> None:
    shop, asked = Module("shop"), list[int]()

    @shop.operation("sell")
    def sell(order: Order) -> int:
        """Out of stock at first; the second is never sold."""
        asked.append(order.number)
        if order.number == 1 and asked.count(1) < 3:
            raise OperationFailed("stock.empty", "Sold out.", retryable=True)
        if order.number == 2:
            raise OperationFailed("order.refused", "Never.", retryable=False)
        return order.number

    route = {
        "id": "sell", "match": {"topic": SYSTEM_EVENTS, "type": "order.*"},
        "destination": {"module": "shop", "operation": "sell", "parameters": {"number": "data.number"}},
        "retry": {"max-retries": 5, "initial-interval": 20, "max-interval": 100},
    }  # fmt: skip
    async with serving(shop, settings), worker(settings):
        await control.apply(bus, [route], who="test")
        await bus.publish([SystemEvent(type="order.paid", subject="one", data={"number": number}) for number in (1, 2, 3)])
        told = await first(bus, "mplp.deliveries", 5, where='route_id == "sell"')
        letters = [letter async for letter in dlq.letters(bus, LetterSelection())]

    assert asked == [1, 1, 1, 2, 3], "of one key one after the other"
    assert [each.status for each in told] == ["retrying", "retrying", "delivered", "dead", "delivered"]
    assert [(letter.route, letter.code, letter.stage) for letter in letters] == [("sell", "order.refused", "deliver")]


async def test_a_route_stops_while_its_letters_cannot_be_written_and_goes_on_when_they_can(bus: Bus, settings: Settings) -> None:
    await make_topic(bus, SOURCE, 1)
    await make_topic(bus, SOURCE + DEAD_LETTER_SUFFIX, 1, **{"max.message.bytes": "200"})
    route = {
        "id": "strict", "match": {"topic": SOURCE}, "transforms": [{"set": {"data.total": "data.price * 2.0"}}],
        "destination": {"topic": REACHED},
    }  # fmt: skip
    async with worker(settings):
        await control.apply(bus, [route], who="test")
        await bus.publish([{"type": "a.b", "subject": "1"}, {"type": "a.b", "subject": "2", "data": {"price": 4}}], topic=SOURCE)
        (stopped,) = await first(bus, SYSTEM_EVENTS, 1, type="route.stopped")
        assert [record async for record in bus.read(REACHED, since="beginning", until_end=True)] == []

        physical = bus.kafka.names.physical(SOURCE + DEAD_LETTER_SUFFIX)
        async with bus.kafka.admin() as admin:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, physical, configs={"max.message.bytes": "1000000"})])
        await first(bus, SYSTEM_EVENTS, 1, type="route.resumed")
        (reached,) = await first(bus, REACHED, 1)
        letters = [letter async for letter in dlq.letters(bus, LetterSelection())]

    assert (stopped.subject, stopped.data["code"]) == ("strict", "dlq.unwritable")
    assert reached.data == {"price": 4, "total": 8.0}
    assert [letter.code for letter in letters] == ["expression.failed"]


async def test_of_a_log_only_what_counts_is_delivered(bus: Bus, settings: Settings) -> None:
    route = {"id": "steps", "match": {"topic": TRANSITIONS, "type": "step.*"}, "destination": {"topic": REACHED}}

    def transition(number: int, epoch: int) -> WorkflowTransition:
        return WorkflowTransition(
            type="step.started", subject="e", execution_id="e", workflow_id="w", status="running", aggregate_id="e", sequence=number,
            epoch=epoch, data={"number": number},
        )  # fmt: skip

    def fence(epoch: int) -> Fence:
        return Fence(type=FENCED, log=TRANSITIONS, partition=0, epoch=epoch, owner="test")

    topic = bus.kafka.names.physical(TRANSITIONS)
    async with worker(settings), bus.kafka.producer() as producer:
        await control.apply(bus, [route], who="test")
        for record in (fence(1), transition(1, 1), fence(2), transition(2, 1), transition(3, 2), transition(4, 1), transition(5, 2)):
            await producer.send_and_wait(topic, bus.codec.encode(record), key=b"e", headers=headers_of(record), partition=0)
        reached = await first(bus, REACHED, 3)

    assert [each.data["number"] for each in reached] == [1, 3, 5], "an owner that was superseded says nothing"


async def test_a_destination_is_left_alone_for_as_long_as_it_asks(bus: Bus, settings: Settings) -> None:
    async with receiver(in_turn(answer(503, retry_after="1"), answer())) as server, worker(settings):
        hook = {"webhook": f"http://127.0.0.1:{server.port}/"}
        retry = {"initial-interval": 10, "max-interval": 10}
        route = {"id": "hook", "match": {"topic": SYSTEM_EVENTS, "type": "order.*"}, "destination": hook, "retry": retry}
        await control.apply(bus, [route], who="test")
        await bus.publish(SystemEvent(type="order.paid", subject="one"))
        refused, delivered = await first(bus, "mplp.deliveries", 2, where='route_id == "hook"')

    assert (refused.status, delivered.status) == ("retrying", "delivered")
    assert (delivered.time - refused.time).total_seconds() >= 0.95, "the policy would have had it after 10 ms"


async def test_what_a_destination_asked_for_does_not_bind_the_next_one(bus: Bus, settings: Settings) -> None:
    async with receiver(in_turn(answer(503, retry_after="3600"))) as former, receiver(in_turn(answer())) as next_one, worker(settings):
        route = {"id": "hook", "match": {"topic": SYSTEM_EVENTS, "type": "order.*"}}
        await control.apply(bus, [{**route, "destination": {"webhook": f"http://127.0.0.1:{former.port}/"}}], who="test")
        await bus.publish([SystemEvent(type="order.paid", subject="one", data={"number": number}) for number in range(2)])
        await first(bus, "mplp.deliveries", 1, where='route_id == "hook" && status == "retrying"')
        await control.apply(bus, [{**route, "destination": {"webhook": f"http://127.0.0.1:{next_one.port}/"}}], who="test")
        delivered = await first(bus, "mplp.deliveries", 2, where='route_id == "hook" && status == "delivered"')

    assert [each.attempt for each in delivered] == [2, 1]


async def test_a_thousand_broken_records_are_dead_letters_byte_for_byte(bus: Bus, settings: Settings) -> None:
    chance = random.Random(settings.topic_prefix)
    sound = bus.codec.encode(SystemEvent(type="order.paid", subject="one", data={"text": "x" * 40}))

    def payload() -> bytes | None:
        match chance.randrange(5):
            case 0:
                return None
            case 1:
                return os.urandom(chance.randrange(200))
            case 2:
                return sound[: chance.randrange(len(sound) - 1)]
            case 3:
                return b"\x00" + chance.randrange(2**31).to_bytes(4, "big") + os.urandom(20)
            case _:
                broken = bytearray(sound)
                broken[5 + chance.randrange(8)] ^= 0xFF
                return bytes(broken)

    def record(number: int) -> Outgoing:
        key = None if chance.random() < 0.2 else os.urandom(chance.randrange(9))
        headers = [(chance.choice(["a", "ce_id", "x-é"]), os.urandom(chance.randrange(9))) for _ in range(chance.randrange(3))]
        return Outgoing(number % 2, key, payload(), headers)

    sent = [record(number) for number in range(1000)]
    await make_topic(bus, SOURCE, 2)
    async with worker(settings):
        # A transform that has no value for whatever can be read after all.
        transforms = [{"set": {"data.x": "data.there_is_no_such_field"}}]
        route = {"id": "all", "match": {"topic": SOURCE}, "transforms": transforms, "destination": {"topic": REACHED}}
        await control.apply(bus, [route], who="test")
        await bus.publisher.send(SOURCE, sent)
        async with asyncio.timeout(PATIENCE_S):
            while len(found := [letter async for letter in dlq.letters(bus, LetterSelection())]) < len(sent):
                await asyncio.sleep(0.5)

    for partition in range(2):
        there = [(letter.key, letter.value, list(letter.headers)) for letter in found if letter.partition == partition]
        assert there == [(each.key, each.value, list(each.headers)) for each in sent if each.partition == partition]
