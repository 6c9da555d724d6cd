"""`/v1/query`: read-only SQL over the history, streamed, watched and ended; `/v1/queries`: the saved ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse

from services.gateway.answers import Answer, ports_of
from services.gateway.bodies import body_of, describes
from services.gateway.keys import Role, requires
from services.gateway.metrics import Metrics
from services.gateway.ports import History, Streamed
from services.gateway.query_formats import MEDIA_TYPES, FormatName, wanted
from services.gateway.waiting import while_connected
from streams.errors import BackboneError, Fault, InvalidInput

router = APIRouter(tags=["history"])

#: Seconds that a query waits at most for the sink to reach the end offsets of its start.
CATCH_UP_S = 5.0
SQL_CHARACTERS_MAX = 256 * 1024
#: Bytes of an answer that are held back until it begins: an error up to there is a problem document, not half an answer.
HELD_BYTES = 256 * 1024
#: Seconds that a client may take for one part of an answer; a query holds one of few places in the engine.
SLOW_CLIENT_S = 60.0

ANSWER = (
    "The rows, streamed, in the form that `format` or the header `Accept` asks for. `X-Mplp-Behind` says by how many records the "
    "history was behind, `X-Mplp-Query-Id` under which id the query can be watched and ended."
)
FORMAT = (
    "json (also called rows): an array of objects. jsonl: an object a line. csv: names first. compact: lines of JSON: names, types, then "
    "an array a row. columns: one object, an array for each column: far cheaper where there are many rows. arrow: an IPC stream. parquet. "
    "Default: what the header Accept prefers, else json."
)


class QueryRequest(BaseModel):
    """A query: its text, or the name of a saved one."""

    model_config = ConfigDict(extra="forbid")

    sql: str | None = Field(
        None,
        min_length=1,
        max_length=SQL_CHARACTERS_MAX,
        description="One SELECT statement of ClickHouse, or SHOW TABLES, DESCRIBE or EXPLAIN. Parameters are written {name:Type}.",
    )
    saved: str | None = Field(None, min_length=1, max_length=200, description="Name of a saved query, instead of `sql`.")
    parameters: dict[str, Any] = Field(default_factory=dict, description="Values of the parameters.")
    format: FormatName | None = Field(None, description=FORMAT)
    stale: bool = Field(False, description=f"Do not wait (at most {CATCH_UP_S:.0f} s) for the history to reach the topics' ends of now.")
    query_id: UUID | None = Field(None, description="An id of your own to watch and end the query by.")


@router.post(
    "/v1/query",
    response_class=Response,
    summary="Query the history",
    dependencies=[Depends(requires(Role.READER))],
    openapi_extra=describes(QueryRequest),
    responses={200: {"description": ANSWER, "content": {media.partition(";")[0]: {} for media in MEDIA_TYPES.values()}}},
    description="Time, memory, rows and the size of the answer are limited by settings; statements that write, and functions that read "
    "files, network or settings are refused. The query ends in the engine when its client goes. A failure in the middle breaks the "
    "connection, so that half an answer is never taken for one; `GET /v1/query/{query_id}` then says why.",
)
async def query(request: Request, body: Annotated[QueryRequest, Depends(body_of(QueryRequest))]) -> Response:
    """Runs a query."""
    history = ports_of(request).history
    metrics: Metrics = request.app.state.metrics
    form = wanted(body.format, request.headers.get("accept", ""))
    try:
        sql, parameters = _asked(history, body)
        if form == "columns":
            return await _columns(request, sql, parameters, body.stale, metrics)
        answering = await while_connected(request, _begin(history, sql, parameters, form, body))
    except BackboneError as error:
        metrics.queries.labels("refused" if error.fault is Fault.CALLER else "failed").inc()
        raise
    except ClientDisconnect:
        metrics.queries.labels("cancelled").inc()
        raise
    answer, first, rest, behind = answering
    headers = {"X-Mplp-Query-Id": answer.query_id} | ({} if behind is None else {"X-Mplp-Behind": str(behind)})
    return StreamingResponse(_body(answer, first, rest, metrics), media_type=MEDIA_TYPES[form], headers=headers)


def _asked(history: History, body: QueryRequest) -> tuple[str, dict[str, Any]]:
    """Text and parameters. Raises `InvalidInput` (`query.one-of`), and what `History.saved` raises."""
    if (body.sql is None) == (body.saved is None):
        raise InvalidInput("query.one-of", "A query is either `sql` or the name of a `saved` one.", pointer="/sql")
    if body.saved is not None:
        return history.saved(body.saved, body.parameters)
    assert body.sql is not None
    return body.sql, body.parameters


async def _begin(
    history: History, sql: str, parameters: dict[str, Any], form: FormatName, body: QueryRequest
) -> tuple[Streamed, bytes, AsyncIterator[bytes], int | None]:
    """The answer, its first part (all of a short one), the rest, and how far the history was behind."""
    behind = history.behind() if body.stale else await history.caught_up(CATCH_UP_S)
    answer = await history.stream(sql, parameters, format=form, query_id=None if body.query_id is None else body.query_id.hex)
    try:
        chunks, held = answer.chunks(), bytearray()
        while len(held) < HELD_BYTES and (chunk := await anext(chunks, b"")):
            held += chunk
    except BaseException:
        await answer.close()
        raise
    return answer, bytes(held), chunks, behind


async def _columns(request: Request, sql: str, parameters: dict[str, Any], stale: bool, metrics: Metrics) -> Response:
    """The whole answer as the engine writes it."""
    history = ports_of(request).history

    async def answer() -> tuple[bytes, int | None]:
        behind = history.behind() if stale else await history.caught_up(CATCH_UP_S)
        return await history.columns(sql, parameters), behind

    content, behind = await while_connected(request, answer())
    metrics.queries.labels("done").inc()
    return Response(content, media_type="application/json", headers={} if behind is None else {"X-Mplp-Behind": str(behind)})


async def _body(answer: Streamed, first: bytes, rest: AsyncIterator[bytes], metrics: Metrics) -> AsyncGenerator[bytes, None]:
    outcome = "cancelled"
    loop = asyncio.get_running_loop()
    closing: set[asyncio.Future[None]] = set()

    def give_up() -> None:
        closing.add(asyncio.ensure_future(answer.close()))

    try:
        chunk = first
        while chunk:
            slow = loop.call_later(SLOW_CLIENT_S, give_up)
            try:
                yield chunk
            finally:
                slow.cancel()
            chunk = await anext(rest, b"")
        outcome = "done"
    except BackboneError:
        outcome = "failed"
        raise
    finally:
        metrics.queries.labels(outcome).inc()
        metrics.query_rows.inc(answer.rows)
        await answer.close()


@router.get(
    "/v1/query/{query_id}",
    summary="How far a query is",
    dependencies=[Depends(requires(Role.READER))],
    description="`state` (waiting, running, done, failed, cancelled), rows and bytes read so far, rows to be read as far as the engine can "
    "tell, and the `error` of one that failed. The last 256 that ended are remembered.",
)
async def progress(request: Request, query_id: UUID) -> Response:
    """Looks after a query."""
    return Answer(await ports_of(request).history.progress(query_id.hex))


@router.delete("/v1/query/{query_id}", summary="End a query", dependencies=[Depends(requires(Role.READER))])
async def cancel(request: Request, query_id: UUID) -> Response:
    """Ends a query in the engine, and says how far it was."""
    return Answer(await ports_of(request).history.cancel(query_id.hex))


@router.get(
    "/v1/queries",
    summary="List the saved queries",
    dependencies=[Depends(requires(Role.READER))],
    description="The ready ones, and those of the folder `MPLP_QUERIES_DIR`, ordered by name. One that cannot be read has a `fault`.",
)
async def queries(request: Request) -> Response:
    """All of them."""
    return Answer({"items": ports_of(request).history.all_saved(), "next": None})


@router.get("/v1/queries/{name}", summary="Show a saved query", dependencies=[Depends(requires(Role.READER))])
async def saved(request: Request, name: str) -> Response:
    """One with its text."""
    return Answer(ports_of(request).history.show_saved(name))
