"""`mplp workflow`: validate, run, watch and command workflow executions. What an execution is, is folded from its log, never SQL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli import frame, workflow_commands, workflow_definitions, workflow_files, workflow_show, workflow_state
from services.cli.workflow_files import read_text
from services.cli.workflow_options import ByOption, parse_json, user
from services.cli.workflow_show import progress_line
from services.processes import offline
from streams.bus import connect
from streams.errors import InvalidDocument
from streams.records import ExecutionStatus

app = typer.Typer(no_args_is_help=True, help="Validate, run, watch and command workflow executions.")
app.command("validate")(workflow_files.validate)
app.command("graph")(workflow_show.graph)
app.command("test")(workflow_files.try_)
app.command("show")(workflow_show.show)
app.command("apply")(workflow_definitions.apply)
app.command("definitions")(workflow_definitions.definitions)
app.command("delete")(workflow_definitions.delete)


@app.command()
@frame.command
async def run(
    workflow: Annotated[
        str, typer.Argument(metavar="FILE|ID", help="A definition (JSON or YAML; - reads stdin), or the id of a published one.")
    ],
    input: Annotated[str, typer.Option("--input", metavar="JSON", help="The execution's input.")] = "{}",
    id: Annotated[str | None, typer.Option("--id", help="The execution's id; a second run with the same id finds the first.")] = None,
    key: Annotated[
        str | None, typer.Option("--idempotency-key", metavar="KEY", help="A second run of the workflow with the same key finds the first.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 0 only if it completed.")] = False,
    by: ByOption = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Start a workflow; with --wait follow it to its end."""
    what = _named(workflow)
    async with connect() as bus:
        result = await bus.run_workflow(
            what,
            parse_json(input, "--input"),
            wait=wait,
            execution_id=id,
            idempotency_key=key,
            by=by or user(),
            on_transition=lambda transition: frame.progress(progress_line(transition)),
        )
    frame.say(result, as_json=as_json, text=lambda: _result_text(result))
    if wait and result["status"] != "completed":
        raise typer.Exit(frame.EXIT_REFUSED)


#: What a workflow's id looks like; whatever else is named is a file.
_ID = re.compile(r"[\w-]+")


def _named(workflow: str) -> Mapping[str, Any] | str:
    """The definition in a file, or the id of a published one. Raises `InvalidDocument` with all faults, `InvalidInput`."""
    if workflow != "-" and _ID.fullmatch(workflow) and not Path(workflow).exists():
        return workflow
    document = offline.read_document(read_text(Path(workflow)))
    faults = offline.validate(document, offline.AnyModule())
    if faults:
        raise InvalidDocument("definition.invalid", f"{workflow} has {len(faults)} faults.", faults)
    return document  # type: ignore[no-any-return]  # a valid definition is an object


def _result_text(result: Mapping[str, Any]) -> str:
    lines = [
        f"{result['execution_id']} {result['status']}"
        + (f" in {result['duration_ms']} ms" if result.get("duration_ms") is not None else "")
    ]
    if result.get("error"):
        lines.append(f"{result['error'].get('code')}: {result['error'].get('message')}")
    if result.get("output") is not None:
        lines.append(frame.json_text(result["output"], indent=True))
    return "\n".join(lines)


@app.command("list")
@frame.command
async def list_(
    status: Annotated[ExecutionStatus | None, typer.Option("--status", help="Only executions with this status.")] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only executions of this workflow.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many, the newest first.")] = 50,
    as_json: frame.JsonFlag = False,
) -> None:
    """The newest executions, from the history."""
    sql = (
        "SELECT execution_id, workflow_id, status, started_at, ended_at, duration_ms, failed_steps FROM executions"
        " WHERE ({status:String} = '' OR status = {status:String}) AND ({workflow:String} = '' OR workflow_id = {workflow:String})"
        " ORDER BY started_at DESC LIMIT {limit:UInt32}"
    )
    async with connect() as bus:
        rows = await bus.query(sql, {"status": status or "", "workflow": workflow or "", "limit": limit})
    columns = ["execution_id", "workflow_id", "status", "started_at", "duration_ms"]
    frame.say(rows, as_json=as_json, text=lambda: frame.table([[row[name] for name in columns] for row in rows], columns))


app.command("cancel")(workflow_commands.cancel)
app.command("pause")(workflow_commands.pause)
app.command("resume")(workflow_commands.resume)
app.command("answer")(workflow_commands.answer)
app.command("signal")(workflow_commands.signal)
app.command("retry")(workflow_commands.retry)
app.command("fork")(workflow_commands.fork)
app.command("state")(workflow_state.state)
