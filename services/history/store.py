"""The history's store: one API over embedded ClickHouse (chDB) and a server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import rebuild_swap, retention
from services.history.answers import Format
from services.history.engine import Connections, is_unavailable, open_client, open_parser, unavailable
from services.history.erasures import Erasures
from services.history.filling import Filling
from services.history.migrate import migrate
from services.history.queries import Answer, Queries
from services.history.query import QueryLimits, QueryResult
from streams.errors import Defect
from streams.settings import Settings

#: Inserts at the same time.
INSERTS_MAX = 2


class History:
    """Migrations and queries, and the tables for the sink. One instance per process when embedded; safe to use from one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.embedded = not settings.clickhouse_url
        self.erasures = Erasures()  #: what whoever makes rows of records leaves out; `erase_log.refresh` reads them
        self.database = settings.clickhouse_database
        self._writers = Connections(self._open_writer, size=INSERTS_MAX, name="history-insert")
        self.queries = Queries(settings)
        self._keeper = Connections(self._open_writer, size=1, name="history-keep")
        self.tables = Filling(settings, self._writers, self._keeper)  #: for the sink

    async def open(self) -> None:
        """Opens the engine and brings the schema up to date. Raises `Unavailable` (`history.unavailable`), `Refused` (`history.locked`,
        `retention.too-short`), `InvalidInput` (`retention.invalid`).
        """

        retention.check_setting(self.settings.history_retention)

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
        await self._keeper.run(lambda client: client.ping())
        await self.queries.open()

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
        await self.queries.close()
        for connections in (self._writers, self._keeper):
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
        return await self.queries.query(sql, parameters, limits)

    async def columns(self, sql: str, parameters: Mapping[str, Any] | None = None, *, limits: QueryLimits | None = None) -> bytes:
        """As `query`, the whole answer as JSON text: an object with an array for each column."""
        return await self.queries.columns(sql, parameters, limits)

    async def stream(
        self,
        sql: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        format: Format = Format.JSON,
        limits: QueryLimits | None = None,
        query_id: str | None = None,
    ) -> Answer:
        """As `query`, the answer bit by bit in a format; `query_id` is one to watch and end it by. It has to be closed."""
        return await self.queries.stream(sql, parameters, format, limits, query_id)

    def _open_writer(self) -> Client:
        return open_client(self.settings, database=self.database, session={})
