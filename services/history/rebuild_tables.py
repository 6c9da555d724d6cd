"""The tables of a rebuild: made beside the tables, filled, swapped, dropped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import insert as inserts
from services.history import rebuild_sql as sql
from services.history import rebuild_swap
from services.history.blocks import Span, token
from services.history.cluster import for_cluster
from services.history.copying import columns_of
from services.history.engine import goes_on, is_unavailable, unavailable
from services.history.ports import BlockRefused
from services.history.replicas import see_all
from services.history.retention import Retained
from services.history.rows import Rows, by_month
from services.history.store import History
from services.history.tables import LOG_RECORDS
from services.history.verify_sums import Range
from streams.errors import Defect, Refused, Unavailable

#: Pauses between tries while ClickHouse is away, seconds. After the last one the rebuild is given up.
RETRIES_S = (0.5, 1, 2, 5, 10, 20, 30)
#: Tokens by which a block is copied before it is given up.
TOKENS_MAX = 5
#: Seconds that inserts which began before a swap are waited for.
INSERTS_S = 60.0


class RebuildTables:
    """The tables with these names, and the ones beside them that are to take their places."""

    def __init__(self, history: History, tables: Sequence[str], retained: Retained | None = None) -> None:
        """`retained`: what is beyond retention is not copied."""
        self._retained = retained or Retained()
        self.tables = tuple(tables)
        self.swapped = False
        self._settings = history.settings
        self._cluster, self._embedded = history.settings.clickhouse_cluster, history.embedded
        self._names = history.settings.names
        self._connections = history.connections("history-rebuild", size=1)

    def physical(self, topic: str) -> str:
        """The name on the broker of a topic."""
        return self._names.physical(topic)

    async def create(self) -> None:
        """Makes them, empty; what an earlier rebuild left is dropped. Until `close` retention drops nothing, in the old ones neither."""
        await self.drop()
        for table in self.tables:
            await self._command(sql.create(table))
            if table in self._retained.since_ms:
                for name in (table, table + sql.SUFFIX):
                    await self._command(sql.drop_nothing(self._settings.clickhouse_database, name))

    async def drop(self) -> None:
        """Drops everything that has the suffix; after the swap a server that is down does it when it is back."""
        for (name,) in await self._rows(sql.leftovers()):
            with contextlib.suppress(*([Refused] if self.swapped else [])):
                await self._command(sql.drop(str(name)))

    async def copy(self, topic: str, ranges: Mapping[int, Range]) -> None:
        """A topic's rows from the old tables, by partition. Not repeated when it fails: some of them may be there."""
        await self._patiently(self._see_all)
        for table in self.tables:
            statement = sql.copy(table, topic, ranges, await self._columns(table), self._retained.condition(table))
            if statement is not None:
                await self._tried(partial(_command, statement))

    async def insert(self, span: Span, rows: Rows) -> None:
        """Rows of offsets, by tokens of those. Raises `BlockRefused` if ClickHouse cannot read a body."""
        topic = self._names.logical(span.topic)

        def work(client: Client) -> None:
            for table in sorted(rows.tables, key=lambda name: (name == LOG_RECORDS, name)):
                for month, some in sorted(by_month(rows.tables[table]).items()):
                    one = inserts.Insert(
                        table=table, topic=topic, partition=span.partition, token=token(span, table, month), rows=some,
                        quorum=bool(self._cluster), suffix=sql.SUFFIX, times_of=(table, Range(first=span.first, end=span.end)),
                    )  # fmt: skip
                    inserts.insert(client, one, embedded=self._embedded)

        await self._patiently(work)

    async def check_shapes(self) -> None:
        """Raises `Refused` (`history.schema-changed`) if a table was changed since `create`: the change would be lost."""
        for table in self.tables:
            before, after = await self._rows(sql.shape(table)), await self._rows(sql.shape(table + sql.SUFFIX))
            if list(map(tuple, before)) != list(map(tuple, after)):
                raise Refused("history.schema-changed", f"The columns of {table} were changed meanwhile.", advice="Run the rebuild again.")

    async def swap(self) -> None:
        """Swaps them, all: also if it is cut off in the middle (`settle`)."""
        rows = await self._rows(sql.uuids([table + sql.SUFFIX for table in self.tables]))
        await self._command(sql.create_journal())
        await self._command(sql.note_swap({str(name).removesuffix(sql.SUFFIX): str(uuid) for name, uuid in rows}))
        while True:
            # From here on there is only forward: the sink must not fill tables of which some are swapped.
            try:
                await self._patiently(lambda client: rebuild_swap.settle(client, self._cluster))
                self.swapped = True
                return
            except (Unavailable, Refused):
                await asyncio.sleep(RETRIES_S[-1])

    async def inserts_ended(self) -> None:
        """Returns when no insert of before the swap is under way any more: it would end in an old table."""
        swapped_s = time.monotonic()
        while time.monotonic() < swapped_s + INSERTS_S:
            older = f"query_kind = 'Insert' AND current_database = currentDatabase() AND elapsed > {time.monotonic() - swapped_s:.3f}"
            if not int((await self._rows(f"SELECT count() FROM system.processes WHERE {older}"))[0][0]):
                return
            await asyncio.sleep(0.1)
        raise Defect("history.inserts-hang", "Inserts that began before the swap do not end; what they bring is in the old tables.")

    async def copy_block(self, span: Span, *, swapped: bool, offsets: Sequence[int] = ()) -> None:
        """What the old tables have of a block (with `offsets`: of those), by the block's tokens: a repeat changes nothing.

        An engine that is killed may remember a token without its rows: they are looked for, and copied by another one.
        `swapped`: the old tables have the names with the suffix by now.
        """
        place, of = (self._names.logical(span.topic), span.partition), Range(first=span.first, end=span.end)
        await self._patiently(self._see_all)
        for table in self.tables:
            source, target = (table + sql.SUFFIX, table) if swapped else (table, table + sql.SUFFIX)
            columns = await self._columns(table)
            for (month,) in await self._rows(sql.months_of(source, place, of)):
                for again in range(TOKENS_MAX):
                    name = token(span, table, int(month), again) + ("/kept" if offsets else "")
                    await self._command(
                        sql.copy_block(source, target, place, of, month=int(month), token=name, columns=columns, offsets=offsets)
                    )
                    if not int((await self._rows(sql.missing(source, target, place, of, month=int(month), offsets=offsets)))[0][0]):
                        break
                else:
                    raise Defect("history.rebuild", f"Rows of {span} do not stay in {target}.")

    async def keep(self, at: datetime) -> list[str]:
        """Gives the old tables names under which they stay; returns those."""
        for table in self.tables:
            await self._command(f"RENAME TABLE {table}{sql.SUFFIX} TO {sql.kept_name(table, at)}")
        return [sql.kept_name(table, at) for table in self.tables]

    async def close(self) -> None:
        """Ends the connection after what runs; retention goes on."""
        try:
            for table in self.tables:
                if table in self._retained.since_ms:
                    await self._command(sql.drop_again(self._settings.clickhouse_database, table))
        finally:
            await self._connections.close()

    def _see_all(self, client: Client) -> None:
        """What is copied here must be here: both under the names and under those with the suffix, whichever are the old ones."""
        see_all(client, self._settings, [*self.tables, *(table + sql.SUFFIX for table in self.tables)])

    async def _columns(self, table: str) -> list[str]:
        return [str(name) for (name,) in await self._rows(columns_of(table))]

    async def _command(self, statement: str) -> None:
        await self._patiently(lambda client: client.command(for_cluster(statement, self._cluster)))

    async def _rows(self, query: str) -> Sequence[Sequence[Any]]:
        found: list[Sequence[Any]] = []

        def work(client: Client) -> None:
            found[:] = client.query(query).result_rows

        await self._patiently(work)
        return found

    async def _patiently(self, work: Callable[[Client], Any]) -> None:
        """Runs it; while ClickHouse is away, again. What is run may be repeated."""
        for delay in RETRIES_S:
            try:
                await self._tried(work)
                return
            except Unavailable:
                await asyncio.sleep(delay)
        await self._tried(work)

    async def _tried(self, work: Callable[[Client], Any]) -> None:
        try:
            await self._connections.run(work)
        except ClickHouseError as error:
            if goes_on(error):
                raise Refused(
                    "history.replica-down", f"Not every server of the cluster answers: {str(error)[:200]}",
                    advice="Make the tables anew when all are back.",
                ) from error  # fmt: skip
            raise unavailable(error) if is_unavailable(error) else BlockRefused(str(error)) from error


def _command(statement: str, client: Client) -> None:
    client.command(statement)
