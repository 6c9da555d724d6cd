"""`/v1/modules`: which modules there are, and calls of their operations."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from services.gateway import cursors
from services.gateway.answers import Answer, ports_of
from services.gateway.bodies import ANY_OBJECT, json_of
from services.gateway.keys import Role, requires
from services.gateway.waiting import while_connected
from streams import limits
from streams.errors import InvalidInput
from streams.records import Json

router = APIRouter(tags=["modules"])

Name = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=limits.ID_CHARACTERS_MAX)]


@router.get("/v1/modules", response_class=Answer, summary="List modules", dependencies=[Depends(requires(Role.READER))])
async def list_modules(request: Request) -> Any:
    """Modules, how they are, and their operations; they are few and come on one page.

    They look as in the shell and in Python: `module`, `kind` (`built-in`, `registered`), …; `name` and `built_in` say the same.
    `status` is `serving`, `draining`, `stopped`, `silent` (no process of it lives) or `unknown` (no core answers); `instances` are the
    living processes of a module that runs elsewhere, each with `lease_until` and what it says of itself.
    """
    return Answer(cursors.page(await ports_of(request).modules.list(), None))


@router.get("/v1/modules/{module}", response_class=Answer, summary="Show a module", dependencies=[Depends(requires(Role.READER))])
async def show(request: Request, module: Name) -> Any:
    """A module as in the list, with the JSON Schemas of its operations' parameters and results."""
    return Answer(await ports_of(request).modules.show(module))


@router.post(
    "/v1/modules/{module}/{operation}",
    response_class=Answer,
    summary="Call a module's operation",
    dependencies=[Depends(requires(Role.PRODUCER))],
    openapi_extra=ANY_OBJECT,
    description="The body is the operation's parameters; the answer is `{result}`, or a problem with the module's code.",
)
async def call(
    request: Request,
    module: Name,
    operation: Name,
    parameters: Annotated[Json, Depends(json_of)],
    home: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=limits.ID_CHARACTERS_MAX,
            description="Key under which the aggregate lives; none: derived by the module.",
        ),
    ] = None,
    timeout: Annotated[float, Query(gt=0, le=60, description="Seconds to wait for the answer.")] = 10.0,
) -> Any:
    """Calls an operation."""
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidInput("body.invalid", "The parameters are an object.", pointer="")
    work = ports_of(request).modules.call(module, operation, parameters or {}, home=home, timeout=timeout)
    return Answer({"result": await while_connected(request, work)})
