"""`/v1/workflows`: published workflow definitions, as JSON or YAML documents. A start may name them by id."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from services.gateway import bodies, cursors, documents
from services.gateway.answers import Answer, ports_of
from services.gateway.keys import Role, requires
from services.gateway.waiting import while_connected
from streams import limits
from streams.errors import InvalidDocument, Violation
from streams.records import Json

router = APIRouter(tags=["workflows"])

WorkflowId = Annotated[str, Path(min_length=1, max_length=limits.ID_CHARACTERS_MAX, description="Workflow id.")]
Why = Annotated[str, Query(max_length=1000, description="Why; kept with the change.")]

_BODY = documents.described("workflow definition")


async def definitions_of(request: Request) -> list[Json]:
    """A dependency: the definitions of the body. Raises `InvalidInput` (`yaml.invalid`, `body.invalid`, …)."""
    return await documents.read(request, "workflow definition")


@router.get("/v1/workflows", response_class=Answer, summary="List workflows", dependencies=[Depends(requires(Role.READER))])
async def list_workflows(request: Request, limit: cursors.Limit = cursors.PAGE, cursor: cursors.Cursor = None) -> Any:
    """A page of the published definitions, ordered by id, each with what starts it by itself (`triggers`) and its schedules' next times."""
    (after,) = cursors.decode(cursor, str) if cursor is not None else ("",)
    stored = await while_connected(request, ports_of(request).workflows.list())
    found = [workflow for workflow in stored if str(workflow["id"]) > after]
    next_cursor = cursors.encode(str(found[limit - 1]["id"])) if len(found) > limit else None
    return Answer(cursors.page(found[:limit], next_cursor))


@router.get("/v1/workflows/{workflow_id}", response_class=Answer, summary="Show a workflow", dependencies=[Depends(requires(Role.READER))])
async def show(request: Request, workflow_id: WorkflowId) -> Any:
    """The newest definition that was published with this id, with who, when and why."""
    return Answer(await while_connected(request, ports_of(request).workflows.show(workflow_id)))


@router.post(
    "/v1/workflows",
    response_class=Answer,
    summary="Publish workflows",
    openapi_extra=bodies.describes(**_BODY),
    description="Checks the definitions whole, publishes them under their ids, and answers when every core has them, or says which have "
    "not (`missing`). What runs keeps the content that it was started with.",
)
async def apply(
    request: Request,
    who: Annotated[str, Depends(requires(Role.OPERATOR))],
    definitions: Annotated[list[Any], Depends(definitions_of)],
    why: Why = "",
) -> Any:
    """Publishes definitions: all or, if one has a fault, none."""
    ports = ports_of(request)
    faults: list[Violation] = []
    for place, document in enumerate(definitions):
        at = f"/{place}" if len(definitions) > 1 else ""
        faults += [Violation(code=fault.code, pointer=at + fault.pointer, message=fault.message) for fault in ports.validate(document)]
    if faults:
        raise InvalidDocument("definition.invalid", f"There are {len(faults)} fault(s).", faults)
    return Answer({"workflows": await while_connected(request, ports.workflows.apply(definitions, who=who, why=why))})


@router.delete("/v1/workflows/{workflow_id}", response_class=Answer, summary="Delete a workflow")
async def delete(request: Request, workflow_id: WorkflowId, who: Annotated[str, Depends(requires(Role.OPERATOR))], why: Why = "") -> Any:
    """Takes a definition back: nothing starts it by its id any more. What runs goes on."""
    return Answer(await while_connected(request, ports_of(request).workflows.delete(workflow_id, who=who, why=why)))
