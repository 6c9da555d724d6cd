"""Publish and subscribe over a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from streams import topics
from streams.bus import Bus, connect
from streams.codec.avro import Codec, headers_of
from streams.errors import InvalidInput, NotFound, Refused, TooLarge, Unavailable
from streams.kafka import Kafka
from streams.records import CompositeEvent, Fence, SystemEvent, WorkflowTransition, from_micros, iso, now
from streams.settings import Settings
from streams.topics import COMPOSITES, SYSTEM_EVENTS, TRANSITIONS, partition_of

pytestmark = pytest.mark.broker

SOON = 120.0


@pytest.fixture
async def bus(settings: Settings, codec: Codec) -> AsyncIterator[Bus]:
    async with connect(settings) as bus:
        yield bus


def event(number: int, **fields: Any) -> SystemEvent:
    return SystemEvent(**{"type": "order.paid", "source": "shop", "subject": f"order-{number}", "data": {"number": number}, **fields})


async def everything(bus: Bus, topic: str = SYSTEM_EVENTS, **selection: Any) -> list[Any]:
    return [delivered.record async for delivered in bus.read(topic, until_end=True, **selection)]


async def test_what_is_published_is_there_in_order_per_key(bus: Bus) -> None:
    given = [event(number, subject=f"order-{number % 7}") for number in range(5000)]

    published = await bus.publish(given)

    found = {(delivered.partition, delivered.offset): delivered.record async for delivered in bus.read(SYSTEM_EVENTS, until_end=True)}
    assert len(found) == 5000
    for sent, place in zip(given, published, strict=True):
        assert place.topic == SYSTEM_EVENTS
        assert place.partition == partition_of(sent.subject, 4)
        assert found[place.partition, place.offset].id == sent.id
        assert found[place.partition, place.offset].data == sent.data


async def test_records_carry_cloudevents_headers_and_the_trace(bus: Bus, kafka: Kafka) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent = event(1, source="", subject="", correlation_id="story")

    [place] = await bus.publish(sent, traceparent=trace)

    async with kafka.consumer(kafka.names.physical(SYSTEM_EVENTS)) as consumer:
        raw = await asyncio.wait_for(consumer.getone(), SOON)
    headers = dict(raw.headers)
    assert (raw.partition, raw.key) == (place.partition, sent.id.encode())
    assert headers["ce_id"] == sent.id.encode()
    assert (headers["ce_type"], headers["ce_source"], headers["ce_specversion"]) == (b"order.paid", b"mplp", b"1.0")
    assert headers["ce_time"] == iso(sent.time).encode()
    assert headers["traceparent"] == trace.encode()


@pytest.mark.parametrize(
    ("bad", "code", "pointer"),
    [
        ({"type": "x", "data": {"x": float("nan")}}, "number.invalid", "/events/3/data/x"),
        (event(3, type=""), "field.invalid", "/events/3/type"),
        (event(3, severity="loud"), "field.invalid", "/events/3/severity"),
        ({"type": "x", "nope": 1}, "field.unknown", "/events/3/nope"),
        ("order.paid", "event.not-object", "/events/3"),
    ],
)
async def test_one_bad_event_and_nothing_is_sent(bus: Bus, bad: Any, code: str, pointer: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        await bus.publish([event(0), event(1), event(2), bad, event(4)])

    assert (refused.value.code, refused.value.pointer) == (code, pointer)
    assert await everything(bus) == []


async def test_a_payload_of_exactly_the_limit_travels_and_one_byte_more_does_not(bus: Bus) -> None:
    largest = event(1, data="x" * (1024 * 1024 - 2))

    await bus.publish([event(0), largest, event(2)])
    with pytest.raises(TooLarge) as refused:
        await bus.publish([event(0), event(3, data="x" * (1024 * 1024 - 1))])

    assert (refused.value.code, refused.value.pointer) == ("payload.too-large", "/events/1/data")
    assert sorted(found.subject for found in await everything(bus)) == ["order-0", "order-1", "order-2"]


async def test_topics_that_are_not_there_or_not_ours_to_write(bus: Bus) -> None:
    with pytest.raises(NotFound) as unknown:
        await bus.publish(event(1), topic="nowhere")
    with pytest.raises(InvalidInput) as log:
        await bus.publish(event(1), topic=COMPOSITES)
    with pytest.raises(InvalidInput) as wrong:
        await bus.send(topics.COMMANDS, "key", event(1))
    with pytest.raises(NotFound) as unread:
        await anext(bus.subscribe("nowhere"))
    assert [error.value.code for error in (unknown, log, wrong, unread)] == [
        "topic.unknown",
        "topic.log",
        "record.unexpected",
        "topic.unknown",
    ]


async def test_a_broker_that_is_away_is_unavailable(settings: Settings, codec: Codec) -> None:
    away = Kafka(settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"}))
    bus = Bus(away, codec)
    with pytest.raises(Unavailable) as publishing:
        await bus.publish(event(1))
    with pytest.raises(Unavailable) as subscribing:
        await anext(bus.subscribe(SYSTEM_EVENTS))
    assert publishing.value.code == subscribing.value.code == "kafka.unreachable"
    await bus.close()


async def test_since_now_sees_what_comes_and_nothing_before(bus: Bus) -> None:
    await bus.publish([event(number) for number in range(10)])

    async with bus.subscribe(SYSTEM_EVENTS) as subscription:
        await bus.publish([event(number) for number in range(10, 20)])
        found = [await asyncio.wait_for(anext(subscription), SOON) for _ in range(10)]

    assert sorted(record.data["number"] for record in found) == list(range(10, 20))


async def test_since_a_time_begins_at_kafkas_timestamp(bus: Bus) -> None:
    await bus.publish(event(1))
    last = [delivered async for delivered in bus.read(SYSTEM_EVENTS, until_end=True)][-1]
    await asyncio.sleep(0.005)  # the next record must have another timestamp: that is what is tested
    await bus.publish(event(2))
    await bus.publish(event(3))

    after = from_micros((last.timestamp_ms + 1) * 1000)
    assert [record.data["number"] for record in sorted(await everything(bus, since=after), key=lambda record: record.time)] == [2, 3]
    assert await everything(bus, since=now() + timedelta(hours=1)) == []


async def test_selections(bus: Bus) -> None:
    await bus.publish(
        [event(1), event(2, type="order.failed"), event(3, type="order.failed.late", source="web"), event(4, data={"other": 1})]
    )

    async def numbers(**selection: Any) -> list[str]:
        return sorted(record.subject for record in await everything(bus, **selection))

    assert await numbers(type="order.*") == ["order-1", "order-2", "order-4"]
    assert await numbers(type="order.failed.**") == ["order-2", "order-3"]
    assert await numbers(source="w*") == ["order-3"]
    assert await numbers(where="data.number > 1") == ["order-2", "order-3"]
    assert await numbers(key="order-3") == ["order-3"]
    assert await numbers(type="order.*", where="data.number == 2.0") == ["order-2"]


async def test_leaving_the_loop_closes_the_consumer(bus: Bus) -> None:
    await bus.publish(event(1))
    subscription = bus.subscribe(SYSTEM_EVENTS, since="beginning")
    async for _ in subscription:
        break

    async def closed() -> None:
        while subscription in bus._subscriptions:
            await asyncio.sleep(0)

    await asyncio.wait_for(closed(), SOON)
    with pytest.raises(Refused) as refused:
        await subscription.start()
    assert refused.value.code == "subscription.closed"


async def test_in_a_with_block_a_loop_may_be_taken_up_again(bus: Bus) -> None:
    await bus.publish([event(number, subject="same") for number in range(4)])
    found = []
    async with bus.subscribe(SYSTEM_EVENTS, since="beginning") as subscription:
        async for record in subscription:
            found.append(record.data["number"])
            if len(found) == 2:
                break
        async for record in subscription:
            found.append(record.data["number"])
            if len(found) == 4:
                break
    assert found == [0, 1, 2, 3]


async def test_unsubscribe_ends_a_loop_that_waits(bus: Bus) -> None:
    subscription = bus.subscribe(SYSTEM_EVENTS)
    await subscription.start()

    async def loop() -> list[Any]:
        return [record async for record in subscription]

    waiting = asyncio.create_task(loop())
    await asyncio.sleep(0)
    await bus.unsubscribe(subscription)

    assert await asyncio.wait_for(waiting, SOON) == []


async def test_a_cancelled_wait_loses_nothing(bus: Bus) -> None:
    async with bus.subscribe(SYSTEM_EVENTS) as subscription:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(subscription), 0.05)
        await bus.publish(event(1))
        assert (await asyncio.wait_for(anext(subscription), SOON)).data == {"number": 1}


async def test_poison_is_skipped_counted_and_reported(bus: Bus, kafka: Kafka) -> None:
    physical = kafka.names.physical(SYSTEM_EVENTS)
    async with kafka.producer() as producer:
        for value in (b"", b"garbage", b"\x00\x7f\xff\xff\xff", b"\x00\x00\x00\x00\x01garbage", None, *[b"more"] * 20):
            await producer.send_and_wait(physical, value, key=b"poison", partition=0)
    await bus.publish(event(1))

    subscription = bus.subscribe(SYSTEM_EVENTS, since="beginning")
    with capture_logs() as logs:
        found = await asyncio.wait_for(anext(subscription), SOON)
        while subscription.skipped < 24:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(subscription), 0.2)
    await subscription.aclose()

    assert found.data == {"number": 1}
    assert subscription.skipped == 24  # the tombstone is none
    skipped = [log for log in logs if log["event"] == "record.skipped"]
    assert [(log["partition"], log["offset"]) for log in skipped] == [(0, place) for place in (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 16)]
    assert [log["code"] for log in skipped[:3]] == ["avro.framing", "avro.framing", "schema.unknown"]


async def test_on_a_log_only_what_counts_is_seen_from_anywhere(bus: Bus, kafka: Kafka, codec: Codec) -> None:
    # Given a log with two owners: the first writes on after it was fenced.
    physical = kafka.names.physical(COMPOSITES)

    def composite(name: str, epoch: int) -> CompositeEvent:
        return CompositeEvent(
            type="composite.found", rule_id=name, correlation_type="event_count", window_start=now(), window_end=now(),
            epoch=epoch, sequence=1, aggregate_id="a",
        )  # fmt: skip

    def fence(epoch: int, offset: int | None = None) -> Fence:
        return Fence(type="log.fenced", log=physical, partition=0, epoch=epoch, owner=f"owner-{epoch}", offset=offset)

    written = [
        fence(1),
        composite("first", 1),
        fence(2),
        composite("void", 1),
        composite("second", 2),
        composite("void", 1),
        composite("third", 2),
    ]
    async with kafka.producer() as producer:
        for record in written:
            await producer.send_and_wait(physical, codec.encode(record), key=b"k", partition=0, headers=headers_of(record))
        index = kafka.names.physical(topics.INTERNAL_SNAPSHOTS)
        for epoch, offset in ((1, 0), (2, 2)):
            entry = fence(epoch, offset)
            key = f"fence/{physical}/0/{epoch}".encode()
            await producer.send_and_wait(index, codec.encode(entry), key=key, partition=0, headers=headers_of(entry))

        # Then a reader from the beginning sees what counts,
        assert [record.rule_id for record in await everything(bus, COMPOSITES)] == ["first", "second", "third"]
        # and so do one that starts in the middle and a group.
        async with bus.subscribe(COMPOSITES) as subscription, bus.subscribe(COMPOSITES, group="g", since="beginning") as member:
            for record in (composite("void", 1), composite("fourth", 2)):
                await producer.send_and_wait(physical, codec.encode(record), key=b"k", partition=0, headers=headers_of(record))
            assert (await asyncio.wait_for(anext(subscription), SOON)).rule_id == "fourth"
            assert [(await asyncio.wait_for(anext(member), SOON)).rule_id for _ in range(4)] == ["first", "second", "third", "fourth"]


async def test_history_is_in_order_of_time_and_each_id_once(bus: Bus, kafka: Kafka, codec: Codec) -> None:
    begin = now() - timedelta(seconds=100)
    given = [
        event(number, correlation_id="story" if number % 2 else "other", time=begin + timedelta(seconds=(number * 37) % 100))
        for number in range(100)
    ]
    await bus.publish(given)
    await bus.publish(given[:10])  # a producer that was not sure sends again

    found = await bus.history(correlation_id="story")
    assert [record.time for record in found] == sorted(record.time for record in given if record.correlation_id == "story")
    assert [record.id for record in await bus.history(subject="order-3")] == [given[3].id]
    some = await bus.history(since=begin + timedelta(seconds=10), until=begin + timedelta(seconds=20), type="order.*")
    assert [record.time for record in some] == [begin + timedelta(seconds=10 + offset) for offset in range(10)]
    assert await bus.history(limit=3) == sorted(given, key=lambda record: record.time)[:3]
    assert await bus.history(type="payment.**") == []


async def test_transitions_are_those_of_the_execution(bus: Bus, kafka: Kafka, codec: Codec) -> None:
    def transition(execution_id: str, sequence: int, type: str, status: Any = "running") -> WorkflowTransition:
        return WorkflowTransition(
            type=type, execution_id=execution_id, workflow_id="w", status=status, aggregate_id=execution_id, sequence=sequence, epoch=1,
            data={"duration_ms": 5} if type == "execution.completed" else {},
        )  # fmt: skip

    physical = kafka.names.physical(TRANSITIONS)
    fence = Fence(type="log.fenced", log=physical, partition=0, epoch=1, owner="o")
    async with kafka.producer() as producer:

        async def write(key: str, record: Any) -> None:
            await producer.send_and_wait(
                physical, codec.encode(record), key=key.encode(), partition=partition_of("mine", 4), headers=headers_of(record)
            )

        await write("fence", fence)
        await write("mine", transition("mine", 1, "execution.started"))
        await write("mine", transition("mine/child", 1, "execution.started"))
        await write("other", transition("other", 1, "execution.started"))

        assert [found.sequence async for found in bus.transitions("mine")] == [1]
        assert [found.sequence async for found in bus.transitions("mine/child")] == [1]
        assert [found async for found in bus.transitions("nobody")] == []

        async def follow() -> list[str]:
            return [found.type async for found in bus.transitions("mine", follow=True)]

        following = asyncio.create_task(follow())
        await write("mine", transition("mine", 2, "step.started"))
        await write("mine", transition("mine", 3, "execution.completed", "completed"))
        assert await asyncio.wait_for(following, SOON) == ["execution.started", "step.started", "execution.completed"]


async def test_history_comes_in_pages_that_leave_nothing_out_and_give_nothing_twice(bus: Bus) -> None:
    times = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number // 3) for number in range(20)]  # three at a time
    await bus.publish(SystemEvent(type="page.turned", subject=f"s{n % 5}", time=time, data={"n": n}) for n, time in enumerate(times))

    pages, after = [], None
    while True:
        page = await bus.history_page(type="page.*", limit=6, after=after)
        pages.append([record.data["n"] for record in page.records])
        if (after := page.next) is None:
            break

    whole = [record.data["n"] for record in await bus.history(type="page.*")]
    assert [len(page) for page in pages] == [6, 6, 6, 2]
    assert [number for page in pages for number in page] == whole
    assert sorted(whole) == list(range(20))
    with pytest.raises(InvalidInput, match=r"cursor\.invalid"):
        await bus.history_page(after="yesterday")
