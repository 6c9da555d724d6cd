"""The history on a ClickHouse server: several sinks share the work, one takes over from another, and the server may be away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.history.sink import Sink
from services.history.store import History
from streams.codec.avro import Codec
from streams.errors import Unavailable
from streams.kafka import Kafka
from streams.records import SystemEvent
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS
from tests.clickhouse_http.process import ClickHouseServer
from tests.integration.history.helpers import caught_up, encoded, offsets_in_kafka, produce, rows_by_partition, sinking, value_of

pytestmark = pytest.mark.broker


def events(codec: Codec, count: int) -> list[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    return [encoded(codec, SystemEvent(type="e", data={"n": n}), key=str(n)) for n in range(count)]


def units_of(sink: Sink) -> set[int]:
    return set() if sink._session is None else set(sink._session._tasks)


async def test_two_sinks_share_the_work_and_one_takes_over_from_the_other(kafka: Kafka, codec: Codec, server_settings: Settings) -> None:
    async with (
        History(server_settings) as one_history,
        History(server_settings) as other_history,
        sinking(kafka, codec, one_history) as one,
    ):
        await produce(kafka, SYSTEM_EVENTS, events(codec, 100))
        await caught_up(one)
        assert units_of(one) == {0, 1, 2, 3}
        async with sinking(kafka, codec, other_history) as other:
            async with asyncio.timeout(180):
                while len(units_of(one)) != 2 or len(units_of(other)) != 2:
                    await asyncio.sleep(0.05)
            assert units_of(one) | units_of(other) == {0, 1, 2, 3}
            await produce(kafka, SYSTEM_EVENTS, events(codec, 100))
            # Each waits for what the other inserts, too.
            await asyncio.gather(caught_up(one), caught_up(other))
            assert await value_of(other_history, "SELECT count() FROM system_events") == 200
        await produce(kafka, SYSTEM_EVENTS, events(codec, 100))
        await caught_up(one)
        assert await rows_by_partition(one_history) == await offsets_in_kafka(kafka)
        assert await value_of(one_history, "SELECT count() FROM system_events") == 300


async def test_a_server_that_is_killed_is_waited_for(kafka: Kafka, codec: Codec, settings: Settings, tmp_path: Path) -> None:
    async with ClickHouseServer(tmp_path / "server") as server:
        settings = settings.model_copy(update={"clickhouse_url": server.url})
        async with History(settings) as history, sinking(kafka, codec, history) as sink:
            await produce(kafka, SYSTEM_EVENTS, events(codec, 50))
            await caught_up(sink)
            await server.kill()
            await produce(kafka, SYSTEM_EVENTS, events(codec, 50))
            assert await sink.wait_until(timeout=2) > 0
            async with asyncio.timeout(180):
                while sink.status().state != "waiting":
                    await asyncio.sleep(0.05)
            with pytest.raises(Unavailable):
                await history.query("SELECT 1")
            await server.start()
            await caught_up(sink)
            assert await rows_by_partition(history) == await offsets_in_kafka(kafka)
            assert await value_of(history, "SELECT count() FROM system_events") == 100


async def test_an_empty_database_is_filled_from_the_topics_and_a_cluster_takes_the_same(
    kafka: Kafka, codec: Codec, settings: Settings, tmp_path: Path
) -> None:
    await produce(kafka, SYSTEM_EVENTS, events(codec, 60))
    async with History(settings) as history, sinking(kafka, codec, history) as sink:
        await caught_up(sink)
    # The log of blocks says that everything is inserted; these tables it does not mean.
    async with ClickHouseServer(tmp_path / "cluster", users={"u": "p"}, cluster="main") as server:
        changed = {
            "clickhouse_url": server.url,
            "clickhouse_user": "u",
            "clickhouse_password": SecretStr("p"),
            "clickhouse_cluster": "main",
        }
        async with History(settings.model_copy(update=changed)) as history, sinking(kafka, codec, history) as sink:
            await caught_up(sink)
            assert await rows_by_partition(history) == await offsets_in_kafka(kafka)
            assert await value_of(history, "SELECT count() FROM system_events") == 60


async def test_a_late_insert_refuses_itself(server_settings: Settings) -> None:
    from services.history.blocks import Span
    from services.history.rows import encode
    from services.history.tables import LOG_RECORDS

    row = {"kind": "gap", "epoch": None, "id": "", "type": "", "key": None, "value": None, "headers": [], "error_code": "", "error": ""}
    span = Span(topic="t", partition=0, first=0, end=1)
    async with History(server_settings) as history:
        rows = [(0, 0, encode(LOG_RECORDS, row))]
        history.tables._clock_ms = -3_600_000.0  # as if an hour had passed between the request and its arrival
        with pytest.raises(Unavailable, match="expired"):
            await history.tables.insert(span, LOG_RECORDS, rows, within_s=30)
        await history.tables.insert(span, LOG_RECORDS, rows, within_s=30)  # the clock was asked anew
        assert await history.tables.offsets_of(span) == {0}
