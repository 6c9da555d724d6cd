"""An erasure in the tables: what is asked of them, and the payloads taken out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import erase_sql as sql
from services.history.cluster import for_cluster
from services.history.engine import Connections, goes_on, is_unavailable, open_client, unavailable
from services.history.erase_sql import Hit
from services.history.erasures import Erasure, portions
from services.history.insert import quoted
from services.history.made import make
from services.history.replicas import see_all
from services.history.store import History
from services.history.tables import all_tables
from streams.errors import Defect, Unavailable

T = TypeVar("T")
#: Offsets that one statement names.
OFFSETS_PER_STATEMENT = 50_000
#: Pauses between two looks at whether a statement is done that was not waited for to its end, seconds.
RETRIES_S = (0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)

_NOTED = """CREATE TABLE IF NOT EXISTS erasures_done (id String, at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'))
ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 10"""


class ErasedTables:
    """The tables under an erasure, over a connection of its own."""

    def __init__(self, history: History) -> None:
        settings = self._settings = history.settings
        self._cluster = settings.clickhouse_cluster
        self._connections = Connections(
            partial(open_client, settings, database=settings.clickhouse_database, session=dict(sql.SETTINGS)), size=1, name="history-erase"
        )

    async def close(self) -> None:
        """Ends the connection after what runs."""
        await self._connections.close()

    async def hits(self, queries: Sequence[str]) -> list[Hit]:
        """The rows that queries of `erase_sql` find."""
        await self._run(lambda client: see_all(client, self._settings))
        return [sql.hit(row) for query in queries for row in await self._rows(query)]

    async def erase(self, erasure: Erasure, done: Callable[[int], None]) -> None:
        """Takes the payloads out of all tables that have them. Repeated it changes nothing.

        On a cluster it ends when no replica that is up has them; one that is down does the same when it is back, before it takes part.
        Raises `Defect` (`history.erase`) if ClickHouse cannot do it, `Unavailable`.
        """
        count = 0
        for some in portions(erasure.places, OFFSETS_PER_STATEMENT):
            where = sql.at_places(some)
            for table, name in await self._tables():
                await self._erase(table, name, where)
            count += sum(len(each.offsets) for each in some)
            done(count)

    async def _tables(self) -> list[tuple[str, str]]:
        """Tables and the names under which there are copies of them, too."""
        kept = [str(name) for (name,) in await self._rows(sql.copies())]
        copies = [(table, name) for name in kept for table in all_tables() if name.startswith(f"{table}__before_")]
        return [*((table, table) for table in all_tables()), *copies]

    async def _erase(self, table: str, name: str, where: str) -> None:
        for pause_s in (*RETRIES_S, None):
            await self._run(lambda client: see_all(client, self._settings, [name]))
            if not int((await self._rows(sql.left(table, name, where)))[0][0]):
                return
            try:
                await self._command(sql.erase(table, name, where), name)
                for column, expression in await self._rows(sql.derived_columns(name)):
                    await self._command(sql.derive(name, str(column), str(expression), table, where), name)
            except Unavailable:
                # A large table takes longer than a connection waits, a replica may be down: it goes on in the servers.
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
        raise Defect("history.erase", f"Rows of {name} have their payloads still.")

    async def noted(self) -> frozenset[str]:
        """The erasures that are done in this database."""
        await self._run(lambda client: make(client, _NOTED, self._cluster))
        return frozenset(str(id_) for (id_,) in await self._rows("SELECT id FROM erasures_done"))

    async def note(self, erasure: str) -> None:
        """Notes that an erasure is done."""
        await self._run(lambda client: make(client, _NOTED, self._cluster))
        settings = f"async_insert = 0, insert_deduplicate = 1, insert_deduplication_token = {quoted(erasure)}"
        await self._command(f"INSERT INTO erasures_done (id) SETTINGS {settings} VALUES ({quoted(erasure)})", "erasures_done")

    async def has_event(self, id_: str) -> bool:
        """Whether there is an event with an id."""
        return bool(int((await self._rows(f"SELECT count() FROM system_events WHERE id = {quoted(id_)}"))[0][0]))

    async def _rows(self, query: str) -> Sequence[Sequence[Any]]:
        return await self._run(lambda client: client.query(query).result_rows)

    async def _command(self, statement: str, table: str) -> None:
        def work(client: Client) -> None:
            try:
                client.command(for_cluster(statement, self._cluster))
            except ClickHouseError as error:
                if goes_on(error):
                    raise unavailable(error) from error
                if not is_unavailable(error):
                    client.command(for_cluster(sql.give_up(table), self._cluster))
                raise

        await self._run(work)

    async def _run(self, work: Callable[[Client], T]) -> T:
        try:
            return await self._connections.run(work)
        except ClickHouseError as error:
            raise unavailable(error) if is_unavailable(error) else Defect("history.erase", str(error)[:500]) from error
