"""`POST /v1/query`: read-only SQL over the history, streamed as a JSON array of objects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from services.gateway.answers import json_bytes, ports_of
from services.gateway.bodies import body_of, describes
from services.gateway.keys import Role, requires
from services.gateway.metrics import Metrics
from services.gateway.ports import History, Rows
from services.gateway.waiting import while_connected
from streams.errors import BackboneError, Fault

router = APIRouter(tags=["history"])

#: Seconds that a query waits at most for the sink to reach the end offsets of its start.
CATCH_UP_S = 5.0
SQL_CHARACTERS_MAX = 256 * 1024


ANSWER = (
    "An array of objects, streamed; with the format `columns` one object. The header `X-Mplp-Behind` says by how many records the "
    "history was behind."
)


class QueryRequest(BaseModel):
    """A query."""

    model_config = ConfigDict(extra="forbid")

    sql: str = Field(
        min_length=1, max_length=SQL_CHARACTERS_MAX, description="One SELECT statement of ClickHouse. Parameters are written {name:Type}."
    )
    parameters: dict[str, Any] = Field(default_factory=dict, description="Values of the parameters.")
    format: Literal["rows", "columns"] = Field(
        "rows",
        description="rows: an array of objects. columns: one object, an array for each column: far cheaper where there are many rows.",
    )
    stale: bool = Field(False, description=f"Do not wait (at most {CATCH_UP_S:.0f} s) for the history to reach the topics' ends of now.")


@router.post(
    "/v1/query",
    response_class=Response,
    summary="Query the history",
    dependencies=[Depends(requires(Role.READER))],
    openapi_extra=describes(QueryRequest),
    responses={200: {"description": ANSWER, "content": {"application/json": {}}}},
    description="Time, memory, rows and the size of the answer are limited; statements that write, and functions that read files, "
    "network or settings are refused. A failure in the middle breaks the connection, so that half an answer is never taken for one.",
)
async def query(request: Request, body: Annotated[QueryRequest, Depends(body_of(QueryRequest))]) -> Response:
    """Runs a query."""
    history = ports_of(request).history
    metrics: Metrics = request.app.state.metrics
    if body.format == "columns":
        return await _columns(request, body, history, metrics)

    async def first_batch() -> tuple[Rows, AsyncIterator[list[Mapping[str, Any]]], list[Mapping[str, Any]], int | None]:
        behind = history.behind() if body.stale else await history.caught_up(CATCH_UP_S)
        rows = await history.query(body.sql, body.parameters)
        try:
            batches = rows.batches()
            return rows, batches, await anext(batches, []), behind
        except BaseException:
            await rows.close()
            raise

    try:
        rows, batches, first, behind = await while_connected(request, first_batch())
    except BackboneError as error:
        metrics.queries.labels("refused" if error.fault is Fault.CALLER else "failed").inc()
        raise
    except ClientDisconnect:
        metrics.queries.labels("cancelled").inc()
        raise
    headers = {} if behind is None else {"X-Mplp-Behind": str(behind)}
    return StreamingResponse(_array(rows, batches, first, metrics), media_type="application/json", headers=headers)


async def _columns(request: Request, body: QueryRequest, history: History, metrics: Metrics) -> Response:
    """The whole answer as the engine writes it."""

    async def answer() -> tuple[bytes, int | None]:
        behind = history.behind() if body.stale else await history.caught_up(CATCH_UP_S)
        return await history.columns(body.sql, body.parameters), behind

    try:
        content, behind = await while_connected(request, answer())
    except BackboneError as error:
        metrics.queries.labels("refused" if error.fault is Fault.CALLER else "failed").inc()
        raise
    except ClientDisconnect:
        metrics.queries.labels("cancelled").inc()
        raise
    metrics.queries.labels("done").inc()
    return Response(content, media_type="application/json", headers={} if behind is None else {"X-Mplp-Behind": str(behind)})


async def _array(
    rows: Rows, batches: AsyncIterator[list[Mapping[str, Any]]], first: list[Mapping[str, Any]], metrics: Metrics
) -> AsyncGenerator[bytes, None]:
    outcome = "cancelled"
    separator = b"["
    try:
        async with aclosing(_chained(first, batches)) as all_batches:
            async for batch in all_batches:
                metrics.query_rows.inc(len(batch))
                yield separator + b",\n".join(json_bytes(row) for row in batch)
                separator = b",\n"
        yield b"]" if separator == b",\n" else b"[]"
        outcome = "done"
    except BackboneError:
        outcome = "failed"
        raise
    finally:
        metrics.queries.labels(outcome).inc()
        await rows.close()


async def _chained(
    first: list[Mapping[str, Any]], rest: AsyncIterator[list[Mapping[str, Any]]]
) -> AsyncGenerator[list[Mapping[str, Any]], None]:
    batch = first
    while batch:
        yield batch
        batch = await anext(rest, [])
