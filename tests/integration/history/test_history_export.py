"""Days of a table as Parquet: every row of every table, once, and the sums that tell whether a file is still what the table has."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from services.history.erase_rows import assignments
from services.history.export import day_as_parquet, days_of
from services.history.export_files import Held, held
from services.history.store import History
from services.history.tables import all_tables
from streams.errors import NotFound, Refused
from streams.settings import Settings
from tests.integration.history import world
from tests.integration.history.helpers import value_of

NEXT = world.T0 + timedelta(days=1, hours=23, minutes=59)


@pytest.fixture(scope="module")
async def history(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[History]:
    async with History(Settings(data_dir=tmp_path_factory.mktemp("export"))) as history:
        await world.fill(history)
        later = f"_offset + 1000 AS _offset, _timestamp + toIntervalSecond({_seconds()}) AS _timestamp"
        copy = f"INSERT INTO system_events SELECT * REPLACE ({later})"
        await history._keeper.run(lambda client: client.command(f"{copy} FROM system_events"))
        yield history


def _seconds() -> int:
    return int((NEXT - world.T0).total_seconds())


async def written(history: History, table: str, day: date, folder: Path) -> Path:
    answer = await day_as_parquet(history, table, day)
    file = folder / f"{table}-{day}.parquet"
    try:
        file.write_bytes(b"".join([chunk async for chunk in answer.chunks()]))
    finally:
        await answer.close()
    return file


async def read(history: History, sql: str) -> list[tuple[object, ...]]:
    return await history._keeper.run(lambda client: [tuple(row) for row in client.query(sql).result_rows])


@pytest.mark.parametrize("table", list(all_tables()))
async def test_every_row_of_every_table_is_in_the_file_of_its_day(history: History, table: str, tmp_path: Path) -> None:
    days = await days_of(history, table, None, None)
    assert [day.day for day in days] == ([world.T0.date(), NEXT.date()] if table == "system_events" else [world.T0.date()])
    assert sum(day.rows for day in days) == await value_of(history, f"SELECT count() FROM {table}")
    for day in days:
        file = await written(history, table, day.day, tmp_path)
        found = await history._keeper.run(lambda client, file=file: held(file, client))
        assert found == Held(rows=day.rows, places=day.places)
        assert sum(each.rows for each in day.offsets) == day.rows


async def test_what_is_in_a_file(history: History, tmp_path: Path) -> None:
    file = await written(history, "system_events", world.T0.date(), tmp_path)
    columns = "id, type, toString(time), data, _topic, _partition, _offset, toString(_timestamp)"
    in_table = columns.replace(" data,", " data_text,")
    same_day = f"toDate(_timestamp) = '{world.T0.date()}'"
    assert await read(history, f"SELECT {columns} FROM file('{file}', Parquet) ORDER BY _offset") == await read(
        history, f"SELECT {in_table} FROM system_events WHERE {same_day} ORDER BY _offset"
    )


async def test_days_of_a_range(history: History) -> None:
    first, second = world.T0.date(), NEXT.date()
    assert [day.day for day in await days_of(history, "system_events", second, None)] == [second]
    assert [day.day for day in await days_of(history, "system_events", first, second)] == [first]
    assert await days_of(history, "system_events", second + timedelta(days=1), None) == []
    (day,) = await days_of(history, "system_events", first, second)
    assert [(each.topic, each.partition, each.first, each.last, each.rows) for each in day.offsets] == [
        ("mplp.system.events", 0, 0, 12, 13)
    ]


async def test_an_erasure_shows_in_the_digest_and_not_in_the_places(history: History) -> None:
    (before,) = await days_of(history, "deliveries", None, None)
    statement = f"ALTER TABLE deliveries UPDATE {assignments('deliveries')} WHERE _offset = 1 SETTINGS mutations_sync = 2"
    await history._keeper.run(lambda client: client.command(statement))
    (after,) = await days_of(history, "deliveries", None, None)
    assert (after.rows, after.places, after.offsets) == (before.rows, before.places, before.offsets)
    assert after.digest != before.digest


async def test_half_a_file_is_none(history: History, tmp_path: Path) -> None:
    file = await written(history, "system_events", world.T0.date(), tmp_path)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(Refused, match=r"export\.unreadable"):
        await history._keeper.run(lambda client: held(file, client))


async def test_no_such_table(history: History) -> None:
    for work in (days_of(history, "migrations", None, None), day_as_parquet(history, "executions", world.T0.date())):
        with pytest.raises(NotFound, match=r"table\.unknown"):
            await work
