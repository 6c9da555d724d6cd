"""The two sides of a verification: sums and single rows of the tables, and of the topics as the sink would make rows of them."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import verify_sql as sql
from services.history.container import Row as ContainerRow
from services.history.container import body_id, container
from services.history.engine import Connections, is_unavailable, unavailable
from services.history.insert import texts_are_utf8
from services.history.ports import BlockRefused
from services.history.replay import Piece, Replay
from services.history.replicas import see_all
from services.history.retention import Retained
from services.history.rows import Rows, Source
from services.history.store import History
from services.history.tables import DEAD_LETTERS, LOG_RECORDS, Table, all_tables
from services.history.verify_judge import Row
from services.history.verify_sums import Range, Sum, Sums
from streams.errors import Defect
from streams.settings import Settings

T = TypeVar("T")
Place = tuple[str, int]  #: topic (logical name), partition
NOTHING_DROPPED = Retained()
#: Of `verify_sql`: table, path of the container, its check, what refuses it.
ContainerQuery = Callable[[Table, str, int, str], str]


class TableSide:
    """What is in the tables. `suffix`: of the names of tables that stand for them while they are made anew."""

    def __init__(
        self, connections: Connections, settings: Settings, *, tables: Sequence[str] = (), suffix: str = "",
        retained: Retained = NOTHING_DROPPED,
    ) -> None:  # fmt: skip
        """`tables`: only these; none: all. `retained`: rows that are beyond retention are in no sum."""
        self._settings = settings
        self._retained = retained
        self._connections, self._suffix = connections, suffix
        self._tables = tuple(tables) or tuple(all_tables())

    async def bounds(self) -> dict[Place, dict[str, tuple[Range, int]]]:
        """Of every partition that has rows, by table: first and last offset, rows. What was acknowledged before is seen from here on."""
        names = [table + self._suffix for table in self._tables]
        await self._tried(lambda client: see_all(client, self._settings, names))
        found: dict[Place, dict[str, tuple[Range, int]]] = defaultdict(dict)
        for table in self._tables:
            for topic, partition, first, last, count in await self._rows(sql.bounds(table, self._suffix)):
                found[topic, int(partition)][table] = Range(first=int(first), end=int(last) + 1), int(count)
        return dict(found)

    async def sums(
        self, topic: str, table: str, ranges: Sequence[Range], compared: Sequence[int], *, quick: bool
    ) -> AsyncIterator[tuple[int, bool, int, Sum, int]]:
        """Of a topic's rows in a table: partition, whether it is compared, bucket, rows and digest of the offsets, digest of the rows."""
        rows = await self._rows(
            sql.sums(table, ranges, compared, quick=quick, suffix=self._suffix, more=self._retained.condition(table)), topic=topic
        )
        for partition, is_compared, bucket, count, offsets, digest in rows:
            yield int(partition), bool(is_compared), int(bucket), Sum(count=int(count), digest=int(offsets)), int(digest)

    async def expected_offsets(self, of: Range) -> dict[int, Sum]:
        """The sums of all offsets of a range, each once, by bucket."""
        rows = await self._rows(sql.expected_offsets(of))
        return {int(bucket): Sum(count=int(count), digest=int(digest)) for bucket, count, digest in rows}

    async def rows(self, topic: str, partition: int, of: Range, tables: Sequence[str]) -> dict[int, list[Row]]:
        """The rows of a range, by offset."""
        found: dict[int, list[Row]] = defaultdict(list)
        for offset, table, digest, kind, id_, md5 in await self._rows(
            sql.places(tables, of, self._suffix), topic=topic, partition=partition
        ):
            found[int(offset)].append(Row(table=str(table), digest=int(digest), kind=str(kind), id=str(id_), value_md5=str(md5)))
        return found

    async def first_since(self, topic: str, partition: int, since_ms: int, default: int) -> int:
        """The first offset with a row that is so young."""
        rows = await self._rows(sql.first_since(self._tables, since_ms, self._suffix), topic=topic, partition=partition)
        return int(rows[0][0]) if int(rows[0][1]) else default

    async def earlier(self, topic: str, partition: int, repeats: Mapping[int, str]) -> set[int]:
        """The offsets of repeats (offset → id) whose id has a row at an earlier offset."""
        if not repeats:
            return set()
        tables = [table for table in all_tables() if table not in (DEAD_LETTERS, LOG_RECORDS)]
        query = sql.earlier(tables, {id_: offset for offset, id_ in repeats.items()}, self._suffix)
        first = {
            str(id_): int(offset)
            for id_, offset in await self._rows(query, topic=topic, partition=partition, ids=sorted(set(repeats.values())))
        }
        return {offset for offset, id_ in repeats.items() if first.get(id_, offset) < offset}

    async def _rows(self, query: str, **parameters: Any) -> Sequence[Sequence[Any]]:
        return await self._tried(lambda client: client.query(query, parameters=parameters).result_rows)

    async def _tried(self, work: Callable[[Client], T]) -> T:
        try:
            return await self._connections.run(work)
        except ClickHouseError as error:
            raise unavailable(error) if is_unavailable(error) else Defect("history.verify", str(error)) from error


