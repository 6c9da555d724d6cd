"""The history's store: one API over embedded ClickHouse (chDB) and a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Self, TypeVar

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import insert as inserts
from services.history import query as queries
from services.history.blocks import Span, token
from services.history.container import Row
from services.history.engine import Connections, error_code, is_unavailable, open_client, open_parser, unavailable
from services.history.migrate import migrate
from services.history.query import Prepared, QueryLimits, QueryResult
from services.history.rows import REPEAT_WINDOW_OFFSETS, by_month
from services.history.tables import DEAD_LETTERS, LOG_RECORDS, all_tables
from streams.errors import Defect, TooLarge
from streams.settings import Settings

T = TypeVar("T")

#: Queries at the same time; more wait.
QUERIES_MAX = 4
#: Inserts at the same time.
INSERTS_MAX = 2


#: Codes of a refused insert that are about the server's state, not about the rows: memory, too many parts, read-only disk.
_LATER_CODES = frozenset({241, 252, 319, 164})


class BlockRefused(Exception):
    """ClickHouse could not read a container: a body in it is not what it says."""


class History:
    """Migrations, inserts and queries. One instance per process when embedded; safe to use from one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.embedded = not settings.clickhouse_url
        self.database = settings.clickhouse_database
        self._writers = Connections(self._open_writer, size=INSERTS_MAX, name="history-insert")
        self._readers: dict[QueryLimits, Connections] = {}
        self._keeper = Connections(self._open_writer, size=1, name="history-keep")
        self._parsers = Connections(open_parser, size=1, name="history-parse")
        self._functions: frozenset[str] | None = None

    async def open(self) -> None:
        """Opens the engine and brings the schema up to date. Raises `Unavailable` (`history.unavailable`), `Refused` (`history.locked`)."""

        def prepare() -> None:
            client = open_client(self.settings, database=None, session={})
            try:
                migrate(client, self.database, cluster=self.settings.clickhouse_cluster)
            except ClickHouseError as error:
                raise unavailable(error) if is_unavailable(error) else Defect("history.migration", str(error)) from error
            finally:
                client.close()

        # The keeper's connection stays open from here on: an engine without a connection would shut down in between.
        await asyncio.to_thread(prepare)
        self._functions = await self._keeper.run(queries.functions_of)

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

    # -- inserts

    async def insert(self, span: Span, table: str, rows: list[Row]) -> None:
        """Inserts a block's rows of one table, one insert per month; repeats change nothing.

        Raises `BlockRefused` if ClickHouse cannot read a body, `Unavailable` if it cannot be reached (repeat later).
        """
        topic = self.settings.names.logical(span.topic)

        def work(client: Client) -> None:
            for month, some in sorted(by_month(rows).items()):
                inserts.insert(
                    client, table, some, topic=topic, partition=span.partition, token=token(span, table, month), embedded=self.embedded
                )  # fmt: skip

        try:
            await self._writers.run(work)
        except ClickHouseError as error:
            if is_unavailable(error) or error_code(error) in _LATER_CODES:
                raise unavailable(error) from error
            raise BlockRefused(str(error)) from error

    async def offsets_of(self, span: Span) -> set[int]:
        """The offsets of a block that are rows of any table already."""
        parts = [self._place_query(table, "_offset") for table in all_tables()]
        rows = await self._place_rows(" UNION ALL ".join(parts), span.topic, span.partition, span.first, span.end)
        return {int(row[0]) for row in rows}

    async def last_offset(self, topic: str, partition: int) -> int | None:
        """The highest offset of a partition that is a row of any table, None if there is none."""
        parts = [self._place_query(table, "maxOrNull(_offset) AS found") for table in all_tables()]
        rows = await self._place_rows(f"SELECT max(found) FROM ({' UNION ALL '.join(parts)})", topic, partition, 0, 2**62)
        return None if not rows or rows[0][0] is None else int(rows[0][0])

    async def recent_ids(self, topic: str, partition: int, before: int) -> list[tuple[int, bytes]]:
        """Offset and id of the rows in the repeat window before an offset, ascending."""
        tables = [table for table in all_tables() if table not in (DEAD_LETTERS, LOG_RECORDS)]
        parts = [self._place_query(table, "_offset, id") for table in tables]
        sql = f"SELECT _offset, id FROM ({' UNION ALL '.join(parts)}) ORDER BY _offset"
        rows = await self._place_rows(sql, topic, partition, max(0, before - REPEAT_WINDOW_OFFSETS), before)
        return [(int(offset), str(record_id).encode()) for offset, record_id in rows]

    @staticmethod
    def _place_query(table: str, what: str) -> str:
        place = "_topic = {topic:String} AND _partition = {partition:Int32} AND _offset >= {first:Int64} AND _offset < {end:Int64}"
        return f"SELECT {what} FROM {table} WHERE {place}"

    async def _place_rows(self, sql: str, topic: str, partition: int, first: int, end: int) -> list[tuple[Any, ...]]:
        parameters = {"topic": self.settings.names.logical(topic), "partition": partition, "first": first, "end": end}
        try:
            return await self._keeper.run(lambda client: [tuple(row) for row in client.query(sql, parameters=parameters).result_rows])
        except ClickHouseError as error:
            raise unavailable(error) from error

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
