"""`mplp modules`: what modules there are, what they offer, and calls of their operations."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli import frame, modules_messages
from services.cli.parameters import object_of
from services.processes.offline import OPERATIONS, describe_module, registered_modules
from streams import limits
from streams.bus import connect
from streams.durations import parse_duration_ms
from streams.errors import InvalidInput, NotFound, Unavailable

app = typer.Typer(no_args_is_help=True, help="List the modules, call their operations, and send messages between them.")
app.command()(modules_messages.send)
app.command()(modules_messages.broadcast)
app.command()(modules_messages.subscribe)

BUILT_IN = "built-in"
REGISTERED = "registered"


@app.command("list")
@frame.command
async def list_(as_json: frame.JsonFlag = False) -> None:
    """Modules and their operations: the built-in ones, and users' modules that ever registered.

    Without a server only the built-in ones are known; that is said on stderr.
    """
    rows: list[dict[str, Any]] = [
        {"module": name, "kind": BUILT_IN, "operations": list(operations)} for name, operations in OPERATIONS.items()
    ]
    try:
        registered = await _registered()
    except (Unavailable, InvalidInput) as error:
        frame.progress(f"Only the built-in modules: {error.message}")
        registered = {}
    rows += [
        {"module": name, "kind": REGISTERED, "operations": list(found["operations"]), "registered_at": found["registered_at"]}
        for name, found in sorted(registered.items())
    ]
    frame.say(
        rows,
        as_json=as_json,
        text=lambda: frame.table(
            [(row["module"], row["kind"], ", ".join(row["operations"])) for row in rows], ["module", "kind", "operations"]
        ),
    )


@app.command()
@frame.command
async def show(name: Annotated[str, typer.Argument(help="Name of a module.")], as_json: frame.JsonFlag = False) -> None:
    """A module's operations with the JSON Schemas of their parameters and results."""
    operations = describe_module(name)
    shown: dict[str, Any] = {"module": name, "kind": BUILT_IN, "operations": operations}
    if operations is None:
        found = (await _registered()).get(name)
        if found is None:
            raise NotFound("module.unknown", f"There is no module {name}.", advice="`mplp modules list` names those that there are.")
        shown = {**found, "kind": REGISTERED}
    frame.say(shown, as_json=as_json, text=lambda: _text_of(shown))


@app.command()
@frame.command
async def call(
    module: Annotated[str, typer.Argument(help="Name of a module.")],
    operation: Annotated[str, typer.Argument(help="Name of one of its operations.")],
    parameters: Annotated[str, typer.Option(help="JSON object, @FILE, or @- for stdin.")] = "{}",
    home: Annotated[str | None, typer.Option(help="Key of the story that it belongs to; without: a story of its own.")] = None,
    timeout: Annotated[str, typer.Option(help="How long to wait for the answer: 500ms, 30s, 5m.")] = "30s",
    as_json: frame.JsonFlag = False,
) -> None:
    """Call an operation and print its result. Exit code 1 if the module refuses."""
    given = object_of(parameters)
    seconds = parse_duration_ms(timeout) / 1000
    async with connect() as bus:
        result = await bus.call_module(module, operation, given, home=home, timeout=seconds)
    frame.say(result, as_json=as_json, text=lambda: frame.json_text(result, indent=True))


async def _registered() -> dict[str, dict[str, Any]]:
    async with connect() as bus:
        return registered_modules(await bus.history(type="module.registered", limit=limits.QUERY_ROWS_MAX))


def _text_of(shown: dict[str, Any]) -> str:
    rows = [
        (name, _fields(operation.get("parameters")), operation.get("description", "")) for name, operation in shown["operations"].items()
    ]
    heading = f"{shown['module']} ({shown['kind']})" + (f": {shown['description']}" if shown.get("description") else "")
    return f"{heading}\n\n" + frame.table(rows, ["operation", "parameters", ""]) + "\n\nWith --json: the JSON Schemas."


def _fields(schema: Any) -> str:
    """Names of the fields of an object's schema; those that may be left out in brackets."""
    if not isinstance(schema, dict):
        return ""
    required = schema.get("required", [])
    return " ".join(name if name in required else f"[{name}]" for name in schema.get("properties", {}))
