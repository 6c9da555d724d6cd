"""Consumer groups and handlers over a real broker: acknowledgement, sharing, dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from streams.bus import Bus, connect
from streams.codec.avro import Codec
from streams.errors import InvalidInput, TooLarge
from streams.kafka import Kafka
from streams.records import SystemEvent
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS
from streams.topics_apply import WantedTopic, create_topics
from tests.raw_records import raw_records

pytestmark = pytest.mark.broker

SOON = 120.0
DEAD_LETTERS = SYSTEM_EVENTS + ".dlq"


@pytest.fixture
async def bus(settings: Settings, codec: Codec) -> AsyncIterator[Bus]:
    async with connect(settings) as bus:
        yield bus


def named(bus: Bus, group: str) -> str:
    """A group of this test's own: groups have no prefix."""
    return f"{bus.kafka.settings.topic_prefix}-{group}"


def events(count: int, subject: str | None = None) -> list[SystemEvent]:
    return [SystemEvent(type="order.paid", subject=subject or f"order-{number}", data={"number": number}) for number in range(count)]


async def take(subscription: Any, count: int) -> list[int]:
    async with asyncio.timeout(SOON):
        return [(await anext(subscription)).data["number"] for _ in range(count)]


async def test_a_record_is_acknowledged_when_the_next_is_asked_for(bus: Bus) -> None:
    await bus.publish(events(6, subject="same"))

    async with bus.subscribe(SYSTEM_EVENTS, group=named(bus, "billing"), since="beginning") as first:
        assert await take(first, 3) == [0, 1, 2]
    # 2 was in hand when the subscription ended, so it comes again.
    async with bus.subscribe(SYSTEM_EVENTS, group=named(bus, "billing"), since="now") as second:
        assert await take(second, 4) == [2, 3, 4, 5]


async def test_since_holds_only_for_a_new_group(bus: Bus, kafka: Kafka) -> None:
    group = named(bus, "late")
    await bus.publish(events(3, subject="same"))

    async with bus.subscribe(SYSTEM_EVENTS, group=group, since="now") as late, kafka.admin() as admin:
        waiting = asyncio.create_task(take(late, 1))
        async with asyncio.timeout(SOON):
            while len(await admin.list_consumer_group_offsets(group)) < 4:  # until the group has its positions
                await asyncio.sleep(0.05)
        waiting.cancel()
    await bus.publish(events(2, subject="same"))

    # What came while nobody was there is not lost, and "beginning" means nothing any more.
    async with bus.subscribe(SYSTEM_EVENTS, group=group, since="beginning") as again:
        assert await take(again, 2) == [0, 1]


async def test_the_members_of_a_group_share_and_other_groups_get_all(bus: Bus) -> None:
    counts: dict[str, list[int]] = {"a": [], "b": [], "alone": []}
    done = asyncio.Event()

    async def member(name: str, group: str) -> None:
        async for record in bus.subscribe(SYSTEM_EVENTS, group=group, since="beginning"):
            counts[name].append(record.data["number"])
            if len(set(counts["a"] + counts["b"])) == 400 and len(set(counts["alone"])) == 400:
                done.set()

    tasks = [
        asyncio.create_task(member("a", named(bus, "shared"))),
        asyncio.create_task(member("b", named(bus, "shared"))),
        asyncio.create_task(member("alone", named(bus, "other"))),
    ]
    try:
        await bus.publish(events(400))
        await asyncio.wait_for(done.wait(), SOON)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert set(counts["a"] + counts["b"]) == set(counts["alone"]) == set(range(400))


