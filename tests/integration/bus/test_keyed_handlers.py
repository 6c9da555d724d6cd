"""Handlers that run side by side: order of keys, retries that hold up nobody else, dead letters that come back."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from streams.bus import Bus
from streams.errors import InvalidDocument, InvalidInput, NotFound
from streams.records import SystemEvent
from streams.routing import dlq
from streams.routing.selection import LetterSelection
from streams.topics import SYSTEM_EVENTS

pytestmark = pytest.mark.broker


@asynccontextmanager
async def handling(bus: Bus, handler: Any, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(bus.handle(SYSTEM_EVENTS, group="billing", handler=handler, since="beginning", type="order.*", **options))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def orders(count: int, keys: int) -> list[SystemEvent]:
    return [SystemEvent(type="order.paid", subject=f"k{number % keys}", data={"number": number}) for number in range(count)]


async def until(holds: Any) -> None:
    async with asyncio.timeout(180):
        while not holds():
            await asyncio.sleep(0.02)


async def test_keys_run_side_by_side_each_in_order_and_a_retry_holds_up_its_own_key_only(bus: Bus) -> None:
    seen: dict[str, list[int]] = defaultdict(list)
    under_way: set[str] = set()
    most = 0
    failing = {0: 2, 5: 99}

    async def handler(event: SystemEvent) -> None:
        nonlocal most
        number = event.data["number"]
        assert event.subject not in under_way, "two of a key at a time"
        under_way.add(event.subject)
        most = max(most, len(under_way))
        await asyncio.sleep(0.002)
        under_way.discard(event.subject)
        if failing.get(number, 0):
            failing[number] -= 1
            raise ValueError(f"not {number}")
        seen[event.subject].append(number)

    await bus.publish(orders(200, 4))
    async with handling(bus, handler, concurrency=8, retry={"max-retries": 3, "initial-interval": 10}):
        await until(lambda: sum(map(len, seen.values())) == 199)
        letters = [letter async for letter in dlq.letters(bus, LetterSelection(route="billing"))]
        assert [(letter.code, letter.attempts, letter.stage) for letter in letters] == [("builtins.ValueError", 4, "handler")]
        assert most > 1
        assert {key: sorted(numbers) for key, numbers in seen.items()} == seen

        failing.clear()
        await dlq.redrive(bus, LetterSelection(), who="ann")
        await until(lambda: 5 in seen["k1"])

    further: list[int] = []
    await bus.publish(SystemEvent(type="order.paid", subject="k0", data={"number": 999}))
    async with handling(bus, lambda event: further.append(event.data["number"]), concurrency=2):
        await until(lambda: 999 in further)
    assert further == [999], "what was handled is committed"
    assert [letter async for letter in dlq.letters(bus, LetterSelection())] == []


async def test_a_listing_may_be_left_early_and_a_letter_that_is_not_there_is_told(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handler(event: SystemEvent) -> None:
        raise ValueError("never")

    await bus.publish(orders(3, 1))
    async with handling(bus, handler, retry={"max-retries": 0}):
        async with asyncio.timeout(180):
            while not (found := [letter async for letter in dlq.letters(bus, LetterSelection())])[2:]:
                await asyncio.sleep(0.05)

    stopped = 0

    async def stop(consumer: AIOKafkaConsumer) -> None:
        nonlocal stopped
        stopped += 1
        await real_stop(consumer)

    real_stop = AIOKafkaConsumer.stop
    async with aclosing(dlq.letters(bus, LetterSelection())) as letters:
        assert (await anext(letters)).id == found[0].id
        monkeypatch.setattr(AIOKafkaConsumer, "stop", stop)
    assert stopped == 1, "no connection stays behind"

    topic, partition, offset = found[2].place
    assert (await dlq.show(bus, found[2].id))["history"] == []
    for beyond in (f"{topic}/{partition}/{offset + 1}", f"{topic}/{partition}/9999999999999999999", f"{topic}/99/0"):
        with pytest.raises(NotFound, match=r"letter\.unknown"):
            await asyncio.wait_for(dlq.show(bus, beyond), 60)


async def test_what_means_nothing_is_refused(bus: Bus) -> None:
    with pytest.raises(InvalidInput, match=r"concurrency\.invalid"):
        await bus.handle(SYSTEM_EVENTS, group="g", handler=print, concurrency=0)
    with pytest.raises(InvalidDocument) as caught:
        await bus.handle(SYSTEM_EVENTS, group="g", handler=print, retry={"max-retries": -1})
    assert [fault.pointer for fault in caught.value.violations] == ["/retry/max-retries"]
