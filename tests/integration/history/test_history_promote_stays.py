"""A promoted column stays: through a restart, in a table that is made anew, and on a server."""

from __future__ import annotations

import pytest

from services.history import rebuild_sql
from services.history.promote import Promoter
from services.history.store import History
from streams.settings import Settings
from tests.integration.history.world import fill


async def test_it_stays_through_a_restart_and_a_new_table(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = Settings(data_dir=tmp_path_factory.mktemp("promote"))
    async with History(settings) as history:
        await fill(history)
        await Promoter(history).promote("data.amount", table="system_events", type=None)
    async with History(settings) as history:
        (listed,) = await Promoter(history).promoted()
        assert (listed["column"], listed["ready"]) == ("data_amount", True)
        copied = (rebuild_sql.create("system_events"), "INSERT INTO system_events__rebuild SELECT * FROM system_events")
        for statement in (*copied, rebuild_sql.exchange("system_events"), rebuild_sql.drop("system_events__rebuild")):
            await history._keeper.run(lambda client, statement=statement: client.command(statement))
        (listed,) = await Promoter(history).promoted()
        assert (listed["column"], listed["rows"], listed["ready"]) == ("data_amount", 13, True)
        assert (await history.query("SELECT sum(data_amount) FROM system_events")).rows() == [[72.0]]


async def test_on_a_server(server_settings: Settings) -> None:
    async with History(server_settings) as history:
        await fill(history)
        promoter = Promoter(history)
        assert (await promoter.promote("data.amount", table="system_events", type=None)).values == 12
        assert (await history.query("SELECT sum(data_amount) FROM system_events")).rows() == [[72.0]]
        assert len(await promoter.promoted()) == 1
