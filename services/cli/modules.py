"""`mplp modules`: what modules there are, what they offer, and calls of their operations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer

from services.cli import frame, modules_messages, modules_state
from services.cli.parameters import object_of
from services.processes.offline import OPERATIONS, describe_module, registered_modules, summary_of_module
from streams import limits
from streams.bus import connect
from streams.bus.messages import HUB
from streams.bus.modules import row_of
from streams.durations import parse_duration_ms
from streams.errors import InvalidInput, NotFound, Unavailable

app = typer.Typer(no_args_is_help=True, help="List the modules, call their operations, and send messages between them.")
app.command()(modules_messages.send)
app.command()(modules_messages.broadcast)
app.command()(modules_messages.subscribe)
app.command()(modules_state.state)
app.command()(modules_state.checksum)
app.command()(modules_state.rebuild)

BUILT_IN = "built-in"
REGISTERED = "registered"


@app.command("list")
@frame.command
async def list_(
    kind: Annotated[str | None, typer.Option(help="Only built-in or registered ones.")] = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Modules, how they are, and their operations: the built-in ones, and users' modules that ever registered.

    A users' module is `silent` when no process of it lives: each holds a lease of 30 s. Without a server only the built-in ones are known,
    and without a core how they are is not; that is said on stderr.
    """
    if kind not in (None, BUILT_IN, REGISTERED):
        raise InvalidInput("kind.invalid", f"A kind is {BUILT_IN} or {REGISTERED}, not {kind!r}.")
    rows = [row for row in await _rows() if kind in (None, row["kind"])]
    frame.say(
        rows,
        as_json=as_json,
        text=lambda: frame.table(
            [(row["module"], row["kind"], _health(row), ", ".join(row["operations"])) for row in rows],
            ["module", "kind", "status", "operations"],
        ),
    )


@app.command()
@frame.command
async def show(name: Annotated[str, typer.Argument(help="Name of a module.")], as_json: frame.JsonFlag = False) -> None:
    """A module's operations, its processes with their leases, and (with --json) the JSON Schemas of parameters and results."""
    operations = describe_module(name)
    if operations is None:
        shown = await _registered_one(name)
    else:
        shown = {"module": name, "kind": BUILT_IN, "description": summary_of_module(name), "operations": operations}
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


async def _rows() -> list[dict[str, Any]]:
    """All modules; of those that nobody can tell how they are the status is `unknown`."""
    try:
        async with connect() as bus:
            try:
                return await bus.modules()
            except Unavailable as error:
                frame.progress(f"How modules are is not known: {error.message}")
                registered = registered_modules(await bus.history(type="module.registered", limit=limits.QUERY_ROWS_MAX))
    except (Unavailable, InvalidInput) as error:
        frame.progress(f"Only the built-in modules: {error.message}")
        registered = {}
    built_in = [_unknown(name, BUILT_IN, summary_of_module(name), operations, None) for name, operations in OPERATIONS.items()]
    others = [
        _unknown(name, REGISTERED, found.get("description", ""), found["operations"], found["registered_at"])
        for name, found in registered.items()
    ]
    return sorted([*built_in, *others], key=lambda row: str(row["module"]))


def _unknown(name: str, kind: str, description: str, operations: Iterable[str], registered_at: Any) -> dict[str, Any]:
    return {
        "module": name, "kind": kind, "status": "unknown", "description": description, "operations": list(operations), "instances": [],
        "registered_at": registered_at,
    }  # fmt: skip


async def _registered_one(name: str) -> dict[str, Any]:
    """What a users' module offers and how it is. Raises `NotFound` (`module.unknown`)."""
    async with connect() as bus:
        try:
            found: Any = await bus.call_module(HUB, "get", {"module": name}, home=HUB, timeout=5.0)
        except Unavailable as error:
            frame.progress(f"How it is is not known: {error.message}")
            told = registered_modules(await bus.history(type="module.registered", limit=limits.QUERY_ROWS_MAX)).get(name)
            if told is None:
                raise NotFound(
                    "module.unknown", f"There is no module {name}.", advice="`mplp modules list` names those that there are."
                ) from error
            return {**_unknown(name, REGISTERED, told.get("description", ""), (), told["registered_at"]), "operations": told["operations"]}
    return {**row_of(found), "operations": found["operations"]}


def _health(row: Mapping[str, Any]) -> str:
    count = len(row["instances"])
    return f"{row['status']}, {count} process{'' if count == 1 else 'es'}" if count else str(row["status"])


def _text_of(shown: dict[str, Any]) -> str:
    heading = f"{shown['module']} ({shown['kind']})" + (f": {shown['description']}" if shown.get("description") else "")
    parts = [heading]
    if shown["kind"] == REGISTERED:
        parts.append("\n".join([_health(shown), *map(_instance, shown["instances"])]))
    parts.append("\n".join(line for name, operation in shown["operations"].items() for line in _operation(name, operation)))
    example = next(iter(shown["operations"]), None)
    if example is not None:
        given = ", ".join(f'"{name}": …' for name in _required(shown["operations"][example].get("parameters")))
        parts.append(f"For example: mplp modules call {shown['module']} {example}" + (f" --parameters '{{{given}}}'" if given else ""))
    parts.append("Parameters in brackets may be left out. With --json: the JSON Schemas of parameters and results.")
    return "\n\n".join(parts)


def _operation(name: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"{name}: {operation['description']}" if operation.get("description") else name
    fields = _fields(operation.get("parameters"))
    if fields:
        yield f"    {fields}"


def _instance(each: Mapping[str, Any]) -> str:
    detail = each["detail"]
    told = ", ".join(f"{name} {value}" for name, value in detail.items() if value is not False) if isinstance(detail, Mapping) else ""
    lease = f"lease until {each['lease_until']}" if each["lease_until"] else "no lease"
    return f"  {each['instance']}  {lease}" + (f"  {told}" if told else "")


def _required(schema: Any) -> list[str]:
    return list(schema.get("required", [])) if isinstance(schema, Mapping) else []


def _fields(schema: Any) -> str:
    """Names of the fields of an object's schema; those that may be left out in brackets."""
    if not isinstance(schema, dict):
        return ""
    required = schema.get("required", [])
    return " ".join(name if name in required else f"[{name}]" for name in schema.get("properties", {}))
