"""Keeps the tables' lifetimes as they are wished, and no shorter than what is needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import rebuild_sql, rebuild_swap, retention, retention_tables
from services.history.cluster import UNHURRIED, for_cluster
from services.history.engine import is_unavailable, unavailable
from services.history.retention import Bound
from services.history.store import History
from services.history.tables import all_tables
from streams.durations import format_duration
from streams.errors import Defect
from streams.records import iso, now

log = structlog.get_logger(__name__)


class RetentionKeeper:
    """The lifetimes of one history. `spans`: what each rule looks back over, milliseconds by its id."""

    def __init__(self, history: History, spans: Callable[[], Awaitable[Mapping[str, int]]]) -> None:
        self._history, self._spans = history, spans
        self._wished = retention.parse(history.settings.history_retention)

    async def apply(self) -> list[str]:
        """Gives the tables their lifetimes; the tables whose lifetime changed. Raises `Unavailable`."""
        wished = self._wished
        bounds = await self.bounds() if wished else {}
        lifetimes_ms = retention.in_force(wished, bounds)
        cluster = self._history.settings.clickhouse_cluster
        changed: list[str] = await self._run(lambda client: retention_tables.apply(client, lifetimes_ms, cluster))
        for table in changed:
            held = bounds[table].why if table in bounds and lifetimes_ms.get(table, 0) > wished.get(table, 0) else ""
            lifetime_ms = lifetimes_ms.get(table)
            log.info("history.retention", table=table, lifetime=None if lifetime_ms is None else format_duration(lifetime_ms), held=held)
        if not self._history.embedded:
            await self._run(self._go_on)
        return changed

    def _go_on(self, client: Client) -> None:
        """A rebuild has retention stopped, until it ends. Of one that died beside a server, the server knows nothing."""
        settings = self._history.settings
        if rebuild_swap.tidy(client, settings.clickhouse_cluster, idle_s=rebuild_swap.IDLE_S):
            for table in all_tables():
                statement = for_cluster(rebuild_sql.drop_again(settings.clickhouse_database, table), settings.clickhouse_cluster)
                client.command(statement, settings=dict(UNHURRIED) if settings.clickhouse_cluster else None)

    async def bounds(self) -> dict[str, Bound]:
        """What the lifetimes may not go below now."""
        oldest = await self._run(retention_tables.oldest_execution)
        return retention.greatest(retention.of_topics(), retention.of_rules(await self._spans()), retention.of_executions(oldest, now()))

    async def report(self, wished: str | None = None) -> dict[str, Any]:
        """How long each table keeps its rows. `wished`: lifetimes to be tried instead of those set.

        Raises `InvalidInput` (`retention.invalid`), `Refused` (`retention.too-short`) for tried ones, `Unavailable`.
        """
        bounds = await self.bounds()
        tried = self._wished if wished is None else retention.parse(wished)
        if wished is not None:
            retention.check(tried, bounds)
        have = await self._run(retention_tables.read)
        first = await self._run(_first)
        return {"tables": [_table(table, tried.get(table), have.get(table), bounds.get(table), first.get(table)) for table in all_tables()]}

    async def _run(self, work: Callable[[Client], Any]) -> Any:
        connections = self._history.connections("history-retention", size=1)
        try:
            return await connections.run(work)
        except ClickHouseError as error:
            raise unavailable(error) if is_unavailable(error) else Defect("history.retention", str(error)[:300]) from error
        finally:
            await connections.close()


def _first(client: Client) -> dict[str, Any]:
    """The oldest row of each table."""
    parts = [f"SELECT '{table}', min(_timestamp), count() FROM {table}" for table in all_tables()]
    return {str(table): at for table, at, count in client.query(" UNION ALL ".join(parts)).result_rows if count}


def _table(table: str, wished: int | None, have: int | None, bound: Bound | None, first: Any) -> dict[str, Any]:
    shown = {"wished": wished, "in_force": have, "least": None if bound is None else bound.ms}
    texts = {name: None if value is None else format_duration(value) for name, value in shown.items()}
    oldest = None if first is None else iso(first)
    return {"table": table, **texts, "because": None if bound is None else bound.why, "oldest_row": oldest}
