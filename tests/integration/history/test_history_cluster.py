"""Erasure, lifetimes, export and rebuild on a replicated cluster, over HTTP, as a user: also while one of its servers is down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.history import rebuild_sql
from services.history.export import day_as_parquet, days_of
from services.history.export_files import held
from services.history.rebuild import RebuildAsk
from services.history.store import History
from services.history.tables import all_tables
from streams.bus.bus import Bus
from streams.codec.avro import Codec
from streams.errors import Refused
from streams.kafka import Kafka
from streams.records import now
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS
from tests.clickhouse_http.process import ClickHouseServer
from tests.integration.history import world
from tests.integration.history.helpers import value_of
from tests.integration.history.odd import changed
from tests.integration.history.test_history_erase import Erasing, counts, dead_letter, event, quoting, send, story
from tests.integration.history.test_history_rebuild import running, tables_of
from tests.integration.history.test_history_retention import keeper


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ClickHouseServer]:
    async with ClickHouseServer(tmp_path_factory.mktemp("cluster"), users={"mplp": "secret"}, cluster="main") as server:
        yield server


def on(server: ClickHouseServer, settings: Settings, database: str) -> Settings:
    return settings.model_copy(
        update={
            "clickhouse_url": server.url, "clickhouse_user": "mplp", "clickhouse_password": SecretStr("secret"),
            "clickhouse_cluster": "main", "clickhouse_database": database,
        }
    )  # fmt: skip


@pytest.fixture
async def history(server: ClickHouseServer, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[History]:
    async with History(on(server, Settings(data_dir=tmp_path), request.node.name)) as history:
        yield history


@pytest.mark.broker
async def test_an_erasure_and_a_rebuild_while_a_server_is_down(
    kafka: Kafka, codec: Codec, settings: Settings, server: ClickHouseServer
) -> None:
    bus = Bus(kafka, codec)
    async with running(kafka, codec, on(server, settings, "erased")) as product:
        await send(kafka, codec, story())
        await dead_letter(kafka, codec)
        erasing = Erasing(product, bus)
        assert await erasing.behind(60) == 0
        before = await counts(product.history)
        with server.replica_down():
            report = await erasing.erase(effects=True)

            assert (report["rows"], report["caused"]) == (11, 0)
            assert await quoting(product.history) == {}
            assert await erasing.eraser.finish()
            assert await erasing.behind(60) == 0
            assert await counts(product.history) == {**before, "system_events": before["system_events"] + 1}
            assert await product.verdict() == ("exact", [])
            with pytest.raises(Refused, match=r"history\.replica-down"):
                await product.rebuilder.run(RebuildAsk())
        assert (await product.rebuilder.run(RebuildAsk())).rows == sum((await counts(product.history)).values())
        assert await product.verdict() == ("exact", [])
        assert await quoting(product.history) == {}
        await send(kafka, codec, {SYSTEM_EVENTS: [event(9, "ann", "new@example.org")]})
        assert await erasing.behind(60) == 0
        assert await quoting(product.history, "new@example.org") == {"system_events": 1}
    await bus.close()


async def test_lifetimes_are_set_while_a_server_is_down(history: History, server: ClickHouseServer) -> None:
    await world.fill(history, now().replace(microsecond=0))
    with server.replica_down():
        assert await keeper(history, "deliveries=90d, system_events=400d").apply() == ["system_events", "deliveries"]
        assert await keeper(history, "deliveries=90d, system_events=400d").apply() == []
        report = {each["table"]: each["in_force"] for each in (await keeper(history, "").report())["tables"]}
        assert (report["deliveries"], report["system_events"], report["composite_events"]) == ("90d", "400d", None)
        assert await keeper(history, "").apply() == ["system_events", "deliveries"]


async def test_what_a_rebuild_left_that_died_goes_when_nothing_was_written_for_long(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = "deliveries" + rebuild_sql.SUFFIX
    await changed(history, f"CREATE TABLE {left} ON CLUSTER main AS deliveries")
    await keeper(history, "").apply()
    assert left in await tables_of(history), "somebody may be at it"
    monkeypatch.setattr("services.history.rebuild_swap.IDLE_S", -1)
    await keeper(history, "").apply()
    assert left not in await tables_of(history)


async def test_days_come_from_a_server_as_parquet(history: History, tmp_path: Path) -> None:
    await world.fill(history)
    for table in all_tables():
        (day,) = await days_of(history, table, None, None)
        answer = await day_as_parquet(history, table, day.day)
        file = tmp_path / f"{table}.parquet"
        try:
            file.write_bytes(b"".join([chunk async for chunk in answer.chunks()]))
        finally:
            await answer.close()
        found = held(file)
        assert (found.rows, found.places) == (day.rows, day.places), table
        assert day.rows == await value_of(history, f"SELECT count() FROM {table}")
