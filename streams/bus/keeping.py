"""The part of the bus that looks after the history: an execution as it was, and paths of payloads as columns."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from streams.bus.sql import Sql
from streams.bus.validate import parse_time
from streams.errors import InvalidInput
from streams.records import iso


class Keeping:
    """What `mplp history at` and `mplp history promote` do, over the gateway. Everything raises what the gateway refuses, and `Unavailable`
    (`gateway.unreachable`) if it does not answer.
    """

    _sql: Sql

    async def execution_at(self, execution_id: str, time: str | datetime, *, stale: bool = False) -> dict[str, Any]:
        """An execution as it was at an instant (a text as of RFC 3339, or a time with a zone), inclusive, from the rows of the history.

        `{"at", "behind", "execution", "steps"}`. `stale` does not wait for the history to reach the topics' ends of now; `behind` is by how
        many records it had not. Raises `NotFound` (`execution.unknown`, `execution.not-begun`), `Refused` (`history.beyond-retention`,
        `history.erased`), `InvalidInput` (`time.invalid`).
        """
        instant = parse_time(time) if isinstance(time, str) else time
        if instant.tzinfo is None:
            raise InvalidInput("time.invalid", "A time needs a zone.", advice="Such as datetime.now(UTC).")
        parameters = {"execution": execution_id, "time": iso(instant), "stale": str(stale).lower()}
        found: dict[str, Any] = await self._sql.get(f"/v1/history/at?{urlencode(parameters)}")
        return found

    async def promote(self, path: str, *, table: str = "system_events", type: str | None = None, why: str = "") -> dict[str, Any]:
        """Makes a path of payloads (`data.order.total`) a column; returns when all rows have it.

        `type`: such as `Float64`; none: that of the stored values. Cancelled, ClickHouse goes on by itself, and the same call waits for
        it. Returns the report: `table`, `column`, `path`, `type`, `index`, `created`, `rows` and more. Raises `InvalidInput` (`promote.…`).
        """
        return await self._sql.report("/v1/history/promote", {"path": path, "table": table, "type": type, "why": why})

    async def demote(self, path: str, *, table: str = "system_events", why: str = "") -> dict[str, Any]:
        """Takes a promoted column away; payloads stay as they are. Raises `NotFound` (`promote.unknown`)."""
        return await self._sql.report("/v1/history/demote", {"path": path, "table": table, "why": why})

    async def promoted(self) -> list[dict[str, Any]]:
        """The promoted columns: `table`, `column`, `path`, `type`, `index`, `rows`, `rows_done`, `ready`, `bytes` of each."""
        items: list[dict[str, Any]] = (await self._sql.get("/v1/history/promoted"))["items"]
        return items
