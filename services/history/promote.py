"""Promotes paths of payloads to columns, in the tables as they are, while the sink goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import promote_sql as sql
from services.history.cluster import for_cluster
from services.history.engine import Connections, is_unavailable, unavailable
from services.history.promote_sql import Column
from services.history.store import History
from streams.errors import Defect, InvalidInput, NotFound, Refused, TooLarge

T = TypeVar("T")

#: Seconds between two looks at how far the background work is.
POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it is."""

    phase: str  #: type, materialising, counting
    done: int = 0  #: rows that have the column
    of: int = 0
    fault: str = ""  #: why ClickHouse tries again

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"phase": self.phase, "done": self.done, "of": self.of, **({"fault": self.fault} if self.fault else {})}


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """A column that is there now."""

    column: Column
    created: bool  #: false: it was there before
    rows: int
    values: int  #: rows that have a value
    unlike: int  #: rows whose payload has a value of another type; the column is NULL there, or empty
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **describe(self.column), "created": self.created, "rows": self.rows, "values": self.values, "unlike": self.unlike,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip


def describe(column: Column) -> dict[str, Any]:
    """A column as JSON."""
    kind = sql.KINDS[column.type]
    return {
        "table": column.table, "column": column.name, "path": sql.path_text(column.path), "type": column.type, "index": kind.index or None,
    }  # fmt: skip


Tell = Callable[[Progress], None]