class TopicSide:
    """What the topics say, as rows. `local`: connections to an engine that can read files of this machine."""

    def __init__(self, replay: Replay, local: Connections) -> None:
        self._replay, self._local = replay, local

    async def sums(self, topic: str, partition: int, source: Source, of: Range, moved: Callable[[int], None]) -> tuple[int, Sums]:
        """Sums of a partition's offsets, and the first offset that the topic still had. `moved` is told how many more were read."""
        found, first = Sums(), None
        async for piece in self._replay.pieces(topic, partition, source, of):
            first = piece.span.first if first is None else first
            for table, rows in (await self.of_piece(piece, sql.container_sums)).items():
                for bucket, count, digest in rows:
                    found.add(int(bucket), table, int(count), int(digest))
            moved(piece.span.offsets)
        return of.end if first is None else first, found

    async def rows(self, topic: str, partition: int, source: Source, of: Range) -> dict[int, Row]:
        """What each offset of a range should be, as far as the topic still has it."""
        found: dict[int, Row] = {}
        async for piece in self._replay.pieces(topic, partition, source, of):
            hashed = await self.of_piece(piece, sql.container_digests)
            records = {record.offset: record for record in piece.records}
            kinds, erased = kinds_of(piece.rows), self._replay.erased(piece.span)
            for table, rows in hashed.items():
                for offset, digest in rows:
                    record = records.get(int(offset))
                    value = b"" if record is None or int(offset) in erased else record.value or b""
                    found[int(offset)] = Row(
                        table=table, digest=int(digest), kind=kinds.get(int(offset), ""), id=body_id(value).decode(errors="replace"),
                        value_md5=hashlib.md5(value, usedforsecurity=False).hexdigest(),
                    )  # fmt: skip
        return found

    async def of_piece(self, piece: Piece, query: ContainerQuery) -> dict[str, Sequence[Sequence[Any]]]:
        """A query over the containers of a piece, by table. A piece that ClickHouse cannot read is decoded here, as the sink does."""
        try:
            return await over_rows(self._local, piece.rows, query)
        except BlockRefused:
            piece.rows.tables = (await self._replay.strictly(piece)).tables
            return await over_rows(self._local, piece.rows, query)


async def over_rows(local: Connections, rows: Rows, query: ContainerQuery) -> dict[str, Sequence[Sequence[Any]]]:
    """A query over rows as containers, by table. Raises `BlockRefused` if ClickHouse cannot read one, `Unavailable`."""
    try:
        return {table: await local.run(_query_of(table, some, query)) for table, some in rows.tables.items()}
    except ClickHouseError as error:
        raise unavailable(error) if is_unavailable(error) else BlockRefused(str(error)) from error


def _query_of(table: str, rows: Sequence[ContainerRow], query: ContainerQuery) -> Callable[[Client], Sequence[Sequence[Any]]]:
    def run(client: Client) -> Sequence[Sequence[Any]]:
        check = secrets.randbits(63) - 2**62
        handle, path = tempfile.mkstemp(prefix="mplp-history-", suffix=".avro")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(container(all_tables()[table].schema, rows, check))
            text = query(all_tables()[table], path, check, texts_are_utf8(all_tables()[table]))
            return client.query(text).result_rows
        finally:
            Path(path).unlink(missing_ok=True)

    return run


def kinds_of(rows: Rows) -> dict[int, str]:
    """Kinds of the rows of `log_records`, by offset: the first field of their bodies."""
    return {offset: body_id(bytes(5) + body).decode() for offset, _, body in rows.tables.get(LOG_RECORDS, ())}


def open_sides(
    history: History, replay: Replay, *, suffix: str = "", retained: Retained = NOTHING_DROPPED
) -> tuple[TableSide, TopicSide, Callable[[], Any]]:
    """Both sides with connections of their own, and what closes those and the replay's."""
    tables = history.connections("history-verify", size=1)
    local = history.local_connections("history-digest", size=1)

    async def close() -> None:
        await tables.close()
        await local.close()
        await replay.close()

    return TableSide(tables, history.settings, suffix=suffix, retained=retained), TopicSide(replay, local), close
