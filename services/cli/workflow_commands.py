"""Commands to one execution: `mplp workflow cancel|pause|resume|answer|signal|retry|fork`. A refusal ends with its code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from services.cli import frame
from services.cli.workflow_files import read_text
from services.cli.workflow_options import ByOption, IdArgument, WhyOption, parse_json, user, who
from services.processes import offline
from streams.bus import connect
from streams.records import Json


@frame.command
async def cancel(id: IdArgument, by: ByOption = None, why: WhyOption = None, as_json: frame.JsonFlag = False) -> None:
    """Cancel an execution: what runs or waits ends at once, then its compensations run."""
    await give(id, "cancel", who(by, why), as_json=as_json)


@frame.command
async def pause(id: IdArgument, by: ByOption = None, why: WhyOption = None, as_json: frame.JsonFlag = False) -> None:
    """Pause an execution: nothing new starts, what runs may end."""
    await give(id, "pause", who(by, why), as_json=as_json)


@frame.command
async def resume(id: IdArgument, by: ByOption = None, why: WhyOption = None, as_json: frame.JsonFlag = False) -> None:
    """Go on with a paused execution."""
    await give(id, "resume", who(by, why), as_json=as_json)


@frame.command
async def answer(
    id: IdArgument,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The step that waits for an answer.")],
    choice: Annotated[str, typer.Option("--choice", help="One of the choices offered, e.g. retry, skip, use-value, fail.")],
    by: ByOption = None,
    why: WhyOption = None,
    value: Annotated[str | None, typer.Option("--value", metavar="JSON", help="The value of the choice use-value.")] = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Answer the question of a step that waits for people."""
    data = {"step": step, "choice": choice, **who(by, why)}
    if value is not None:
        data["value"] = parse_json(value, "--value")
    await give(id, "answer", data, as_json=as_json)


@frame.command
async def signal(
    id: IdArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The signal's name.")],
    data: Annotated[str | None, typer.Option("--data", metavar="JSON", help="Its payload, the result of the step that takes it.")] = None,
    by: ByOption = None,
    why: WhyOption = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Send a signal: to the step that waits for its name, else it is kept until one does."""
    payload = {} if data is None else {"data": parse_json(data, "--data")}
    await give(id, "signal", {"name": name, **payload, **who(by, why)}, as_json=as_json)


@frame.command
async def retry(id: IdArgument, by: ByOption = None, why: WhyOption = None, as_json: frame.JsonFlag = False) -> None:
    """Have a failed execution go on: what failed or was cancelled runs again, what completed stays."""
    await give(id, "retry", who(by, why), as_json=as_json)


@frame.command
async def fork(
    id: IdArgument,
    step: Annotated[str, typer.Option("--step", metavar="STEP", help="The step before which the fork begins.")],
    fork_id: Annotated[str | None, typer.Option("--id", help="The new execution's id; a second fork with it finds the first.")] = None,
    input: Annotated[str | None, typer.Option("--input", metavar="JSON", help="Another input.")] = None,
    definition: Annotated[
        Path | None, typer.Option("--definition", metavar="FILE", help="Another definition, JSON or YAML; - reads stdin.")
    ] = None,
    by: ByOption = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Start a new execution with the results before a step, optionally with another input or definition."""
    changed = {} if input is None else {"input": parse_json(input, "--input")}
    document = None if definition is None else offline.read_document(read_text(definition))
    async with connect() as bus:
        new = await bus.fork_workflow(id, step, fork_id=fork_id, definition=document, by=by or user(), **changed)
    frame.say({"execution_id": new, "forked_from": id, "step": step}, as_json=as_json, text=f"{new}: forked from {id} before {step}")


async def give(execution_id: str, command: str, data: Mapping[str, Json], *, as_json: bool) -> None:
    """Sends a command and says what the execution is after it."""
    async with connect() as bus:
        transition = await bus.command(execution_id, command, dict(data))
    found = {"execution_id": execution_id, "command": command, "status": transition.status, "transition": transition.type}
    frame.say(found, as_json=as_json, text=f"{execution_id}: {command} done, {transition.status}")
