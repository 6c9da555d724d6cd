"""`mplp workflow apply|definitions|delete`: definitions published under their ids."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli import frame
from services.cli.workflow_files import read_text
from services.cli.workflow_options import ByOption, WhyOption, user
from services.processes import offline
from streams.bus import connect
from streams.errors import InvalidDocument, Violation

WorkflowArgument = Annotated[str, typer.Argument(metavar="ID", help="The workflow's id.")]


@frame.command
async def apply(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Workflow definitions, JSON or YAML; - reads stdin.")],
    by: ByOption = None,
    why: WhyOption = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Publish definitions under their ids. All are checked first; returns when every core has them, or says which has not."""
    documents, faults = [], list[Violation]()
    for place, file in enumerate(files):
        document = offline.read_document(read_text(file))
        at = f"/{place}" if len(files) > 1 else ""
        found = offline.validate(document, offline.AnyModule(offline.OPERATIONS))
        faults += [Violation(code=fault.code, pointer=at + fault.pointer, message=fault.message) for fault in found]
        documents.append(document)
    if faults:
        raise InvalidDocument("definition.invalid", f"There are {len(faults)} faults.", faults)
    async with connect() as bus:
        applied = await bus.apply_workflow(documents, by=by or user(), why=why or "")
    for core in applied[0].missing:
        frame.progress(f"warning: {core} has not said that it has this yet")
    lines = [f"{each.id} revision {each.revision}{'' if each.changed else ' (unchanged)'}" for each in applied]
    frame.say({"workflows": [each.to_dict() for each in applied]}, as_json=as_json, text="\n".join(lines))


@frame.command
async def definitions(
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only this one, whole.")] = None, as_json: frame.JsonFlag = False
) -> None:
    """The published definitions, with what starts each by itself and the next time of its schedules; with an ID the whole document."""
    async with connect() as bus:
        stored = [await bus.workflow(id)] if id is not None else await bus.workflows()
    found: Any = [each.to_dict() for each in stored]
    if id is not None:
        frame.say(found[0], as_json=as_json, text=lambda: frame.json_text(found[0]["definition"], indent=True))
        return
    headers = ["id", "version", "revision", "who", "time", "triggers"]
    rows = [[*(each[name] for name in headers[:-1]), "; ".join(map(trigger_text, each["triggers"]))] for each in found]
    frame.say(found, as_json=as_json, text=lambda: frame.table(rows, headers))


def trigger_text(shown: Mapping[str, Any]) -> str:
    """A trigger in a line, as `definitions` prints it."""
    if "event" in shown:
        return f"event {shown['event']}" + (f" where {shown['where']}" if "where" in shown else "")
    return f"cron {shown['cron']} {shown['timezone']}, next {shown['next'] or 'never'}"


@frame.command
async def delete(id: WorkflowArgument, by: ByOption = None, why: WhyOption = None, as_json: frame.JsonFlag = False) -> None:
    """Take a published definition back: nothing starts it by its id any more. What runs goes on."""
    async with connect() as bus:
        gone = await bus.delete_workflow(id, by=by or user(), why=why or "")
    frame.say(gone.to_dict(), as_json=as_json, text=f"{gone.id} is deleted (revision {gone.revision})")
