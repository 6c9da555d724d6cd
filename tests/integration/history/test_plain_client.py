"""Others read the history with their own tools, and read-only SQL holds on a server as it does embedded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from services.history.query import QueryLimits
from services.history.store import History
from streams.codec.avro import Codec
from streams.errors import BackboneError
from streams.kafka import Kafka
from streams.records import SystemEvent
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS
from tests.clickhouse_http.process import ClickHouseServer
from tests.integration.history.helpers import caught_up, encoded, produce, sinking
from tests.integration.history.hostile import BOUNDED, REFUSED

pytestmark = pytest.mark.broker

LIMITS = QueryLimits(seconds=2, rows=100, result_bytes=5_000_000, memory_bytes=100_000_000)


async def test_the_unchanged_client_reads_what_the_sink_inserted_and_read_only_sql_holds_on_a_server(
    kafka: Kafka, codec: Codec, server_settings: Settings, clickhouse: ClickHouseServer, tmp_path: Path
) -> None:
    sent = [SystemEvent(type="order.paid", subject=f"o{n}", data={"amount": n + 0.5, "by": {"name": f"c{n % 3}"}}) for n in range(50)]
    async with History(server_settings) as history, sinking(kafka, codec, history) as sink:
        await produce(kafka, SYSTEM_EVENTS, [encoded(codec, event, key=str(n)) for n, event in enumerate(sent)])
        await caught_up(sink)
        target = tmp_path / "written"
        await refuses_or_bounds(history, target)
        assert not target.exists()

    def read() -> tuple[list[object], list[object], list[object]]:
        with clickhouse.client(database=server_settings.clickhouse_database) as client:
            rows = client.query("SELECT id, time, subject, data_text FROM system_events ORDER BY data.amount::Float64").result_rows
            sums = client.query(
                "SELECT data.by.name::String AS name, sum(data.amount::Float64) FROM system_events "
                "WHERE type = {type:String} GROUP BY name ORDER BY name",
                parameters={"type": "order.paid"},
            ).result_rows
            tables = client.query("SHOW TABLES").result_rows
        return list(rows), list(sums), list(tables)

    rows, sums, tables = await asyncio.to_thread(read)
    assert [row[:1] + row[2:3] for row in rows] == [(event.id, event.subject) for event in sent]  # type: ignore[index]
    assert [row[1].timestamp() for row in rows] == [event.time.timestamp() for event in sent]  # type: ignore[index]
    assert sums == [(f"c{by}", sum(n + 0.5 for n in range(50) if n % 3 == by)) for by in range(3)]
    assert {("system_events",), ("executions",), ("causes",)} <= set(tables)


async def refuses_or_bounds(history: History, target: Path) -> None:
    for sql, code in REFUSED[::8]:
        with pytest.raises(BackboneError) as refused:
            await history.query(sql.replace("{f}", str(target)).replace("mplp.", f"{history.database}."), {"x": "1"}, limits=LIMITS)
        assert refused.value.code == code, sql
    for sql, codes in BOUNDED[::8]:
        with pytest.raises(BackboneError) as refused:
            await history.query(sql, limits=LIMITS)
        assert refused.value.code in codes, sql
    attack = {"x": f") INTO OUTFILE $${target}$$ -- "}
    assert (await history.query("SELECT '%(x)s' AS x", attack, limits=LIMITS)).rows() == [["%(x)s"]]
