"""The tables as the sink fills them: `ports.Tables` over ClickHouse."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import incarnations
from services.history import insert as inserts
from services.history.blocks import Span, token
from services.history.container import Row
from services.history.engine import Connections, error_code, is_unavailable, unavailable
from services.history.made import make
from services.history.ports import BlockRefused, Incarnation, Kept, Place
from services.history.replicas import see_all
from services.history.rows import REPEAT_WINDOW_OFFSETS, by_month
from services.history.tables import DEAD_LETTERS, LOG_RECORDS, all_tables
from streams.errors import Unavailable
from streams.settings import Settings

T = TypeVar("T")

#: Codes of a refused insert that are about the server's state, not about the rows: memory, parts, time, disk, replicas, rights, tables.
_LATER_CODES = frozenset({241, 252, 319, 164, 159, 225, 285, 286, 16, 60, 81, 497, 516})
_IDENTITY = """CREATE TABLE IF NOT EXISTS identity (id String, made_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'))
ENGINE = MergeTree ORDER BY made_at SETTINGS non_replicated_deduplication_window = 10"""
_CLOCK = "SELECT toUnixTimestamp64Milli(now64(3))"
_IDENTITY_OF = "SELECT id FROM identity ORDER BY made_at, id LIMIT 1"


class Filling:
    """See `ports.Tables`."""

    def __init__(self, settings: Settings, writers: Connections, keeper: Connections) -> None:
        """`writers` insert, the `keeper` asks."""
        self._settings, self._writers, self._keeper = settings, writers, keeper
        self._embedded = not settings.clickhouse_url
        self._clock_ms: float | None = None  #: how far the server's clock is ahead of ours; None: not known

    async def identity(self) -> str:
        """Which history it is: drawn when the database is made, and the same for all who use it."""

        def work(client: Client) -> str:
            make(client, _IDENTITY, self._settings.clickhouse_cluster)
            found = client.query(_IDENTITY_OF).result_rows
            # A token is the same for everyone: of several who draw one at the same time, one comes first. An engine that was killed may
            # remember one without its row.
            for token_ in ("identity", "identity/again-1", "identity/again-2"):
                if not found:
                    settings = f"async_insert = 0, insert_deduplicate = 1, insert_deduplication_token = '{token_}'"
                    client.command(f"INSERT INTO identity (id) SETTINGS {settings} VALUES ('{uuid.uuid4()}')")
                    found = client.query(_IDENTITY_OF).result_rows
            if not found:
                raise Unavailable("history.unavailable", "A replica does not know yet which history it is.")
            return str(found[0][0])

        return await self._asking(work)

    async def insert(self, span: Span, table: str, rows: Sequence[Row], *, within_s: float, again: int = 0) -> None:
        """See `ports.Tables`: one insert per month."""
        topic = self._settings.names.logical(span.topic)
        begun_s = time.monotonic()

        def work(client: Client) -> None:
            for month, some in sorted(by_month(rows).items()):
                left_s = within_s - (time.monotonic() - begun_s)
                if left_s <= 0:
                    raise Unavailable("history.late", "An insert had to wait for so long that its block may be somebody else's.")
                one = inserts.Insert(
                    table=table, topic=topic, partition=span.partition, token=token(span, table, month, again), rows=some,
                    deadline_ms=None if self._embedded else self._server_ms(client, left_s),
                    quorum=bool(self._settings.clickhouse_cluster),
                )  # fmt: skip
                inserts.insert(client, one, embedded=self._embedded)

        try:
            await self._writers.run(work)
        except ClickHouseError as error:
            if inserts.EXPIRED in str(error):
                self._clock_ms = None
            if inserts.EXPIRED in str(error) or is_unavailable(error) or error_code(error) in _LATER_CODES:
                raise unavailable(error) from error
            raise BlockRefused(str(error)) from error

    def _server_ms(self, client: Client, left_s: float) -> int:
        """What the server's clock will say in `left_s` seconds, at the earliest."""
        if self._clock_ms is None:
            # The answer is older than our reading of the clock: a deadline errs to be early.
            self._clock_ms = int(client.query(_CLOCK).result_rows[0][0]) - time.time() * 1000
        return int(time.time() * 1000 + self._clock_ms + left_s * 1000)

    async def offsets_of(self, span: Span) -> set[int]:
        """See `ports.Tables`."""
        parts = [self._place_query(table, "_offset") for table in all_tables()]
        rows = await self._place_rows(" UNION ALL ".join(parts), span.topic, span.partition, span.first, span.end)
        return {int(row[0]) for row in rows}

    async def kept(self, topics: Collection[str]) -> dict[Place, Kept]:
        """See `ports.Tables`."""
        what = "_topic, _partition, min(_offset) AS first, max(_offset) AS last"
        condition = "_topic IN {topics:Array(String)} GROUP BY _topic, _partition"
        parts = [f"SELECT {what} FROM {table} WHERE {condition}" for table in all_tables()]
        sql = f"SELECT _topic, _partition, min(first), max(last) FROM ({' UNION ALL '.join(parts)}) GROUP BY _topic, _partition"
        physical = {self._settings.names.logical(topic): topic for topic in topics}

        def work(client: Client) -> dict[Place, Kept]:
            see_all(client, self._settings)
            rows = client.query(sql, parameters={"topics": sorted(physical)}).result_rows
            return {(physical[topic], int(number)): Kept(first=int(first), last=int(last)) for topic, number, first, last in rows}

        return await self._asking(work)

    async def incarnations(self, places: Collection[Place]) -> dict[Place, Incarnation]:
        """See `ports.Tables`."""
        logical = {(self._settings.names.logical(topic), number): (topic, number) for topic, number in places}

        def work(client: Client) -> dict[Place, Incarnation]:
            incarnations.create(client, self._settings.clickhouse_cluster)
            return {logical[place]: one for place, one in incarnations.read(client, logical).items()}

        return await self._asking(work)

    async def note_incarnations(self, noted: Mapping[Place, Incarnation]) -> None:
        """See `ports.Tables`."""
        logical = {(self._settings.names.logical(topic), number): one for (topic, number), one in noted.items()}
        await self._asking(lambda client: incarnations.note(client, logical))

    async def set_aside(self, place: Place, incarnation: Incarnation) -> str:
        """See `ports.Tables`."""
        logical = (self._settings.names.logical(place[0]), place[1])
        await self._writers.idle()
        return await self._asking(lambda client: incarnations.set_aside(client, logical, incarnation, self._settings.clickhouse_cluster))

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
        parameters = {"topic": self._settings.names.logical(topic), "partition": partition, "first": first, "end": end}

        def work(client: Client) -> list[tuple[Any, ...]]:
            see_all(client, self._settings)
            return [tuple(row) for row in client.query(sql, parameters=parameters).result_rows]

        return await self._asking(work)

    async def _asking(self, work: Callable[[Client], T]) -> T:
        """Runs a question of the sink. Raises `Unavailable`, whatever the reason: it is asked again."""
        try:
            return await self._keeper.run(work)
        except ClickHouseError as error:
            raise unavailable(error) from error
