"""`/v1/dlq`: dead letters, listed, shown, put back and purged."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field

from services.gateway import bodies, cursors
from services.gateway.answers import Answer, ports_of
from services.gateway.keys import Role, requires
from streams import limits
from streams.bus.validate import parse_time
from streams.errors import Refused
from streams.routing.selection import LetterSelection

router = APIRouter(tags=["dead letters"])

_TEXT = limits.NAME_CHARACTERS_MAX


class Selected(BaseModel):
    """Which letters are meant: all conditions that are given must hold."""

    model_config = ConfigDict(extra="forbid")

    route: str | None = Field(None, max_length=_TEXT, description="Letters of this route, or group of handlers.")
    code: str | None = Field(None, max_length=_TEXT, description="Letters with this error code.")
    key: str | None = Field(None, max_length=_TEXT, description="Letters of this Kafka key.")
    topic: str | None = Field(None, max_length=_TEXT, description="Letters of records of this topic.")
    since: str | None = Field(None, max_length=64, description="Letters at this time (RFC 3339) or later.")
    until: str | None = Field(None, max_length=64, description="Letters before this time (RFC 3339).")
    where: str | None = Field(None, max_length=limits.EXPRESSION_CHARACTERS_MAX, description="CEL over the record, and `letter`.")
    ids: list[str] | None = Field(None, min_length=1, max_length=10_000, description="These letters.")

    def selection(self) -> LetterSelection:
        """As the dead letters take it. Raises `InvalidInput` (`time.invalid`)."""
        return LetterSelection(
            route=self.route, code=self.code, key=self.key, topic=self.topic,
            since=_time("since", self.since), until=_time("until", self.until), where=self.where,
            ids=None if self.ids is None else frozenset(self.ids),
        )  # fmt: skip


class Purge(Selected):
    """What is to be purged."""

    dry_run: bool = Field(False, description="Only say how many are meant.")
    all: bool = Field(False, description="Needed where no condition is given.")


class Redrive(Selected):
    """What is to be put back."""

    dry_run: bool = Field(False, description="Only say how many are meant.")
    rate: float | None = Field(None, gt=0, description="Letters per second at most.")
    edit: dict[str, Any] | None = Field(None, description="Fields of the event that replace those of the record; of a single letter.")


Why = Annotated[str, Query(max_length=1000, description="Why; kept with the event that tells of it.")]


RedriveBody = Annotated[Redrive, Depends(bodies.body_of(Redrive))]
PurgeBody = Annotated[Purge, Depends(bodies.body_of(Purge))]


@router.get("/v1/dlq", response_class=Answer, summary="List dead letters", dependencies=[Depends(requires(Role.READER))])
async def list_letters(
    request: Request,
    route: Annotated[str | None, Query(max_length=_TEXT, description="Of this route, or group of handlers.")] = None,
    code: Annotated[str | None, Query(max_length=_TEXT, description="With this error code.")] = None,
    key: Annotated[str | None, Query(max_length=_TEXT, description="Of this Kafka key.")] = None,
    topic: Annotated[str | None, Query(max_length=_TEXT, description="Of records of this topic.")] = None,
    since: Annotated[str | None, Query(max_length=64, description="At this time (RFC 3339) or later.")] = None,
    until: Annotated[str | None, Query(max_length=64, description="Before this time (RFC 3339).")] = None,
    where: Annotated[
        str | None, Query(max_length=limits.EXPRESSION_CHARACTERS_MAX, description="CEL over the record, and `letter`.")
    ] = None,
    limit: cursors.Limit = cursors.PAGE,
    cursor: cursors.Cursor = None,
) -> Any:
    """A page of the dead letters that were neither put back nor purged."""
    (after,) = cursors.decode(cursor, str) if cursor is not None else ("",)
    selected = Selected(route=route, code=code, key=key, topic=topic, since=since, until=until, where=where, ids=None)
    found = await ports_of(request).letters.list(selected.selection(), after=after, limit=limit + 1)
    next_cursor = cursors.encode(str(found[limit - 1]["id"])) if len(found) > limit else None
    return Answer(cursors.page(found[:limit], next_cursor))


@router.get(
    "/v1/dlq/{topic}/{partition}/{offset}",
    response_class=Answer,
    summary="Show a dead letter",
    dependencies=[Depends(requires(Role.READER))],
    description="Its record, what went wrong, how often and when, its earlier failures, and what became of it. The path is its id.",
)
async def show(
    request: Request,
    topic: Annotated[str, PathParameter(max_length=300, description="Topic of dead letters.")],
    partition: Annotated[int, PathParameter(ge=0, description="Partition.")],
    offset: Annotated[int, PathParameter(ge=0, description="Offset.")],
) -> Any:
    """One letter."""
    return Answer(await ports_of(request).letters.show(f"{topic}/{partition}/{offset}"))


@router.post(
    "/v1/dlq/redrive",
    response_class=Answer,
    summary="Put dead letters back",
    openapi_extra=bodies.describes(Redrive),
    description="To the route or group that gave them up, in order, each once; stopped in the middle, it can be run again. An event says "
    "who did it.",
)
async def redrive(
    request: Request,
    who: Annotated[str, Depends(requires(Role.OPERATOR))],
    body: RedriveBody,
    why: Why = "",
) -> Any:
    """Puts letters back."""
    port = ports_of(request).letters
    return Answer(await port.redrive(body.selection(), who=who, why=why, dry_run=body.dry_run, rate=body.rate, edit=body.edit))


@router.post(
    "/v1/dlq/purge",
    response_class=Answer,
    summary="Purge dead letters",
    openapi_extra=bodies.describes(Purge),
    description="They are no longer listed or put back. They stay readable until retention takes them.",
)
async def purge(
    request: Request,
    who: Annotated[str, Depends(requires(Role.OPERATOR))],
    body: PurgeBody,
    why: Why = "",
) -> Any:
    """Purges letters."""
    selection = body.selection()
    if selection.everything and not body.all:
        raise Refused("dlq.purge-all", "Without a condition this would purge every dead letter.", advice="Say all: true if that is meant.")
    return Answer(await ports_of(request).letters.purge(selection, who=who, why=why, dry_run=body.dry_run))


def _time(name: str, text: str | None) -> datetime | None:
    return None if text is None else parse_time(text, name)
