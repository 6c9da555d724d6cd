"""`/v1/executions`: start, list, look, command. What an execution is, is folded from the log; the list comes from the history."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from services.gateway import cursors
from services.gateway.answers import Answer, ports_of
from services.gateway.bodies import ANY_OBJECT, body_of, describes, json_of
from services.gateway.keys import LOCAL, Role, requires
from services.gateway.ports import Start
from services.gateway.waiting import while_connected
from streams import limits
from streams.codec.avro import to_json
from streams.errors import InvalidDocument, InvalidInput, NotFound
from streams.records import Json, WorkflowTransition

router = APIRouter(tags=["executions"])

#: Seconds that `wait` waits at most; then the answer has the status reached by then.
WAIT_SECONDS_MAX = 300.0

ExecutionId = Annotated[
    str, Path(min_length=1, max_length=limits.ID_CHARACTERS_MAX, pattern=r"^[^\x00-\x1f\x7f]+$", description="Execution id.")
]


class StartExecution(BaseModel):
    """What starts an execution: a definition, or the id of a stored one."""

    model_config = ConfigDict(extra="forbid")

    definition: dict[str, Any] | None = Field(None, description="A workflow definition, bare or under `workflow`.")
    workflow: str | None = Field(None, min_length=1, max_length=limits.ID_CHARACTERS_MAX, description="Id of a stored workflow definition.")
    input: Any = Field(default_factory=dict, description="What `${input…}` refers to.")
    id: str | None = Field(
        None,
        min_length=1,
        max_length=limits.ID_CHARACTERS_MAX,
        pattern=r"^[^\x00-\x1f\x7f/]+$",
        description="Execution id; none: a new one.",
    )
    idempotency_key: str | None = Field(
        None, min_length=1, max_length=limits.ID_CHARACTERS_MAX, description="A second start with it answers with the first execution."
    )
    wait: bool | float = Field(
        False, description=f"Wait for the end: true ({WAIT_SECONDS_MAX:.0f} s at most), or seconds.", ge=0, le=WAIT_SECONDS_MAX
    )


@router.post(
    "/v1/executions",
    status_code=201,
    openapi_extra=describes(StartExecution),
    response_class=Answer,
    summary="Start an execution",
    description="Answers when the orchestrator has recorded the start. A repeat with the same `idempotency_key` (or the header "
    "`Idempotency-Key`), or the same `id`, answers with the execution that the first one started.",
)
async def start(
    request: Request,
    response: Response,
    by: Annotated[str, Depends(requires(Role.OPERATOR))],
    body: Annotated[StartExecution, Depends(body_of(StartExecution))],
    idempotency_key: Annotated[str | None, Header(max_length=limits.ID_CHARACTERS_MAX)] = None,
) -> Any:
    """Starts an execution."""
    ports = ports_of(request)
    if (body.definition is None) == (body.workflow is None):
        raise InvalidInput("body.invalid", "Give either `definition` or `workflow`.", pointer="/definition")
    if body.definition is not None:
        faults = ports.validate(body.definition)
        if faults:
            raise InvalidDocument("definition.invalid", f"The definition has {len(faults)} fault(s).", faults)
    given = Start(
        definition=body.definition,
        workflow=body.workflow,
        input=body.input,
        execution_id=body.id,
        idempotency_key=body.idempotency_key or idempotency_key,
    )
    wait_s = WAIT_SECONDS_MAX if body.wait is True else float(body.wait)
    begun = await while_connected(request, ports.executions.start(given, by=by, wait_s=wait_s))
    request.app.state.metrics.executions_started.inc()
    return Answer(
        {name: value for name, value in begun.items() if value is not None},
        status_code=201,
        headers={"Location": f"/v1/executions/{quote(begun['execution_id'], safe='')}"},
    )


async def _view(request: Request, execution_id: str, at: datetime | None = None, sequence: int | None = None) -> dict[str, Any]:
    ports = ports_of(request)
    view = ports.fold([transition async for transition in ports.executions.transitions(execution_id, until=at, sequence=sequence)])
    if not view:  # nothing is there, or only commands that were refused because nothing is there
        raise NotFound("execution.unknown", f"There is no execution {execution_id}{'' if at is None else ' that had begun then'}.")
    return view


@router.get(
    "/v1/executions",
    response_class=Answer,
    summary="List executions",
    dependencies=[Depends(requires(Role.READER))],
    description="From the history, newest first. The header `X-Mplp-Behind` says by how many records the history is behind the log.",
)
async def list_executions(
    request: Request,
    limit: cursors.Limit = cursors.PAGE,
    cursor: cursors.Cursor = None,
    status: Annotated[
        Literal["pending", "running", "paused", "completed", "failed", "cancelled", "timed_out"] | None, Query(description="Only those.")
    ] = None,
    workflow: Annotated[str | None, Query(max_length=limits.ID_CHARACTERS_MAX, description="Only executions of this workflow id.")] = None,
) -> Any:
    """A page of executions."""
    conditions, parameters = ["1 = 1"], dict[str, Any](limit=limit + 1)
    if status is not None:
        conditions.append("status = {status:String}")
        parameters["status"] = status
    if workflow is not None:
        conditions.append("workflow_id = {workflow:String}")
        parameters["workflow"] = workflow
    if cursor is not None:
        micros, last_id = cursors.decode(cursor, int, str)
        conditions.append("(toUnixTimestamp64Micro(started_at), execution_id) < ({micros:Int64}, {last_id:String})")
        parameters |= {"micros": micros, "last_id": last_id}
    rows = await while_connected(request, _all(request, LIST_SQL.format(where=" AND ".join(conditions)), parameters))
    next_cursor = (
        cursors.encode(int(rows[limit - 1]["started_micros"]), str(rows[limit - 1]["execution_id"])) if len(rows) > limit else None
    )
    items = [{name: value for name, value in row.items() if name != "started_micros"} for row in rows[:limit]]
    behind = ports_of(request).history.behind()
    return Answer(cursors.page(items, next_cursor), headers={} if behind is None else {"X-Mplp-Behind": str(behind)})


LIST_SQL = """
SELECT execution_id, workflow_id, status, started_at, ended_at, duration_ms, failed_steps,
  toUnixTimestamp64Micro(started_at) AS started_micros
