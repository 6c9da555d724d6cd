"""`mplp workflow show` and `graph` of an execution: what its log says, once or as it happens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from services.cli import frame
from services.cli.workflow_files import read_definition
from services.cli.workflow_options import IdArgument
from services.processes import offline
from streams.bus import Bus, connect, workflows
from streams.codec.avro import to_json
from streams.errors import NotFound
from streams.records import WorkflowTransition

#: How often a watched timeline is drawn anew, seconds: times go on though nothing happens.
REDRAW_S = 0.5


class GraphFormat(StrEnum):
    """Languages of `workflow graph`."""

    MERMAID = "mermaid"
    DOT = "dot"


@frame.command
async def show(
    id: IdArgument,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it to its end; not in a terminal, a line for each transition.")] = False,
    as_json: frame.JsonFlag = False,
) -> None:
    """An execution: a timeline of its steps; with --json also every transition."""
    async with connect() as bus:
        transitions = await _transitions(bus, id)
        if watch:
            await _watch(bus.transitions(id, follow=True), as_json=as_json)
            return
    view = offline.fold(transitions)
    execution = {name: value for name, value in view.items() if name != "steps"}
    found = {"execution": execution, "steps": view["steps"], "transitions": [to_json(transition) for transition in transitions]}
    frame.say(found, as_json=as_json, text=lambda: offline.timeline(view, datetime.now(UTC)))


async def _transitions(bus: Bus, execution_id: str) -> list[WorkflowTransition]:
    """All of them so far. Raises `NotFound` (`execution.unknown`)."""
    found = [transition async for transition in bus.transitions(execution_id)]
    if not any(transition.type == "execution.started" for transition in found):
        raise NotFound("execution.unknown", f"There is no execution {execution_id!r}.")
    return found


# --- watching ---------------------------------------------------------------------------------------------------------


async def _watch(transitions: AsyncIterator[WorkflowTransition], *, as_json: bool) -> None:
    """In a terminal a timeline that is drawn again and again; else each transition as a line, at once."""
    console = Console(highlight=False)
    if as_json or not console.is_terminal:
        async for transition in transitions:
            frame.write(frame.json_text(to_json(transition)) if as_json else progress_line(transition))
        return
    seen: list[WorkflowTransition] = []

    def drawing() -> Text:
        return Text(offline.timeline(offline.fold(seen), datetime.now(UTC)), no_wrap=True, overflow="ellipsis")

    async def redraw(live: Live) -> None:
        while True:
            live.update(drawing(), refresh=True)
            await asyncio.sleep(REDRAW_S)

    with Live(console=console, auto_refresh=False, transient=True) as live:
        drawer = asyncio.create_task(redraw(live))
        try:
            async for transition in transitions:
                seen.append(transition)
                if drawer.done():
                    break  # it has failed: what it raised is raised below
        finally:
            drawer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await drawer
    frame.write(offline.timeline(offline.fold(seen), datetime.now(UTC)))


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


# --- drawing ----------------------------------------------------------------------------------------------------------


@frame.command
async def graph(
    file: Annotated[str, typer.Argument(metavar="FILE|ID", help="A definition (JSON or YAML; - reads stdin), or the id of an execution.")],
    format: Annotated[GraphFormat, typer.Option("--format", help="The language of the drawing.")] = GraphFormat.MERMAID,
    as_json: frame.JsonFlag = False,
) -> None:
    """Draw a definition as a graph of its steps; of an execution with the status of each step as its colour."""
    statuses: Mapping[str, str] | None = None
    if _is_file(file):
        definition = read_definition(Path(file))
    else:
        definition, statuses = await _execution(file)
    drawing = offline.draw(definition, format.value, statuses)
    frame.say({"format": format.value, "graph": drawing}, as_json=as_json, text=drawing)


def _is_file(name: str) -> bool:
    return name == "-" or Path(name).suffix in (".json", ".yaml", ".yml") or Path(name).is_file()


async def _execution(execution_id: str) -> tuple[offline.Definition, dict[str, str]]:
    """The definition that an execution runs, and the status of each of its steps by instance."""
    async with connect() as bus:
        view: dict[str, Any] = offline.fold(await _transitions(bus, execution_id))
        document = await workflows.pinned(bus, view["workflow_id"], view["definition_hash"])
    return offline.parse_valid(document), {name: step["status"] for name, step in view["steps"].items()}
