"""`/v1/history/…`: looking after the history. Long work: with `Accept: application/x-ndjson` its progress is streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from services.gateway.answers import Answer, json_bytes, ports_of
from services.gateway.bodies import NDJSON_TYPES, body_of, describes
from services.gateway.keys import Role, requires
from services.gateway.ports import Rebuild, Verification
from services.gateway.problems import of_error
from services.gateway.waiting import while_connected
from streams.bus.validate import parse_time
from streams.errors import BackboneError, Defect

router = APIRouter(tags=["history"])

NDJSON = "application/x-ndjson"
#: Seconds that the sink may be given to reach the topics' ends.
TIMEOUT_S_MAX = 3600.0
TOPIC_CHARACTERS_MAX = 249

Topics = Annotated[list[Annotated[str, Field(min_length=1, max_length=TOPIC_CHARACTERS_MAX)]], Field(max_length=1000)]

STREAMED = (
    'With `Accept: application/x-ndjson` the answer is a line `{"progress": …}` now and then, and at the end one line `{"report": …}`, or '
    '`{"problem": …}` (as RFC 9457) if it failed. When the client goes, the work ends.'
)


class VerifyRequest(BaseModel):
    """What to verify."""

    model_config = ConfigDict(extra="forbid")

    topics: Topics = Field(default_factory=list, description="Logical names; none: every topic that the history keeps.")
    since: int | str | None = Field(None, alias="from", description="First offset of every partition, or a time (RFC 3339) of Kafka.")
    until: int | str | None = Field(None, alias="to", description="End, exclusive: an offset or a time; none: the topics' ends of now.")
    quick: bool = Field(False, description="Only that every offset is there, once; its content is not compared.")
    timeout: float = Field(60.0, ge=0, le=TIMEOUT_S_MAX, description="Seconds that the sink is given to reach the topics' ends of now.")


@router.post(
    "/v1/history/verify",
    response_class=Response,
    summary="Compare topics and tables",
    openapi_extra=describes(VerifyRequest),
    dependencies=[Depends(requires(Role.OPERATOR))],
    description="Whether every offset of the topics is in the history, once, with the content that it has there: the report's `verdict` is "
    f"`exact`, `differs` (with places), or `behind` (the sink did not reach the topics' ends in time). {STREAMED}",
)
async def verify(request: Request, body: Annotated[VerifyRequest, Depends(body_of(VerifyRequest))]) -> Response:
    """Verifies the history."""
    asked = Verification(
        topics=tuple(body.topics), since=_bound(body.since), until=_bound(body.until), quick=body.quick, timeout_s=body.timeout
    )
    return await answered(request, ports_of(request).upkeep.verify(asked))


class RebuildRequest(BaseModel):
    """What to rebuild."""

    model_config = ConfigDict(extra="forbid")

    topics: Topics = Field(default_factory=list, description="Logical names; none: every topic that the history keeps.")
    keep: bool = Field(False, description="Keep the old tables, under names that the report says.")
    timeout: float = Field(60.0, ge=0, le=TIMEOUT_S_MAX, description="Seconds that the sink is given to reach the topics' ends of now.")
    why: str = Field("", max_length=1000, description="Why; kept with the event `history.rebuilt`.")


@router.post(
    "/v1/history/rebuild",
    response_class=Response,
    summary="Make the tables anew from the topics",
    openapi_extra=describes(RebuildRequest),
    description="New tables are filled beside the old ones, compared with what was read, and swapped with them at once. What the topics no "
    f"longer have is copied. Until the swap nothing changes. An event `history.rebuilt` tells of it. {STREAMED}",
)
async def rebuild(
    request: Request,
    who: Annotated[str, Depends(requires(Role.ADMIN))],
    body: Annotated[RebuildRequest, Depends(body_of(RebuildRequest))],
) -> Response:
    """Rebuilds the history."""
    asked = Rebuild(topics=tuple(body.topics), keep=body.keep, timeout_s=body.timeout, who=who, why=body.why)
    return await answered(request, ports_of(request).upkeep.rebuild(asked))


def _bound(value: int | str | None) -> int | datetime | None:
    return parse_time(value) if isinstance(value, str) else value


async def answered(request: Request, steps: AsyncGenerator[Mapping[str, Any], None]) -> Response:
    """Long work as an answer: `steps` are `{"progress": …}`, the last one is `{"report": …}`. Given as a stream if the client takes one."""
    accepted = {part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(",")}
    if not accepted & NDJSON_TYPES:
        return Answer(await while_connected(request, _report(steps)))
    # What is refused at once is a problem document with its status.
    try:
        first = await while_connected(request, anext(steps))
    except BaseException:
        await steps.aclose()
        raise
    return StreamingResponse(_lines(first, steps), media_type=NDJSON)


async def _report(steps: AsyncGenerator[Mapping[str, Any], None]) -> Any:
    async with aclosing(steps):
        async for step in steps:
            if "report" in step:
                return step["report"]
    raise Defect("history.no-report", "The work ended without a report.")


async def _lines(first: Mapping[str, Any], steps: AsyncGenerator[Mapping[str, Any], None]) -> AsyncIterator[bytes]:
    async with aclosing(steps):
        try:
            yield json_bytes(first) + b"\n"
            async for step in steps:
                yield json_bytes(step) + b"\n"
        except BackboneError as error:
            yield json_bytes({"problem": orjson.loads(bytes(of_error(error).body))}) + b"\n"
