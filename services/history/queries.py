"""Queries as they run: checked, run on a connection of a pool, streamed, watched, and ended when nobody wants the answer any more."""

from __future__ import annotations

import asyncio
import io
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import orjson
import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import query as sql_of
from services.history import query_errors
from services.history.answers import Column, Format, portable, writer
from services.history.engine import Connections, open_client, open_parser
from services.history.query import Functions, Prepared, QueryLimits, QueryResult, translated
from services.history.readers import Reader, Readers
from services.history.running import Registry, Run, State
from services.history.tail import Tail
from streams import limits as caps
from streams.errors import BackboneError, Defect, Denied, Refused, TooLarge
from streams.settings import Settings

T = TypeVar("T")

#: Bytes taken from the engine at a time.
CHUNK_BYTES = 1024 * 1024
#: Pools of connections, one for each set of limits in use.
POOLS_MAX = 8
#: How long the end of a query that nobody wants any more is waited for, seconds.
KILL_S = 5.0
#: How much longer than its limit a query may take before its caller is told, seconds.
OVERTIME_S = 2.0

_log = structlog.get_logger("history")


class Queries:
    """The read side of a history. One instance per process when embedded; safe to use from one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._embedded = not settings.clickhouse_url
        self._limits = QueryLimits.of(settings)
        self._pools: dict[QueryLimits, Readers] = {}
        # Two parse, so that a text which takes long to parse holds up one of them; one connection looks after the others.
        self._parsers = Connections(self._open_parser, size=2, name="history-parse")
        self._keeper = Connections(
            partial(open_client, settings, database=settings.clickhouse_database, session={}), size=1, name="history-watch"
        )
        self._functions: Functions | None = None
        self.registry = Registry()

    def _open_parser(self) -> Client:
        """The text is parsed by the embedded engine also when a server answers: the guard knows the trees of this one."""
        return open_client(self._settings, database=None, session={"readonly": 1}) if self._embedded else open_parser()

    async def open(self) -> None:
        """Reads what the engine can do. The database must be there. Raises `Unavailable` (`history.unavailable`)."""
        self._functions = await self._keeper.run(sql_of.functions_of)

    async def close(self) -> None:
        """Ends all connections after what runs."""
        for readers in self._pools.values():
            await readers.close()
        await self._parsers.close()
        await self._keeper.close()

    # -- asking

    async def query(self, sql: str, parameters: Mapping[str, Any] | None, limits: QueryLimits | None) -> QueryResult:
        """See `History.query`."""
        return await self._whole(sql_of.run, sql, parameters, limits)

    async def columns(self, sql: str, parameters: Mapping[str, Any] | None, limits: QueryLimits | None) -> bytes:
        """See `History.columns`."""
        return await self._whole(sql_of.run_columns, sql, parameters, limits)

    async def stream(
        self, sql: str, parameters: Mapping[str, Any] | None, format: Format, limits: QueryLimits | None, query_id: str | None
    ) -> Answer:
        """See `History.stream`."""
        run = self.registry.begin(query_id or uuid.uuid4().hex)
        try:
            prepared = await self._prepared(sql, parameters, run)
            readers = self._readers(limits)
            reader = await self._borrowed(readers, run)
            answer = Answer(self, run, prepared, format, readers, reader, self._session(limits), limits)
            await answer.open()
        except BaseException as error:
            self.registry.end(run, error)
            raise
        return answer

    async def _whole(
        self,
        work: Callable[[Client, Prepared, Mapping[str, Any] | None], T],
        sql: str,
        parameters: Mapping[str, Any] | None,
        limits: QueryLimits | None,
    ) -> T:
        run = self.registry.begin(uuid.uuid4().hex)
        error: BaseException | None = None
        try:
            prepared = await self._prepared(sql, parameters, run)
            readers = self._readers(limits)
            reader = await self._borrowed(readers, run)
            whole = False
            try:
                async with _overtime(limits):
                    result = await reader.run(lambda client: work(client, prepared, self._session(limits)))
                whole = True
                return result
            except TimeoutError as failure:
                await asyncio.shield(self.kill(run))
                raise _too_long() from failure
            except asyncio.CancelledError:
                await asyncio.shield(self.kill(run))
                raise
            except BackboneError as failure:
                raise await self.explained(failure, prepared) from failure
            finally:
                readers.give_back(reader, whole=whole)
        except BaseException as failure:
            error = failure
            raise
        finally:
            self.registry.end(run, error)

    async def _prepared(self, sql: str, parameters: Mapping[str, Any] | None, run: Run) -> Prepared:
        functions = self._functions
        if functions is None:
            raise Defect("history.not-open", "The history is not open.")
        database = self._settings.clickhouse_database
        return await self._parsers.run(
            lambda client: sql_of.prepare(client, sql, parameters or {}, database=database, functions=functions, query_id=run.query_id)
        )

    async def _borrowed(self, readers: Readers, run: Run) -> Reader:
        reader = await readers.borrow()
        if run.unwanted:
            readers.give_back(reader, whole=True)
            raise Refused("sql.cancelled", "The query was cancelled before it began.")
        run.state = State.RUNNING
        return reader

    def _session(self, limits: QueryLimits | None) -> dict[str, Any] | None:
        """Settings that go with each request: to a server. An embedded connection has them."""
        return None if self._embedded else (limits or self._limits).settings()

    def _readers(self, limits: QueryLimits | None) -> Readers:
        limits = limits or self._limits
        found = self._pools.get(limits)
        if found is None:
            if len(self._pools) >= POOLS_MAX:
                raise TooLarge("sql.limits", "Too many different limits are in use.")
            session = limits.settings() if self._embedded else {}
            open_one = partial(open_client, self._settings, database=self._settings.clickhouse_database, session=session)
            found = Readers(open_one, size=self._settings.query_concurrency, wait_s=caps.QUERY_WAIT_S_MAX)
            self._pools[limits] = found
        return found

    async def explained(self, error: BackboneError, prepared: Prepared) -> BackboneError:
        """An error with what was probably meant."""
        if error.code != "sql.unknown-column" or error.advice or not prepared.tables:
            return error
        names = sorted(prepared.tables)
        condition = "database = {database:String} AND has({names:Array(String)}, table)"
        sql = f"SELECT table, name FROM system.columns WHERE {condition} ORDER BY position"
        values = {"database": self._settings.clickhouse_database, "names": names}
        try:
            rows = await self._keeper.run(lambda client: client.query(sql, parameters=values).result_rows)
        except (ClickHouseError, BackboneError):
            return error  # the question was whether there is anything to add
        columns: dict[str, list[str]] = {}
        for table, name in rows:
            columns.setdefault(str(table), []).append(str(name))
        return query_errors.with_columns(error, columns)

    # -- watching and ending

    async def progress(self, query_id: str) -> dict[str, Any]:
        """How far a query is, or how it ended. Raises `NotFound` (`query.unknown`)."""
        run = self.registry.find(query_id)
        if run.state is State.RUNNING:
            marker = sql_of.marker_of(run.query_id)
            columns = "read_rows, total_rows_approx, read_bytes, peak_memory_usage"
            try:
                rows = await self._keeper.run(
                    lambda client: client.query(f"SELECT {columns} FROM system.processes WHERE {_marked(marker)}").result_rows
                )
            except ClickHouseError as error:
                raise translated(error) from error
            if rows:
                run.rows_read, run.rows_total, run.bytes_read, run.memory_bytes = (int(value) for value in rows[0])
        return run.to_dict(time.monotonic())

    async def cancel(self, query_id: str) -> dict[str, Any]:
        """Ends a query. Raises `NotFound` (`query.unknown`)."""
        run = self.registry.find(query_id)
        if run.ended is None:
            run.unwanted = True
            await self.kill(run)
        return run.to_dict(time.monotonic())

    async def kill(self, run: Run) -> None:
        """Ends what runs in the engine, if it does."""
        command = f"KILL QUERY WHERE {_marked(sql_of.marker_of(run.query_id))} ASYNC"
        try:
            await self._keeper.run(lambda client: client.command(command))
        except (ClickHouseError, BackboneError) as error:
            _log.warning("query.kill", query_id=run.query_id, message=str(error)[:300])


def _overtime(limits: QueryLimits | None) -> asyncio.Timeout:
    """The engine looks at its own limit between blocks of rows; a single function over one block may run on, and nobody has to wait for it.

    Its connection stays lent until the engine comes back, so what runs on at the same time stays bounded.
    """
    return asyncio.timeout(None if limits is None else limits.seconds + OVERTIME_S)


def _too_long() -> TooLarge:
    return TooLarge("sql.timeout", "The query took too long: a single step of it could not be ended in time.")


def _marked(marker: str) -> str:
    """The marker is put together by the engine, so that this query is not found itself."""
    half = len(marker) // 2
    return f"position(query, concat('{marker[:half]}', '{marker[half:]}')) > 0"


class Answer:
    """An answer that is taken bit by bit. It has to be closed; what is not taken until then is given up, also in the engine."""

    def __init__(
        self,
        queries: Queries,
        run: Run,
        prepared: Prepared,
        format: Format,
        readers: Readers,
        reader: Reader,
        session: dict[str, Any] | None,
        limits: QueryLimits | None,
    ) -> None:
        self._limits = limits
        self._queries, self._run, self._prepared, self._format = queries, run, prepared, format
        self._readers, self._reader, self._session = readers, reader, session
        self._stream: Any = None
        self._whole = self._closed = False
        self._writer = writer(format, ())

    @property
    def query_id(self) -> str:
        """By it the query can be watched and ended."""
        return self._run.query_id

    @property
    def rows(self) -> int:
        """Rows taken; of Arrow and Parquet not known, 0."""
        return self._writer.rows

    async def open(self) -> None:
        """Sends the query. Raises as `History.query`."""
        try:
            self._stream = await self._running(self._open)
        except BaseException:
            await self.close()
            raise

    def _open(self, client: Client) -> Any:
        if not self._prepared.selects:
            return self._open_statement(client)
        columns = sql_of.columns_of(client, self._prepared, self._session) if self._format.needs_columns else []
        self._writer = writer(self._format, columns)
        select = portable(columns) if self._format in (Format.ARROW, Format.PARQUET) else "*"
        try:
            stream = client.raw_stream(
                self._prepared.sql(select),
                parameters=dict(self._prepared.parameters) or None,
                settings=self._session,
                fmt=self._format.engine,
            )
        except ClickHouseError as error:
            raise translated(error) from error
        return stream if self._session is None else Tail(stream)

    def _open_statement(self, client: Client) -> Any:
        """EXPLAIN and DESCRIBE: short, known at once, and no table to Arrow."""
        if self._format in (Format.ARROW, Format.PARQUET):
            raise Denied("sql.format", f"Only a SELECT is answered as {self._format}.")
        result = sql_of.run(client, self._prepared, self._session)
        self._writer = writer(self._format, [Column(*pair) for pair in zip(result.columns, result.types, strict=True)])
        return io.BytesIO(b"".join(orjson.dumps(row) + b"\n" for row in result.objects()))

    def _read(self, _: Client) -> bytes:
        try:
            return bytes(self._stream.read(CHUNK_BYTES))
        except ClickHouseError as error:
            raise translated(error) from error

    async def _running(self, work: Callable[[Client], T]) -> T:
        if self._closed:
            raise Refused("sql.cancelled", "The answer was given up.")
        try:
            async with _overtime(self._limits):
                return await self._reader.run(work)
        except TimeoutError as failure:
            await asyncio.shield(self._queries.kill(self._run))
            self._run.error = _too_long()
            raise self._run.error from failure
        except asyncio.CancelledError:
            await asyncio.shield(self._queries.kill(self._run))
            raise
        except BackboneError as error:
            explained = await self._queries.explained(error, self._prepared)
            self._run.error = explained
            raise explained from error

    async def chunks(self) -> AsyncIterator[bytes]:
        """The answer's bytes, none of them empty. Raises as `History.query`, also in the middle."""
        if first := self._writer.start():
            yield first
        while chunk := await self._running(self._read):
            taken = self._writer.take(chunk)
            self._run.rows = self._writer.rows
            if taken:
                yield taken
        await self._running(lambda _: self._stream.close())
        self._whole = True
        if last := self._writer.end():
            yield last

    async def close(self) -> None:
        """Gives the query up, also in the middle, and its connection back."""
        if self._closed:
            return
        self._closed = True
        if not self._whole and self._run.error is None:
            await self._queries.kill(self._run)
        self._readers.give_back(self._reader, whole=self._whole)
        self._queries.registry.end(self._run, self._run.error if self._whole or self._run.error else asyncio.CancelledError())
