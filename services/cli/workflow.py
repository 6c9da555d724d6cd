"""`mplp workflow`: validate, run, watch and command workflow executions. What an execution is, is folded from its log, never SQL."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import typer

from services.cli import frame, workflow_files
from services.cli.workflow_files import FileArgument, read_text
from services.processes import offline
from streams.bus import connect
from streams.codec.avro import to_json
from streams.errors import InvalidDocument, InvalidInput, NotFound
from streams.records import Json, WorkflowTransition

app = typer.Typer(no_args_is_help=True, help="Validate, run, watch and command workflow executions.")
app.command("validate")(workflow_files.validate)
app.command("graph")(workflow_files.graph)
app.command("test")(workflow_files.try_)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The execution's id.")]
ByOption = Annotated[str | None, typer.Option("--by", help="Who wants it; default: the user of this machine.")]
WhyOption = Annotated[str | None, typer.Option("--why", help="The reason, kept with the decision.")]


@app.command()
@frame.command
async def run(
    file: FileArgument,
    input: Annotated[str, typer.Option("--input", metavar="JSON", help="The execution's input.")] = "{}",
    id: Annotated[str | None, typer.Option("--id", help="The execution's id; a second run with the same id finds the first.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 0 only if it completed.")] = False,
    by: ByOption = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Start a workflow; with --wait follow it to its end."""
    document = offline.read_document(read_text(file))
    faults = offline.validate(document, offline.AnyModule())
    if faults:
        raise InvalidDocument("definition.invalid", f"{file} has {len(faults)} faults.", faults)
    async with connect() as bus:
        result = await bus.run_workflow(
            document,
            parse_json(input, "--input"),
            wait=wait,
            execution_id=id,
            by=by or _user(),
            on_transition=lambda transition: frame.progress(progress_line(transition)),
        )
    frame.say(result, as_json=as_json, text=lambda: _result_text(result))
    if wait and result["status"] != "completed":
        raise typer.Exit(frame.EXIT_REFUSED)


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


def progress_line(transition: WorkflowTransition) -> str:
    """A transition as a line of progress: time, what happened, to which step."""
    data = transition.data if isinstance(transition.data, dict) else {}
    error = data.get("error")
    parts = [transition.time.strftime("%H:%M:%S.%f")[:-3], f"{transition.type:<22}", transition.step_id or ""]
    if transition.attempt > 1:
        parts.append(f"(attempt {transition.attempt})")
    if isinstance(error, dict):
        parts.append(f"{error.get('code')}: {error.get('message')}")
    return " ".join(parts).rstrip()


@app.command()
@frame.command
async def show(id: IdArgument, as_json: frame.JsonFlag = False) -> None:
    """An execution: a timeline of its steps; with --json also every transition."""
    async with connect() as bus:
        transitions = [transition async for transition in bus.transitions(id)]
    view = offline.fold(transitions)
    if not view:
        raise NotFound("execution.unknown", f"There is no execution {id!r}.")
    execution = {name: value for name, value in view.items() if name != "steps"}
    found = {"execution": execution, "steps": view["steps"], "transitions": [to_json(transition) for transition in transitions]}
    frame.say(found, as_json=as_json, text=lambda: offline.timeline(view))


@app.command("list")
@frame.command
async def list_(
    status: Annotated[str | None, typer.Option("--status", help="Only executions with this status.")] = None,
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


@app.command()
@frame.command
async def cancel(id: IdArgument, by: ByOption = None, why: WhyOption = None, as_json: frame.JsonFlag = False) -> None:
    """Cancel an execution: what runs or waits ends at once, then its compensations run."""
    await _command(id, "cancel", _who(by, why), as_json=as_json)


@app.command()
@frame.command
async def pause(id: IdArgument, by: ByOption = None, why: WhyOption = None, as_json: frame.JsonFlag = False) -> None:
    """Pause an execution: nothing new starts, what runs may end."""
    await _command(id, "pause", _who(by, why), as_json=as_json)


@app.command()
@frame.command
async def resume(id: IdArgument, by: ByOption = None, why: WhyOption = None, as_json: frame.JsonFlag = False) -> None:
    """Go on with a paused execution."""
    await _command(id, "resume", _who(by, why), as_json=as_json)


@app.command()
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
    data = {"step": step, "choice": choice, **_who(by, why)}
    if value is not None:
        data["value"] = parse_json(value, "--value")
    await _command(id, "answer", data, as_json=as_json)


async def _command(execution_id: str, command: str, data: Mapping[str, Json], *, as_json: bool) -> None:
    async with connect() as bus:
        transition = await bus.command(execution_id, command, dict(data))
    found = {"execution_id": execution_id, "command": command, "status": transition.status, "transition": transition.type}
    frame.say(found, as_json=as_json, text=f"{execution_id}: {transition.type} ({transition.status})")


def parse_json(text: str, option: str) -> Json:
    """The JSON value of an option. Raises `InvalidInput` (`input.malformed`)."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("input.malformed", f"{option} is not JSON: {error.msg} at column {error.colno}.") from error


def _who(by: str | None, why: str | None) -> dict[str, Json]:
    return {"by": by or _user(), **({"why": why} if why else {})}


def _user() -> str:
    """Who runs this command, as the operating system says."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in containers
        return "unknown"
