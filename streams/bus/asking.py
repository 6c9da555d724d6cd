"""The part of the bus that asks the history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, overload

import orjson

from streams.bus.sql import Frame, Question, Sql, framed


class Asking:
    """SQL over the history, from the gateway.

    A query is a text, or the name of a `saved` one. Values go in as parameters, written `{name:Type}` in the text. `stale` does not wait
    for the history to reach the topics' ends of now. A cancelled call ends its query in the engine. Everything raises what the gateway
    refuses, and `Unavailable` if it does not answer.
    """

    _sql: Sql

    @overload
    async def query(
        self, sql: str | None = ..., parameters: Mapping[str, Any] | None = ..., *, saved: str | None = ..., format: Literal["rows"] = ...,
        stale: bool = ...,
    ) -> list[dict[str, Any]]: ...  # fmt: skip

    @overload
    async def query(
        self,
        sql: str | None = ...,
        parameters: Mapping[str, Any] | None = ...,
        *,
        saved: str | None = ...,
        format: Frame,
        stale: bool = ...,
    ) -> Any: ...

    async def query(
        self,
        sql: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        *,
        saved: str | None = None,
        format: Frame = "rows",
        stale: bool = False,
    ) -> Any:
        """The whole answer: `rows`, a list of dicts of what JSON knows as values; `columns`, a dict of lists.

        With ClickHouse's types: `arrow` (a `pyarrow.Table`), `pandas` or `polars` (a data frame), where that library is installed, else
        `Refused` (`library.missing`).
        """
        wire = {"rows": "json", "columns": "columns"}.get(format, "arrow")
        question = Question(sql=sql, saved=saved, parameters=parameters or {}, format=wire, stale=stale)
        async with self._sql.ask(question) as reply:
            return framed(await reply.whole(), format)

    async def rows(
        self, sql: str | None = None, parameters: Mapping[str, Any] | None = None, *, saved: str | None = None, stale: bool = False
    ) -> AsyncIterator[dict[str, Any]]:
        """One row after another, however many there are. Leaving the loop (`contextlib.aclosing`) ends the query."""
        async with self._sql.ask(Question(sql=sql, saved=saved, parameters=parameters or {}, format="jsonl", stale=stale)) as reply:
            async for line in reply.lines():
                yield orjson.loads(line)

    async def columns(self, sql: str, parameters: Mapping[str, Any] | None = None, *, stale: bool = False) -> dict[str, list[Any]]:
        """As `query` with the format `columns`: far cheaper than rows where there are many."""
        columns: dict[str, list[Any]] = await self.query(sql, parameters, format="columns", stale=stale)
        return columns
