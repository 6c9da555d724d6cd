"""`/v1/history/…`: an execution as it was, how long the history keeps what, what goes out of it, and what is erased."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import date, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from services.gateway.answers import Answer, ports_of
from services.gateway.bodies import body_of, describes
from services.gateway.history import STREAMED, TIMEOUT_S_MAX, answered
from services.gateway.keys import Role, requires
from services.gateway.ports import Ports
from services.gateway.ports_keeping import Erase, Streamed
from services.gateway.query import CATCH_UP_S
from services.gateway.waiting import while_connected
from streams import limits
from streams.records import iso, now

router = APIRouter(tags=["history"])

PARQUET = "application/vnd.apache.parquet"


@router.get(
    "/v1/history/at",
    response_class=Answer,
    summary="Show an execution as the history has it at an instant",
    dependencies=[Depends(requires(Role.READER))],
    description="`execution` and `steps` as the transitions up to `time` give them, folded from the rows of the tables: also when the "
    "topic has them no more. `behind`: by how many records the history was behind the topics.",
)
async def at(
    request: Request,
    execution: Annotated[str, Query(min_length=1, max_length=limits.ID_CHARACTERS_MAX, description="The execution's id.")],
    time: Annotated[AwareDatetime | None, Query(description="As it was then (RFC 3339 with offset), inclusive; default: now.")] = None,
    stale: Annotated[
        bool, Query(description=f"Do not wait (at most {CATCH_UP_S:.0f} s) for the history to reach the topics' ends of now.")
    ] = False,
) -> Any:
    """The execution and its steps at an instant."""
    instant = now() if time is None else time
    ports = ports_of(request)

    async def answer() -> dict[str, Any]:
        behind = ports.history.behind() if stale else await ports.history.caught_up(CATCH_UP_S)
        view = ports.fold(await ports.keeping.transitions_at(execution, instant))
        about = {name: value for name, value in view.items() if name != "steps"}
        return {"at": iso(instant), "behind": behind, "execution": about, "steps": view["steps"]}

    return Answer(await while_connected(request, answer()))


@router.get(
    "/v1/history/retention",
    response_class=Answer,
    summary="Show how long the history keeps rows",
    dependencies=[Depends(requires(Role.READER))],
    description="Of each table the lifetime that is `wished` (`MPLP_HISTORY_RETENTION`) and the one `in_force`, null: for ever; the "
    "`least` that is possible now, `because` of topics, rules, or executions that have not ended; and its oldest row.",
)
async def retention(
    request: Request,
    tried: Annotated[
        str | None,
        Query(alias="try", max_length=1000, description="Lifetimes as `MPLP_HISTORY_RETENTION` has them: refused if they are too short."),
    ] = None,
) -> Any:
    """Lifetimes."""
    return Answer(await while_connected(request, ports_of(request).keeping.retention(tried)))


TABLE = Path(pattern=r"^[a-z_]{1,64}$", description="Name of a table.")


@router.get(
    "/v1/history/export",
    response_class=Answer,
    summary="List the tables that can be exported",
    dependencies=[Depends(requires(Role.OPERATOR))],
)
async def tables(request: Request) -> Any:
    """Names of the tables."""
    return Answer({"tables": list(ports_of(request).keeping.tables())})


@router.get(
    "/v1/history/export/{table}",
    response_class=Answer,
    summary="Show what a table has of each day",
    dependencies=[Depends(requires(Role.OPERATOR))],
    description="Of each day (UTC, of Kafka's timestamps) that has rows: `rows`; `offsets`, first and last of each partition; and sums of "
    "digests: `places` of where the rows lie, `digest` of all they hold, so that a file that was written before can be compared.",
)
async def days(
    request: Request,
    table: Annotated[str, TABLE],
    since: Annotated[date | None, Query(alias="from", description="First day; default: the first that has rows.")] = None,
    until: Annotated[date | None, Query(alias="to", description="End, exclusive; default: none.")] = None,
    inclusive: Annotated[bool, Query(description="The day `to` counts, too.")] = False,
) -> Any:
    """What there is of each day."""
    ports = ports_of(request)
    end = until + timedelta(days=1) if until is not None and inclusive else until

    async def answer() -> dict[str, Any]:
        behind = await ports.history.caught_up(CATCH_UP_S)
        return {"table": table, "behind": behind, "days": list(await ports.keeping.days(table, since, end))}

    return Answer(await while_connected(request, answer()))


@router.get(
    "/v1/history/export/{table}/{day}",
    response_class=Response,
    summary="Export a day of a table as Parquet",
    dependencies=[Depends(requires(Role.OPERATOR))],
    responses={200: {"description": "The rows, in no order; `data` is the payload's text.", "content": {PARQUET: {}}}},
    description="Streamed, however large. A failure in the middle breaks the connection, so half a file is never taken for one.",
)
async def day(request: Request, table: Annotated[str, TABLE], day: Annotated[date, Path(description="The day, 2026-01-31.")]) -> Response:
    """One day."""
    answer = await while_connected(request, ports_of(request).keeping.day(table, day))
    return StreamingResponse(_chunks(answer), media_type=PARQUET)


async def _chunks(answer: Streamed) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in answer.chunks():
            yield chunk
    finally:
        await answer.close()


class EraseRequest(BaseModel):
    """Whose payloads go."""

    model_config = ConfigDict(extra="forbid")

    subject: str = Field(
        min_length=1, max_length=limits.ID_CHARACTERS_MAX,
        description="Subject of the records, or id of an execution: then everything that belongs to it.",
    )  # fmt: skip
    why: str = Field(min_length=1, max_length=1000, description="Why; kept with the erasure for ever, and with the event `history.erased`.")
    effects: bool = Field(
        False, description="Also of every record that these caused, near or far, and of the executions among them as a whole."
    )
    dry_run: bool = Field(False, description="Only say what would be erased.")
    timeout: float = Field(60.0, ge=0, le=TIMEOUT_S_MAX, description="Seconds that the sink is given to reach the topics' ends of now.")


@router.post(
    "/v1/history/erase",
    response_class=Response,
    summary="Erase a subject's payloads",
    openapi_extra=describes(EraseRequest),
    description="Takes the payloads of everything that the history has about a subject out of all tables, for good: the rows stay, with "
    '`{"mplp_erased": true}` in place of what they told; so do those of composites, deliveries, dead letters and repeats that quote such '
    "records. Neither a rebuild nor a replay brings them back. Topics keep their records as long as their retention says. What comes "
    f"later of the same subject is not erased. {STREAMED}",
)
async def erase(
    request: Request,
    who: Annotated[str, Depends(requires(Role.ADMIN))],
    body: Annotated[EraseRequest, Depends(body_of(EraseRequest))],
) -> Response:
    """Erases."""
    asked = Erase(
        subject=body.subject, who=who, why=body.why, effects=body.effects, dry_run=body.dry_run, timeout_s=body.timeout
    )  # fmt: skip
    ports: Ports = ports_of(request)
    return await answered(request, ports.keeping.erase(asked))
