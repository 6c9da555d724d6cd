"""`/v1/history/promote…`: paths of payloads as columns of their own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from services.gateway.answers import Answer, ports_of
from services.gateway.bodies import body_of, describes
from services.gateway.history import STREAMED, answered
from services.gateway.keys import Role, requires
from services.gateway.ports_promote import Promotion

router = APIRouter(tags=["history"])

Table = Annotated[str, Field(min_length=1, max_length=100, description="The table.")]
Path = Annotated[str, Field(min_length=1, max_length=256, description="Such as `data.order.total`; odd names in backquotes.")]
Why = Annotated[str, Field(max_length=1000, description="Why; kept with the event that tells of it.")]


class PromoteRequest(BaseModel):
    """What to promote."""

    model_config = ConfigDict(extra="forbid")

    path: Path
    table: Table = "system_events"
    type: str | None = Field(None, max_length=100, description="Such as `Float64`; none: that of the stored values.")
    why: Why = ""


class DemoteRequest(BaseModel):
    """What to demote."""

    model_config = ConfigDict(extra="forbid")

    path: Path
    table: Table = "system_events"
    why: Why = ""


@router.post(
    "/v1/history/promote",
    response_class=Response,
    summary="Make a path of payloads a column",
    openapi_extra=describes(PromoteRequest),
    description="The column is there at once, also for queries, and filled in the background; the answer comes when all rows have it. "
    "Asked again, it goes on where it is. It stays through restarts, upgrades and rebuilds. An event `history.promoted` tells of it. "
    f"{STREAMED.replace('the work ends', 'ClickHouse goes on by itself')}",
)
async def promote(
    request: Request, who: Annotated[str, Depends(requires(Role.ADMIN))], body: Annotated[PromoteRequest, Depends(body_of(PromoteRequest))]
) -> Response:
    """Promotes."""
    asked = Promotion(path=body.path, table=body.table, type=body.type, who=who, why=body.why)
    return await answered(request, ports_of(request).promotions.promote(asked))


@router.post(
    "/v1/history/demote",
    response_class=Response,
    summary="Take a promoted column away",
    openapi_extra=describes(DemoteRequest),
    description="The payloads stay as they are. An event `history.demoted` tells of it.",
)
async def demote(
    request: Request, who: Annotated[str, Depends(requires(Role.ADMIN))], body: Annotated[DemoteRequest, Depends(body_of(DemoteRequest))]
) -> Response:
    """Takes a promoted column away."""
    asked = Promotion(path=body.path, table=body.table, who=who, why=body.why)
    return await answered(request, ports_of(request).promotions.demote(asked))


@router.get(
    "/v1/history/promoted",
    response_class=Response,
    summary="Promoted columns",
    description="`items`: of each `table`, `column`, `path`, `type`, `index`, `rows`, `rows_done` (that have it by now), `ready`, `bytes`.",
    dependencies=[Depends(requires(Role.READER))],
)
async def promoted(request: Request) -> Response:
    """The promoted columns."""
    return Answer({"items": await ports_of(request).promotions.promoted()})