async def test_a_handler_that_raises_sends_the_original_bytes_to_the_dead_letters_and_goes_on(bus: Bus, kafka: Kafka) -> None:
    handled: list[int] = []
    done = asyncio.Event()

    async def charge(record: SystemEvent) -> None:
        if record.data["number"] % 3 == 0:
            raise ValueError(f"no card for {record.data['number']}")
        handled.append(record.data["number"])
        if len(handled) == 6:
            done.set()

    sent = events(10, subject="same")
    places = await bus.publish(sent, traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    task = asyncio.create_task(bus.handle(SYSTEM_EVENTS, group=named(bus, "billing"), handler=charge, since="beginning"))
    try:
        await asyncio.wait_for(done.wait(), SOON)
        letters = await raw_records(kafka, DEAD_LETTERS, 4)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    assert handled == [1, 2, 4, 5, 7, 8]
    originals = {raw.offset: raw for raw in await raw_records(kafka, SYSTEM_EVENTS, 10)}
    assert [letter.value for letter in letters] == [originals[places[number].offset].value for number in (0, 3, 6, 9)]
    assert {letter.key for letter in letters} == {b"same"}
    headers = dict(letters[1].headers)
    assert headers["__streams.errors.topic"] == kafka.names.physical(SYSTEM_EVENTS).encode()
    assert headers["__streams.errors.partition"] == str(places[3].partition).encode()
    assert headers["__streams.errors.offset"] == str(places[3].offset).encode()
    assert headers["__streams.errors.exception"] == b"builtins.ValueError"
    assert headers["__streams.errors.message"] == b"no card for 3"
    assert b"in charge" in headers["__streams.errors.stacktrace"]
    assert (headers["mplp.errors.route"], headers["mplp.errors.stage"], headers["mplp.errors.attempts"]) == (
        named(bus, "billing").encode(),
        b"handler",
        b"1",
    )
    assert headers["mplp.errors.first_time"].endswith(b"Z")
    assert headers["ce_id"] == sent[3].id.encode()
    assert headers["traceparent"].startswith(b"00-")
    assert [record.id async for record in _records(bus, DEAD_LETTERS)] == [sent[number].id for number in (0, 3, 6, 9)]


async def test_what_is_handled_is_not_handled_again(bus: Bus) -> None:
    seen: list[int] = []
    enough = asyncio.Event()

    def note(record: SystemEvent) -> None:
        seen.append(record.data["number"])
        if len(seen) in (4, 6):
            enough.set()

    await bus.publish(events(4, subject="same"))
    for expected in ([0, 1, 2, 3], [0, 1, 2, 3, 0, 1]):
        enough.clear()
        task = asyncio.create_task(bus.handle(SYSTEM_EVENTS, group=named(bus, "notes"), handler=note, since="beginning"))
        await asyncio.wait_for(enough.wait(), SOON)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert seen == expected
        await bus.publish(events(2, subject="same"))


async def test_poison_becomes_a_dead_letter_of_stage_decode_and_a_missing_dlq_topic_is_made(bus: Bus, kafka: Kafka) -> None:
    own = f"{kafka.settings.topic_prefix}.own"
    async with kafka.admin() as admin:
        await create_topics(admin, [WantedTopic(name=own, partitions=2, replication=1, config={})])
    async with kafka.producer() as producer:
        await producer.send_and_wait(own, b"\x00garbage", key=b"k", partition=1)
    done = asyncio.Event()
    task = asyncio.create_task(bus.handle(own, group=named(bus, "g"), handler=lambda record: done.set(), since="beginning"))
    try:
        await bus.publish(events(1), topic=own)
        await asyncio.wait_for(done.wait(), SOON)
        [letter] = await raw_records(kafka, own + ".dlq", 1)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (letter.value, letter.key, letter.partition) == (b"\x00garbage", b"k", 1)
    assert dict(letter.headers)["mplp.errors.stage"] == b"decode"
    assert dict(letter.headers)["__streams.errors.exception"] in (b"schema.unknown", b"avro.framing")


async def test_when_the_dead_letter_cannot_be_written_handling_stops_and_the_record_comes_again(bus: Bus, kafka: Kafka) -> None:
    own = f"{kafka.settings.topic_prefix}.own"
    tight = WantedTopic(name=own + ".dlq", partitions=1, replication=1, config={"max.message.bytes": "500"})
    async with kafka.admin() as admin:
        await create_topics(admin, [WantedTopic(name=own, partitions=1, replication=1, config={}), tight])
    await bus.publish(SystemEvent(type="x", data={"number": 7, "long": "x" * 2000}), topic=own)

    def fail(record: SystemEvent) -> None:
        raise ValueError("no")

    with pytest.raises(TooLarge):
        await asyncio.wait_for(bus.handle(own, group=named(bus, "g"), handler=fail, since="beginning"), SOON)

    async with bus.subscribe(own, group=named(bus, "g")) as again:
        assert await take(again, 1) == [7]


async def _records(bus: Bus, topic: str) -> AsyncIterator[Any]:
    async for delivered in bus.read(topic, until_end=True):
        yield delivered.record


async def test_a_group_without_a_name_is_refused_at_once(bus: Bus) -> None:
    with pytest.raises(InvalidInput, match=r"group\.invalid"):
        bus.subscribe(SYSTEM_EVENTS, group="")
    with pytest.raises(InvalidInput, match=r"group\.invalid"):
        await bus.handle(SYSTEM_EVENTS, group="", handler=print)