class Promoter:
    """Promotes in one history; one change at a time. `busy` is held meanwhile: nothing else makes tables anew."""

    def __init__(self, history: History, busy: asyncio.Lock | None = None) -> None:
        self._history = history
        self._cluster = history.settings.clickhouse_cluster
        self._one = busy or asyncio.Lock()

    async def promote(self, path: str, *, table: str, type: str | None, tell: Tell = lambda _: None) -> Promoted:
        """Makes the column and waits until all rows have it. A cancelled call leaves ClickHouse to finish in the background.

        Raises `InvalidInput` (`promote.path`, `promote.type`, `promote.no-values`, `promote.object`, `promote.mixed`), `NotFound`
        (`promote.table`), `Refused` (`history.busy`, `promote.other-type`), `TooLarge` (`promote.too-many`), `Unavailable`.
        """
        wanted, table = sql.parse_path(path), sql.check_table(table)
        kind = None if type is None else sql.kind_of(type)
        return await self._alone(partial(self._promote, wanted, table, kind, tell))

    async def _promote(self, path: Sequence[str], table: str, kind: str | None, tell: Tell, connections: Connections) -> Promoted:
        began_s = time.monotonic()
        known, taken = await self._columns(connections)
        there = next((column for column in known if (column.table, column.path) == (table, tuple(path))), None)
        if there is not None and kind not in (None, there.type):
            raise Refused(
                "promote.other-type", f"{sql.path_text(path)} of {table} is promoted as {there.type} already.",
                advice="Remove the column first: --remove.",
            )  # fmt: skip
        if there is None and sum(column.table == table for column in known) >= sql.COLUMNS_MAX:
            raise TooLarge("promote.too-many", f"{table} has {sql.COLUMNS_MAX} promoted columns; each makes every insert slower.")
        column = there
        if column is None:
            if kind is None:
                tell(Progress(phase="type"))
                kind = await self._inferred(connections, table, path)
            name = sql.name_of(path, {name for at, name in taken if at == table})
            column = Column(table=table, name=name, path=tuple(path), type=kind)
            await self._command(connections, sql.add(column))
        await self._materialise(connections, column, tell)
        tell(Progress(phase="counting"))
        rows, values, unlike = (int(number) for number in (await _rows(connections, sql.count(column)))[0])
        return Promoted(
            column=column, created=there is None, rows=rows, values=values, unlike=unlike, seconds=time.monotonic() - began_s
        )  # fmt: skip

    async def _inferred(self, connections: Connections, table: str, path: Sequence[str]) -> str:
        found = await _rows(connections, sql.sample(table, path))
        kinds = {str(kind): int(count) for kind, count, *_ in found}
        elements = {element for row in found for element in row[2]}
        texts = max((int(row[3]) for row in found if row[0] == "String"), default=0)
        try:
            return sql.infer(path, kinds, elements, texts)
        except InvalidInput as error:
            names = sorted({name for row in found for name in row[4]})
            if error.code != "promote.object" or not names:
                raise
            advice = "It has " + ", ".join(sql.path_text([*path, name]) for name in names) + "."
            raise InvalidInput(error.code, error.message, pointer=error.pointer, advice=advice) from error

    async def _materialise(self, connections: Connections, column: Column, tell: Tell) -> None:
        """Returns when every part has the column. What is inserted meanwhile has it."""
        done, of = await self._parts(connections, column)
        if done < of and not await _rows(connections, sql.mutations(column.table, column.name)):
            await self._command(connections, sql.materialise(column))
        while running := await _rows(connections, sql.mutations(column.table, column.name)):
            done, of = await self._parts(connections, column)
            tell(Progress(phase="materialising", done=done, of=of, fault=str(running[0][1])[:300]))
            await asyncio.sleep(POLL_S)
        done, of = await self._parts(connections, column)
        if done < of:
            raise Defect("promote.unfinished", f"{of - done} rows of {column.table} did not get {column.name}.", advice="Promote it again.")

    async def demote(self, path: str, *, table: str) -> dict[str, Any]:
        """Takes the column away. Raises as `promote`, and `NotFound` (`promote.unknown`)."""
        wanted, table = sql.parse_path(path), sql.check_table(table)

        async def work(connections: Connections) -> dict[str, Any]:
            known, _ = await self._columns(connections)
            for column in known:
                if (column.table, column.path) == (table, wanted):
                    await self._command(connections, sql.remove(column))
                    return describe(column)
            raise NotFound(
                "promote.unknown",
                f"{sql.path_text(wanted)} of {table} is not promoted.",
                advice="`mplp history promote --list` shows what is.",
            )

        return await self._alone(work)

    async def promoted(self) -> list[dict[str, Any]]:
        """All promoted columns, by table, with how many rows have them."""

        async def work(connections: Connections) -> list[dict[str, Any]]:
            found = []
            for table, name, type_, comment, size in await _rows(connections, sql.columns()):
                if (column := sql.promoted(table, name, type_, comment)) is not None:
                    done, of = await self._parts(connections, column)
                    found.append({**describe(column), "rows": of, "rows_done": done, "ready": done == of, "bytes": int(size)})
            return found

        return await self._with_connections(work)

    async def _columns(self, connections: Connections) -> tuple[list[Column], list[tuple[str, str]]]:
        """The promoted columns, and all names."""
        rows = await _rows(connections, sql.columns())
        known = [sql.promoted(table, name, type_, comment) for table, name, type_, comment, _ in rows]
        return [column for column in known if column is not None], [(str(table), str(name)) for table, name, *_ in rows]

    async def _parts(self, connections: Connections, column: Column) -> tuple[int, int]:
        """Rows that have the column, and all."""
        of, done = (await _rows(connections, sql.parts(column.table, column.name)))[0]
        return int(done), int(of)

    async def _command(self, connections: Connections, statement: str) -> None:
        await _tried(connections, lambda client: client.command(for_cluster(statement, self._cluster)))

    async def _alone(self, work: Callable[[Connections], Awaitable[T]]) -> T:
        if self._one.locked():
            raise Refused("history.busy", "The tables of the history are being changed.", advice="Wait for its end.")
        async with self._one:
            return await self._with_connections(work)

    async def _with_connections(self, work: Callable[[Connections], Awaitable[T]]) -> T:
        connections = self._history.connections("history-promote", size=1)
        try:
            return await work(connections)
        finally:
            await asyncio.shield(connections.close())


async def _rows(connections: Connections, query: str) -> Sequence[Sequence[Any]]:
    found: Sequence[Sequence[Any]] = await _tried(connections, lambda client: client.query(query).result_rows)
    return found


async def _tried(connections: Connections, work: Callable[[Client], Any]) -> Any:
    try:
        return await connections.run(work)
    except ClickHouseError as error:
        raise unavailable(error) if is_unavailable(error) else Defect("promote.failed", str(error)[:500]) from error
