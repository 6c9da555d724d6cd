"""`/v1/routes`: the routes, as JSON or YAML documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from services.gateway import bodies, cursors, documents
from services.gateway.answers import Answer, ports_of
from services.gateway.keys import Role, requires
from streams import limits
from streams.records import Json

router = APIRouter(tags=["routes"])

RouteId = Annotated[str, Path(min_length=1, max_length=limits.ID_CHARACTERS_MAX, description="Route id.")]
Why = Annotated[str, Query(max_length=1000, description="Why; kept with the change.")]


async def documents_of(request: Request) -> list[Json]:
    """A dependency: the routes of the body. Raises `InvalidInput` (`yaml.invalid`, `body.invalid`, …)."""
    return await documents.read(request, "route")


@router.get(
    "/v1/routes",
    response_class=Answer,
    summary="List routes",
    dependencies=[Depends(requires(Role.READER))],
    description="Each with `lag`, as it was a few seconds ago: `records` that wait, `seconds` since the oldest arrived, `parked` keys, "
    "and `down` while the destination is left alone: `since`, `next_attempt`, `error`.",
)
async def list_routes(request: Request, limit: cursors.Limit = cursors.PAGE, cursor: cursors.Cursor = None) -> Any:
    """A page of routes, ordered by id."""
    (after,) = cursors.decode(cursor, str) if cursor is not None else ("",)
    found = [route for route in await ports_of(request).routes.list() if str(route["id"]) > after]
    next_cursor = cursors.encode(str(found[limit - 1]["id"])) if len(found) > limit else None
    return Answer(cursors.page(found[:limit], next_cursor))


@router.get(
    "/v1/routes/{route_id}",
    response_class=Answer,
    summary="Show a route",
    dependencies=[Depends(requires(Role.READER))],
    description="The route in force with its `lag` and `warnings`, or a version of it.",
)
async def show(
    request: Request,
    route_id: RouteId,
    version: Annotated[int | None, Query(ge=1, description="This version instead of the one in force.")] = None,
) -> Any:
    """One route."""
    return Answer(await ports_of(request).routes.show(route_id, version))


@router.get(
    "/v1/routes/{route_id}/history",
    response_class=Answer,
    summary="Versions of a route",
    dependencies=[Depends(requires(Role.READER))],
    description="Every version, oldest first: content, who made it, when and why; also of a route that was deleted.",
)
async def history(request: Request, route_id: RouteId) -> Any:
    """The versions of a route."""
    return Answer({"items": await ports_of(request).routes.history(route_id), "next": None})


@router.get(
    "/v1/routes/{route_id}/parked",
    response_class=Answer,
    summary="Parked keys of a route",
    dependencies=[Depends(requires(Role.READER))],
    description="Keys whose oldest record waits for its next attempt: how often it was tried, why it failed, when it is tried again, and "
    "about how many records wait behind it. By topic and partition, the oldest first.",
)
async def parked(request: Request, route_id: RouteId, limit: cursors.Limit = cursors.PAGE, cursor: cursors.Cursor = None) -> Any:
    """What waits behind failures."""
    after = cursors.decode(cursor, str, int, int) if cursor is not None else ["", -1, -1]
    found = [(_place(each), each) for each in await ports_of(request).routes.parked(route_id)]
    found = [(place, each) for place, each in found if place > after]
    next_cursor = cursors.encode(*found[limit - 1][0]) if len(found) > limit else None
    return Answer(cursors.page([each for _, each in found[:limit]], next_cursor))


def _place(parked_key: Mapping[str, Any]) -> list[Any]:
    return [parked_key["topic"], parked_key["partition"], parked_key["offset"]]


@router.post(
    "/v1/routes",
    response_class=Answer,
    summary="Apply routes",
    openapi_extra=bodies.describes(**documents.described("route")),
    description="Stores the routes, all or none, creates missing destination topics, and answers when every worker uses the routes, "
    "or says which do not. With `dry_run` it only says what would change.",
)
async def apply(
    request: Request,
    who: Annotated[str, Depends(requires(Role.OPERATOR))],
    routes: Annotated[list[Any], Depends(documents_of)],
    why: Why = "",
    dry_run: Annotated[bool, Query(description="Only say what would change, as a diff.")] = False,
) -> Any:
    """Applies routes."""
    port = ports_of(request).routes
    return Answer(await port.plan(routes) if dry_run else await port.apply(routes, who=who, why=why))


@router.delete("/v1/routes/{route_id}", response_class=Answer, summary="Delete a route")
async def delete(request: Request, route_id: RouteId, who: Annotated[str, Depends(requires(Role.OPERATOR))], why: Why = "") -> Any:
    """Deletes a route."""
    return Answer(await ports_of(request).routes.delete(route_id, who=who, why=why))