FROM executions WHERE {where} ORDER BY started_micros DESC, execution_id DESC LIMIT {{limit:UInt32}}
"""


async def _all(request: Request, sql: str, parameters: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows = await ports_of(request).history.query(sql, parameters)
    try:
        return [row async for batch in rows.batches() for row in batch]
    finally:
        await rows.close()


@router.get(
    "/v1/executions/{execution_id}", response_class=Answer, summary="Show an execution", dependencies=[Depends(requires(Role.READER))]
)
async def show(request: Request, execution_id: ExecutionId) -> Any:
    """The execution and its steps, folded from the log: what is answered here is never behind."""
    return Answer(await while_connected(request, _view(request, execution_id)))


@router.get(
    "/v1/executions/{execution_id}/state",
    response_class=Answer,
    summary="Show an execution as it was",
    dependencies=[Depends(requires(Role.READER))],
    description="The execution at a past moment, folded from its log: up to `at` (RFC 3339 with offset) or `sequence`, both inclusive.",
)
async def state(
    request: Request,
    execution_id: ExecutionId,
    at: Annotated[AwareDatetime | None, Query(description="As it was then; default: now.")] = None,
    sequence: Annotated[int | None, Query(ge=1, description="As it was after its transition with this number.")] = None,
) -> Any:
    """The execution and its steps at a past moment."""
    return Answer(await while_connected(request, _view(request, execution_id, at, sequence)))


@router.get(
    "/v1/executions/{execution_id}/transitions",
    response_class=Answer,
    summary="List an execution's transitions",
    dependencies=[Depends(requires(Role.READER))],
    description="From the log, in order.",
)
async def transitions(
    request: Request, execution_id: ExecutionId, limit: cursors.Limit = cursors.PAGE, cursor: cursors.Cursor = None
) -> Any:
    """A page of transitions."""
    (after,) = cursors.decode(cursor, int) if cursor is not None else (0,)
    found, known = await while_connected(request, _page_of_transitions(request, execution_id, after, limit + 1))
    if not known:
        raise NotFound("execution.unknown", f"There is no execution {execution_id}.")
    next_cursor = cursors.encode(int(found[limit - 1].sequence or 0)) if len(found) > limit else None
    return Answer(cursors.page([to_json(transition) for transition in found[:limit]], next_cursor))


async def _page_of_transitions(request: Request, execution_id: str, after: int, count: int) -> tuple[list[WorkflowTransition], bool]:
    found: list[WorkflowTransition] = []
    known = False
    async for transition in ports_of(request).executions.transitions(execution_id):
        known = known or bool(transition.sequence)  # 0: a refused command to an execution that was not there
        if (transition.sequence or 0) > after:
            found.append(transition)
        if len(found) == count:
            break
    return found, known


@router.post(
    "/v1/executions/{execution_id}/{command}",
    response_class=Answer,
    summary="Command an execution",
    openapi_extra=ANY_OBJECT,
    description="The body is the command's data: `answer` takes `{step, choice, why?, value?}`, `signal` `{name, data?}`, `fork` "
    "`{step, id?, input?, definition?}`, the others `{why?}`. Answers when the command has taken effect, with the status after it (of a "
    "fork: that of the new execution, whose id is `forked`); 409 with the refusal's code if it is not allowed in this state.",
)
async def command(
    request: Request,
    execution_id: ExecutionId,
    command: Annotated[Literal["pause", "resume", "cancel", "signal", "answer", "retry", "fork"], Path(description="The command.")],
    by: Annotated[str, Depends(requires(Role.OPERATOR))],
    data: Annotated[Json, Depends(json_of)],
) -> Any:
    """Sends a command and waits for the transition that it causes."""
    if data is not None and not isinstance(data, dict):
        raise InvalidInput("body.invalid", "The data of a command is an object.", pointer="")
    transition = await while_connected(request, ports_of(request).executions.command(execution_id, command, signed(data or {}, by)))
    new = {"forked": transition.execution_id} if command == "fork" else {}
    return Answer({"execution_id": execution_id, "status": transition.status, "transition": to_json(transition), **new})


def signed(data: Mapping[str, Any], by: str) -> dict[str, Any]:
    """A command's data with who gives it: the key's name, which nobody may claim; without keys whom the caller names."""
    return {"by": by, **data} if by == LOCAL else {**data, "by": by}
