"""The history's store: one API over embedded ClickHouse (chDB) and a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self, TypeVar

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import query as queries
from services.history import rebuild_swap
from services.history.engine import Connections, is_unavailable, open_client, open_parser, unavailable
from services.history.filling import Filling
from services.history.migrate import migrate
from services.history.query import Prepared, QueryLimits, QueryResult
from streams.errors import Defect, TooLarge
from streams.settings import Settings

T = TypeVar("T")

#: Queries at the same time; more wait.
QUERIES_MAX = 4
#: Inserts at the same time.
INSERTS_MAX = 2


class History:
    """Migrations and queries, and the tables for the sink. One instance per process when embedded; safe to use from one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.embedded = not settings.clickhouse_url
        self.database = settings.clickhouse_database
        self._writers = Connections(self._open_writer, size=INSERTS_MAX, name="history-insert")
        self._readers: dict[QueryLimits, Connections] = {}
        self._keeper = Connections(self._open_writer, size=1, name="history-keep")
        self._parsers = Connections(open_parser, size=1, name="history-parse")
        self._functions: frozenset[str] | None = None
        self.tables = Filling(settings, self._writers, self._keeper)  #: for the sink

    async def open(self) -> None:
        """Opens the engine and brings the schema up to date. Raises `Unavailable` (`history.unavailable`), `Refused` (`history.locked`)."""

        def prepare() -> None:
            client = open_client(self.settings, database=None, session={})
            try:
                migrate(client, self.database, cluster=self.settings.clickhouse_cluster)
                self._finish_rebuild(client)
            except ClickHouseError as error:
                raise unavailable(error) if is_unavailable(error) else Defect("history.migration", str(error)) from error
            finally:
                client.close()

        # The keeper's connection stays open from here on: an engine without a connection would shut down in between.
        await asyncio.to_thread(prepare)
        self._functions = await self._keeper.run(queries.functions_of)

    def _finish_rebuild(self, client: Client) -> None:
        """A swap that was cut off is finished before anything is inserted. Beside a server somebody else may be at it right now."""
        rebuild_swap.settle(client, self.settings.clickhouse_cluster, older_than_s=0 if self.embedded else rebuild_swap.STALE_S)
        if self.embedded:
            rebuild_swap.tidy(client, self.settings.clickhouse_cluster)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all connections after what runs."""
        for connections in (*self._readers.values(), self._writers, self._keeper, self._parsers):
            await connections.close()

    def connections(self, name: str, *, size: int) -> Connections:
        """Connections of somebody's own, who closes them: what takes long must not stand in the way of the sink."""
        return Connections(self._open_writer, size=size, name=name)

    def local_connections(self, name: str, *, size: int) -> Connections:
        """As `connections`, to an engine that reads files of this machine: the embedded one, beside a server one in memory."""
        return self.connections(name, size=size) if self.embedded else Connections(open_parser, size=size, name=name)

    async def inserts_ended(self) -> None:
        """Returns when no insert of the sink is under way, also none that a cancelled call has left behind."""
        await self._writers.idle()

    # -- queries

    async def query(self, sql: str, parameters: Mapping[str, Any] | None = None, *, limits: QueryLimits | None = None) -> QueryResult:
        """Runs one SELECT over the history's tables and views, read-only. A cancelled call ends the query.

        `SHOW TABLES` and `DESCRIBE TABLE name` are answered too. Values go in as parameters, written `{name:Type}` in the text.
        Raises `Denied`, `InvalidInput`, `TooLarge` and `Unavailable` with codes `sql.…`, `Unavailable` (`history.unavailable`).
        """
        return await self._asked(queries.run, sql, parameters, limits)

    async def columns(self, sql: str, parameters: Mapping[str, Any] | None = None, *, limits: QueryLimits | None = None) -> bytes:
        """As `query`, the whole answer as JSON text: an object with an array for each column."""
        return await self._asked(queries.run_columns, sql, parameters, limits)

    async def _asked(
        self,
        run: Callable[[Client, Prepared, Mapping[str, Any] | None], T],
        sql: str,
        parameters: Mapping[str, Any] | None,
        limits: QueryLimits | None,
    ) -> T:
        limits = limits or QueryLimits()
        functions = self._functions
        if functions is None:
            raise Defect("history.not-open", "The history is not open.")
        connections = self._connections_for(limits)
        # The text is parsed by the embedded engine also when a server answers: the guard knows the trees of this one.
        parsers = connections if self.embedded else self._parsers
        prepared = await parsers.run(
            lambda client: queries.prepare(client, sql, parameters or {}, database=self.database, functions=functions)
        )
        settings = None if self.embedded else limits.settings()
        try:
            return await connections.run(lambda client: run(client, prepared, settings))
        except asyncio.CancelledError:
            await asyncio.shield(self._keeper.run(lambda client: _end_query(client, prepared.marker)))
            raise

    def _connections_for(self, limits: QueryLimits) -> Connections:
        found = self._readers.get(limits)
        if found is None:
            if len(self._readers) >= 8:
                raise TooLarge("sql.limits", "Too many different limits are in use.")
            session = limits.settings() if self.embedded else {}
            found = Connections(
                partial(open_client, self.settings, database=self.database, session=session), size=QUERIES_MAX, name="history-query"
            )
            self._readers[limits] = found
        return found

    def _open_writer(self) -> Client:
        return open_client(self.settings, database=self.database, session={})


def _end_query(client: Client, marker: str) -> None:
    """Ends the query whose text has the marker. The marker is put together by the engine, so that this query is not found itself."""
    half = len(marker) // 2
    condition = f"position(query, concat('{marker[:half]}', '{marker[half:]}')) > 0"
    client.command(f"KILL QUERY WHERE {condition} ASYNC")
