"""`mplp workflow state`: an execution as it was at any past moment, folded from its log up to there."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli import frame
from services.cli.workflow_options import IdArgument
from services.processes import offline
from streams.bus import connect
from streams.errors import NotFound


@frame.command
async def state(
    id: IdArgument,
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="As it was then (RFC 3339, inclusive); default: now.")] = None,
    sequence: Annotated[
        int | None,
        typer.Option("--sequence", metavar="N", min=1, help="As it was after its transition number N; see `workflow show --json`."),
    ] = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """An execution as it was at any moment: status, steps, results, what it waited for."""
    async with connect() as bus:
        view = offline.fold([transition async for transition in bus.transitions(id, until=at, sequence=sequence)])
    if not view:
        raise NotFound("execution.unknown", f"There is no execution {id!r}{'' if at is None else f' that had begun by {at}'}.")
    execution = {name: value for name, value in view.items() if name != "steps"}
    found = {"at": at, "sequence": sequence, "execution": execution, "steps": view["steps"]}
    frame.say(found, as_json=as_json, text=lambda: offline.timeline(view))
