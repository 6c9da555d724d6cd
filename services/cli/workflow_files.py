"""`mplp workflow` without a server: definitions are checked, drawn and tried out under scenarios. `workflow.py` gives these their names."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli import frame
from services.processes import offline
from streams.errors import InvalidInput

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Workflow definition, JSON or YAML; - reads stdin.")]


class GraphFormat(StrEnum):
    """Languages of `workflow graph`."""

    MERMAID = "mermaid"
    DOT = "dot"


@frame.command
async def validate(
    file: FileArgument,
    modules: Annotated[
        Path | None, typer.Option("--modules", metavar="FILE", help="More modules: name → list of operations (null: any), JSON or YAML.")
    ] = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Check a definition and list all its faults. Exit code 1 if there is one."""
    operations = {**offline.OPERATIONS, **(read_modules(modules) if modules else {})}
    try:
        faults = [fault.to_dict() for fault in offline.validate(offline.read_document(read_text(file)), operations)]
    except InvalidInput as error:
        faults = [{"code": error.code, "pointer": "", "message": error.message}]
    frame.say({"valid": not faults, "faults": faults}, as_json=as_json, text=lambda: _faults_text(file, faults))
    if faults:
        raise typer.Exit(frame.EXIT_REFUSED)


def _faults_text(file: Path, faults: list[dict[str, str]]) -> str:
    if not faults:
        return f"{file} is valid."
    lines = [f"{fault['code']:<24} {fault['pointer'] or '/'}\n    {fault['message']}" for fault in faults]
    return "\n".join([*lines, f"{file} has {len(faults)} fault{'s' if len(faults) > 1 else ''}."])


@frame.command
async def graph(
    file: FileArgument,
    format: Annotated[GraphFormat, typer.Option("--format", help="The language of the drawing.")] = GraphFormat.MERMAID,
    as_json: frame.JsonFlag = False,
) -> None:
    """Draw a definition as a graph of its steps."""
    definition = read_definition(file)
    drawing = offline.draw(definition, format.value)
    frame.say({"format": format.value, "graph": drawing}, as_json=as_json, text=drawing)


@frame.command
async def try_(
    file: FileArgument,
    scenario: Annotated[
        Path, typer.Option("--scenario", metavar="SCENARIO", help="Input, answers of modules, commands at virtual times, what is expected.")
    ],
    as_json: frame.JsonFlag = False,
) -> None:
    """Run a definition without servers, with a virtual clock. Exit code 1 if the scenario expected something else."""
    outcome = offline.run_scenario(offline.read_document(read_text(file)), offline.read_document(read_text(scenario)))
    frame.say(outcome, as_json=as_json, text=lambda: _outcome_text(outcome))
    if outcome.get("differences"):
        raise typer.Exit(frame.EXIT_REFUSED)


def _outcome_text(outcome: Mapping[str, Any]) -> str:
    took = f" after {outcome['duration_ms']} ms" if outcome["duration_ms"] is not None else ""
    rows = [(name, step["status"], step["attempts"], (step["error"] or {}).get("code")) for name, step in outcome["steps"].items()]
    lines = [f"{outcome['status']}{took}", "", frame.table(rows, ["step", "status", "attempts", "error"])]
    for difference in outcome.get("differences", ()):
        expected, actual = frame.json_text(difference["expected"]), frame.json_text(difference["actual"])
        lines.append(f"{difference['path'] or '/'}: expected {expected}, got {actual}")
    return "\n".join(lines)


def read_text(file: Path) -> str:
    """The text of a file, or of stdin for `-`. Raises `InvalidInput` (`file.unreadable`)."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("file.unreadable", f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def read_modules(file: Path) -> Mapping[str, Collection[str]]:
    """Operations by module from a file. Raises `InvalidInput` (`modules.invalid`)."""
    document = offline.read_document(read_text(file))
    if isinstance(document, dict) and set(document) == {"modules"}:
        document = document["modules"]
    if not isinstance(document, dict) or not all(
        value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value)) for value in document.values()
    ):
        raise InvalidInput("modules.invalid", f"{file} is not a map of module names to lists of operations.")
    return {name: offline.AnyOperation() if value is None else tuple(value) for name, value in document.items()}


def read_definition(file: Path) -> offline.Definition:
    """The definition in a file, whatever modules it uses. Raises `InvalidDocument` with all faults."""
    return offline.parse(offline.read_document(read_text(file)), offline.AnyModule())
