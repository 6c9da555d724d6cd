"""The sink against a real broker and the real engine: every offset is exactly one row, whatever happens to the sink."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from services.history import rows as rows_module
from services.history.block_log import BlockLog
from services.history.container import CHECK, PLACE
from services.history.store import History
from streams.codec.avro import Codec, headers_of
from streams.kafka import Kafka
from streams.log.fenced import FencedLog
from streams.records import (
    CompositeEvent,
    Delivery,
    InputPosition,
    Insight,
    MessageError,
    ModuleMessage,
    Record,
    SystemEvent,
    WorkflowCommand,
    WorkflowTransition,
    from_micros,
)  # fmt: skip
from streams.settings import Settings
from streams.topics import BLOCKS, COMMANDS, COMPOSITES, DELIVERIES, REQUESTS, RESPONSES, SYSTEM_EVENTS, TRANSITIONS
from streams.topics_apply import WantedTopic, create_topics
from tests.integration.history.helpers import WAIT_S, caught_up, encoded, offsets_in_kafka, produce, rows_by_partition, sinking, value_of
from tests.integration.history.odd import changed

pytestmark = pytest.mark.broker

T0 = from_micros(1_790_000_000_000_000)


@pytest.fixture
async def history(settings: Settings) -> AsyncIterator[History]:
    async with History(settings) as history:
        yield history


def one_of_each() -> Mapping[str, Record]:
    common: dict[str, Any] = {
        "time": T0,
        "correlation_id": "story",
        "causation_id": "cause",
        "data": {"n": 7, "deep": {"x": [1, "y"]}, "none": None},
    }
    return {
        COMMANDS: WorkflowCommand(type="command.sent", execution_id="x-1", command="start", **common),
        REQUESTS: ModuleMessage(
            type="plan.requested", kind="request", source_module="a", target_module="plan", operation="create-plan", deadline=T0, **common
        ),
        RESPONSES: ModuleMessage(
            type="plan.answered", kind="response", source_module="plan", operation="create-plan", status="error",
            error=MessageError(code="conflict", message="no", retryable=True), execution_id="x-1", step_id="s", attempt=2, **common,
        ),
        SYSTEM_EVENTS: SystemEvent(type="order.paid", severity="warning", **common),
        DELIVERIES: Delivery(
            type="delivery.failed", event_id="e", route_id="r", destination="d", status="failed", error="away", latency_ms=1.5, **common
        ),
    }  # fmt: skip


async def test_every_field_of_every_record_is_a_column(kafka: Kafka, codec: Codec, history: History) -> None:
    for topic, record in one_of_each().items():
        await produce(kafka, topic, [encoded(codec, record)])
    composites = FencedLog(kafka, codec, topic=COMPOSITES, partition=0, owner="worker")
    await composites.claim()
    composite = CompositeEvent(
        type="workflow.unstable", rule_id="rule", rule_version=3, correlation_type="event_count", group_key={"host": "h"}, window_start=T0,
        window_end=T0 + timedelta(minutes=5), event_ids=("a", "b"), event_count=2, confidence=0.8, severity="critical",
        insights=(Insight(type="pattern", summary="often", data={"rate": 2}),), explanation="Because.", revision=1, suppressed_count=4,
        aggregate_id="rule/h", sequence=1, epoch=composites.epoch, input=InputPosition(topic="m", partition=1, offset=9), time=T0,
    )  # fmt: skip
    await composites.append([("k", composite)])
    await composites.close()
    async with sinking(kafka, codec, history) as sink:
        await caught_up(sink)
    assert await rows_by_partition(history) == await offsets_in_kafka(kafka)

    event = (await history.query("SELECT * FROM system_events")).objects()[0]
    assert event["data"] == {"n": 7, "deep": {"x": [1, "y"]}}
    assert event["data_text"] == '{"n":7,"deep":{"x":[1,"y"]},"none":null}'
    assert (event["time"], event["severity"], event["causation_id"]) == ("2026-09-21T14:13:20.000000Z", "warning", "cause")
    assert await value_of(history, "SELECT data.n FROM system_events") == 7
    answer = (await history.query("SELECT * FROM module_messages WHERE kind = 'response'")).objects()[0]
    assert answer["error"] == {"code": "conflict", "message": "no", "retryable": True}
    assert (answer["status"], answer["attempt"], answer["step_id"], answer["deadline"]) == ("error", 2, "s", None)
    found = (await history.query("SELECT * FROM composite_events")).objects()[0]
    assert (found["group_key"], found["event_ids"], found["window_end"]) == ({"host": "h"}, ["a", "b"], "2026-09-21T14:18:20.000000Z")
    assert found["insights"] == [{"type": "pattern", "summary": "often", "data": '{"rate":2}'}]
    assert found["input"] == {"topic": "m", "partition": 1, "offset": 9}
    assert await value_of(history, "SELECT latency_ms FROM deliveries WHERE error = 'away'") == 1.5
    assert await value_of(history, "SELECT command FROM workflow_commands") == "start"


async def test_zombies_fences_and_positions_are_no_rows_of_the_log(kafka: Kafka, codec: Codec, history: History) -> None:
    def step(epoch: int, sequence: int) -> WorkflowTransition:
        return WorkflowTransition(
            type="step.started", execution_id="x", workflow_id="w", step_id="s", attempt=1, sequence=sequence, epoch=epoch
        )

    first = FencedLog(kafka, codec, topic=TRANSITIONS, partition=0, owner="first")
    await first.claim()
    await first.append([("x", step(first.epoch, 1)), ("x", step(first.epoch, 2))])
    async with sinking(kafka, codec, history) as sink:
        await caught_up(sink)
        await first.append([("x", step(first.epoch, 3))])  # a block of its own, without a fence: the epoch must be carried over
        await caught_up(sink)
        second = FencedLog(kafka, codec, topic=TRANSITIONS, partition=0, owner="second")
        await second.claim()
        zombie = step(first.epoch, 4)
        async with kafka.producer() as producer:
            await producer.send_and_wait(
                kafka.names.physical(TRANSITIONS), codec.encode(zombie), key=b"x", partition=0, headers=headers_of(zombie)
            )
        await caught_up(sink)
    async with sinking(kafka, codec, history) as sink:
        third = FencedLog(kafka, codec, topic=TRANSITIONS, partition=0, owner="third")
        await third.claim()
        await third.append([("x", step(third.epoch, 4))])
        await caught_up(sink)
    for log in (first, second, third):
        await log.close()
    assert await rows_by_partition(history) == await offsets_in_kafka(kafka)
    kinds = dict((await history.query("SELECT kind, count() FROM log_records GROUP BY kind")).rows())
    assert kinds == {"fence": 3, "void": 1}
    sequences = "SELECT groupArray(sequence) FROM (SELECT sequence FROM workflow_transitions ORDER BY _offset)"
    assert await value_of(history, sequences) == [1, 2, 3, 4]


async def test_hostile_bytes_lose_no_row(kafka: Kafka, codec: Codec, history: History) -> None:
    good = [SystemEvent(type="good", data={"n": n}) for n in range(50)]
    value = codec.encode(good[0])
    fake = codec.encode(SystemEvent(type="fake"))[5:]
    odd = [
        '{"a":{"b":1},"a.b":2}', "[1,2]", "null", '"text"', "{", '{"a":1,"a":2}', '{"x":"\\ud800"}', '{"n":1e999}', "{}", '{"":1}',
        '{"t":"2026-01-01T00:00:00Z"}', '{"a":' * 300 + "1" + "}" * 300,
    ]  # fmt: skip
    plain = codec.decode_raw(value)[1]
    texts = [codec.encode_raw("SystemEvent", {**plain, "id": f"odd-{n}", "type": "odd", "data": text}) for n, text in enumerate(odd)]
    times = [
        codec.encode_raw("SystemEvent", {**plain, "id": f"time-{n}", "type": "odd", "time": at})
        for n, at in enumerate((-(2**63), 2**63 - 1, 0))
    ]
    bad = [
        b"",
        b"\x00",
        value[:20],
        value + b"\x00",
        value + fake,
        value[:-40],
        b"\x00\x00\x00\xff\xff" + value[5:],
        value.replace(b"good", b"g\xff\xfed"),
    ]
    values: list[bytes | None] = [*map(codec.encode, good), *texts, *times, *bad, None]
    random.Random(7).shuffle(values)
    await produce(kafka, SYSTEM_EVENTS, [(b"k", value, []) for value in values])
    await produce(
        kafka, SYSTEM_EVENTS + ".dlq", [(b"\xff", b"\xfe\x00", [("__streams.errors.topic", b"t"), ("odd", b"\xff")]), (b"k", None, [])]
    )
    async with sinking(kafka, codec, history) as sink:
        await caught_up(sink)
    assert await rows_by_partition(history) == await offsets_in_kafka(kafka)
    counts = dict((await history.query("SELECT type, count() FROM system_events GROUP BY type")).rows())
    assert counts == {"good": 50, "odd": len(odd) + len(times)}
    assert await value_of(history, "SELECT count() FROM log_records") == len(bad) + 1
    assert await value_of(history, "SELECT countIf(value != '') FROM log_records WHERE kind = 'undecodable'") == len(bad) - 2
    kept = (
        await history.query("SELECT data_text FROM system_events WHERE type = 'odd' AND id LIKE 'odd-%' ORDER BY toInt32(substring(id, 5))")
    ).rows()
    assert [row[0] for row in kept] == odd
    assert await value_of(history, "SELECT data.t FROM system_events WHERE data.t IS NOT NULL") == "2026-01-01T00:00:00Z"
    assert await value_of(history, "SELECT hex(value) FROM dead_letters WHERE error_topic = 't'") == "FE00"


async def test_a_body_that_imitates_two_records_is_refused_and_pushes_no_other_out(kafka: Kafka, codec: Codec, history: History) -> None:
    good = [codec.encode(SystemEvent(type="good")) for _ in range(3)]
    # What stands between two bodies in a container, but for the check, which can only be guessed.
    first, second = (codec.encode(SystemEvent(type=name)) for name in ("outer", "inner"))
    imitation = first + CHECK.pack(0) + PLACE.pack(10**6, 0) + second[5:]
    await produce(kafka, SYSTEM_EVENTS, [(b"k", value, []) for value in (good[0], imitation, *good[1:])])
    async with sinking(kafka, codec, history) as sink:
        await caught_up(sink)
    assert await rows_by_partition(history) == await offsets_in_kafka(kafka)
    assert dict((await history.query("SELECT type, count() FROM system_events GROUP BY type")).rows()) == {"good": 3}
    assert await value_of(history, "SELECT kind FROM log_records") == "undecodable"


async def test_transaction_markers_and_deleted_records_are_gaps(kafka: Kafka, codec: Codec, history: History) -> None:
    topic = kafka.names.physical(SYSTEM_EVENTS)

    def event() -> bytes:
        return codec.encode(SystemEvent(type="e"))

    async with kafka.producer(transactional_id=kafka.settings.topic_prefix) as producer:
        for _ in range(2):
            async with producer.transaction():
                await producer.send(topic, event(), partition=0)
                await producer.send(topic, event(), partition=0)
    async with sinking(kafka, codec, history) as sink:
        await caught_up(sink)  # also past the marker at the end
    assert await value_of(
        history, "SELECT groupArray(_offset) FROM (SELECT _offset FROM log_records WHERE kind = 'gap' ORDER BY _offset)"
    ) == [2, 5]

    await produce_to_partition(kafka, topic, [event() for _ in range(6)])
    async with kafka.admin() as admin:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=10)})
    async with sinking(kafka, codec, history) as sink:
        await caught_up(sink)
    assert await rows_by_partition(history) == await offsets_in_kafka(kafka)
    assert await value_of(history, "SELECT count() FROM log_records WHERE kind = 'gap'") == 2 + 4


async def produce_to_partition(kafka: Kafka, topic: str, values: list[bytes]) -> None:
    async with kafka.producer() as producer:
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)


async def test_a_repeated_id_is_a_row_once_also_after_a_restart(kafka: Kafka, codec: Codec, history: History) -> None:
    events = [encoded(codec, SystemEvent(type="e")) for _ in range(20)]
    for parts in ((events, [encoded(codec, SystemEvent(type="e"))]), (events[:5],)):
        async with sinking(kafka, codec, history) as sink:
            for part in parts:
                await produce(kafka, SYSTEM_EVENTS, part)
                await caught_up(sink)
    assert await value_of(history, "SELECT count() FROM system_events") == 21
    assert await value_of(history, "SELECT count() FROM log_records WHERE kind = 'repeat'") == 5


async def test_a_decided_block_that_was_not_noted_is_inserted_again_to_no_effect(kafka: Kafka, codec: Codec, settings: Settings) -> None:
    await produce(kafka, SYSTEM_EVENTS, [encoded(codec, SystemEvent(type="e"), key=str(n)) for n in range(200)])
    async with History(settings) as history:
        async with sinking(kafka, codec, history) as sink:
            await caught_up(sink)
        # A successor that knows the decisions and no note: as if every `Inserted` had been lost, and one insert with it.
        async with kafka.admin() as admin:
            await admin.delete_topics([kafka.names.physical(BLOCKS)])
        blocks = await decided_anew(kafka, codec, history)
        assert blocks
        async with sinking(kafka, codec, history) as sink:
            await caught_up(sink)
        assert await rows_by_partition(history) == await offsets_in_kafka(kafka)
        assert await value_of(history, "SELECT count() FROM system_events") == 200


async def decided_anew(kafka: Kafka, codec: Codec, history: History) -> int:
    """Makes the topic of blocks again, with a decision for what each partition of the events has, and no note."""
    from services.history.blocks import Span, block_record, unit_of
    from streams.topics_apply import apply_topics

    physical = kafka.names.physical(SYSTEM_EVENTS)
    async with asyncio.timeout(WAIT_S):
        while kafka.names.physical(BLOCKS) not in (await apply_topics(kafka)).created:
            await asyncio.sleep(0.2)
    found = (await history.query("SELECT _partition, max(_offset) + 1 FROM system_events GROUP BY _partition")).rows()
    for partition, end in found:
        unit = unit_of(physical, partition, kafka.settings.partitions)
        log = FencedLog(kafka, codec, topic=BLOCKS, partition=unit, owner="earlier")
        await log.claim()
        span = Span(topic=physical, partition=partition, first=0, end=end)
        identity = await history.tables.identity()
        await log.append([(physical, block_record(span, history=identity, epoch=log.epoch, time=T0, source="earlier"))])
        await log.close()
    return len(found)


async def test_topics_that_appear_later_are_sunk(kafka: Kafka, codec: Codec, history: History) -> None:
    own = f"{kafka.settings.topic_prefix}.orders.dlq"
    async with sinking(kafka, codec, history) as sink:
        await caught_up(sink)
        async with kafka.admin() as admin:
            await create_topics(admin, [WantedTopic(name=own, partitions=1, replication=1, config={})])
        await produce(kafka, kafka.names.logical(own), [(b"k", b"bytes", [("mplp.errors.route", b"billing")])])
        await caught_up(sink)
        assert await value_of(history, "SELECT value FROM dead_letters WHERE route = 'billing'") == "bytes"


async def test_clickhouse_away_waits_and_goes_on(kafka: Kafka, codec: Codec, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    from streams.errors import Unavailable

    insert, away = history.tables.insert, True

    async def insert_when_back(*arguments: Any, **options: Any) -> None:
        if away:
            raise Unavailable("history.unavailable", "ClickHouse does not answer.")
        await insert(*arguments, **options)

    monkeypatch.setattr(history.tables, "insert", insert_when_back)
    await produce(kafka, SYSTEM_EVENTS, [encoded(codec, SystemEvent(type="e")) for _ in range(30)])
    async with sinking(kafka, codec, history) as sink:
        async with asyncio.timeout(180):
            while sink.status().state != "waiting":
                await asyncio.sleep(0.05)
        assert await sink.wait_until(timeout=2) == 30
        away = False
        await caught_up(sink)
        assert sink.status().state == "running"
    assert await rows_by_partition(history) == await offsets_in_kafka(kafka)


def test_the_repeat_window_covers_a_block() -> None:
    from services.history.blocks import BLOCK_OFFSETS_MAX

    assert rows_module.REPEAT_WINDOW_OFFSETS >= BLOCK_OFFSETS_MAX


async def test_a_token_that_is_remembered_without_its_rows_does_not_lose_them(
    kafka: Kafka, codec: Codec, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MergeTree notes a token before it has the rows: killed in between, it takes the next try for a repeat."""
    async with History(settings) as history:
        with monkeypatch.context() as patch:
            patch.setattr(BlockLog, "note_inserted", lambda *_: None)
            async with sinking(kafka, codec, history) as sink:
                await produce(kafka, SYSTEM_EVENTS, [encoded(codec, SystemEvent(type="e", data={"n": n}), str(n)) for n in range(50)])
                await caught_up(sink)
        # Deleting rows forgets no token.
        await changed(history, "ALTER TABLE system_events DELETE WHERE 1")
        assert await value_of(history, "SELECT count() FROM system_events") == 0
        async with sinking(kafka, codec, history) as sink:
            await caught_up(sink)
            assert await rows_by_partition(history) == await offsets_in_kafka(kafka)
            assert await value_of(history, "SELECT count() FROM system_events") == 50
