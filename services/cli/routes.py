"""`mplp routes`: routes in force, routes on trial, and what waits behind failures."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli import frame
from services.cli.documents import changes_text, heading, history_text
from services.cli.rules_options import FILE_HELP, Who, Why, load, opened, user
from streams.bus.bus import connect
from streams.control.changes import Stored, text_of
from streams.errors import Refused, Violation
from streams.records import to_micros
from streams.routing import control
from streams.routing.control import Applied
from streams.routing.lag import Lag, lag
from streams.routing.parked import parked
from streams.routing.parse import parse_route
from streams.routing.trial import Trial
from streams.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Apply, list, show, delete and try routes, and see what is parked.")

_ROUTE_FILE_HELP = FILE_HELP.replace("Rules", "Routes")
Files = Annotated[list[Path], typer.Argument(metavar="FILE…", help=_ROUTE_FILE_HELP, show_default=False)]
RouteId = Annotated[str, typer.Argument(metavar="ID", help="Id of the route.", show_default=False)]


@app.command("apply")
@frame.command
async def apply_routes(
    files: Files,
    why: Why = "",
    who: Who = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change, as a diff.")] = False,
    as_json: frame.JsonFlag = False,
) -> None:
    """Put routes in force, all or none. Creates destination topics that are missing; returns when every worker has the routes.

    An older version comes back with: mplp routes show ID --version N | mplp routes apply -
    """
    documents = [document for file in files for document in load(file)]
    control.check(documents, (), Settings().webhook_allowed())
    async with connect() as bus:
        if dry_run:
            planned = await control.plan(bus, documents)
            _warn(planned.warnings)
            frame.say(planned.to_dict(), as_json=as_json, text=lambda: changes_text(planned.changes))
            return
        applied = await control.apply(bus, documents, who or user(), why)
    _tell(applied, as_json=as_json)


@app.command("list")
@frame.command
async def list_routes(as_json: frame.JsonFlag = False) -> None:
    """The routes in force, also those that are held."""
    async with connect() as bus:
        stored = await control.DOCUMENTS.all(bus)
    rows = [_row(route) for route in stored]
    headers = ("id", "version", "topics", "destination", "order", "enabled", "title")
    shown = [[", ".join(row[name]) if name == "topics" else row[name] for name in headers] for row in rows]
    frame.say(rows, as_json=as_json, text=lambda: frame.table(shown, headers))


@app.command("show")
@frame.command
async def show_route(
    route_id: RouteId,
    number: Annotated[int | None, typer.Option("--version", help="This version instead of the one in force.", show_default=False)] = None,
    history: Annotated[bool, typer.Option("--history", help="All versions: who changed what, when and why.")] = False,
    as_json: frame.JsonFlag = False,
) -> None:
    """One route as it was applied, with version, who and why. The text is YAML that `routes apply` takes."""
    async with connect() as bus:
        if history:
            found = await control.DOCUMENTS.history(bus, route_id)
            frame.say([each.to_dict() for each in found], as_json=as_json, text=lambda: history_text(found))
            return
        behind = None
        if number is None:
            number = (await control.DOCUMENTS.show(bus, route_id)).record.version
            behind = await lag(bus, route_id)
        version = await control.DOCUMENTS.version(bus, route_id, number)
        warned = [] if behind is None else await control.warnings(bus, [version.document])
    said = [] if behind is None else [f"# {behind}", *_down(behind), *(f"# warning: {each.code}: {each.message}" for each in warned)]
    frame.say(
        {**version.to_dict(), "lag": None if behind is None else behind.to_dict(), "warnings": [each.to_dict() for each in warned]},
        as_json=as_json,
        text=lambda: "\n".join([heading(version), *said, text_of(version.document)]),
    )


@app.command("delete")
@frame.command
async def delete_route(route_id: RouteId, why: Why = "", who: Who = "", as_json: frame.JsonFlag = False) -> None:
    """Take a route out of force. What it had parked is not delivered any more; the event `route.abandoned` names it."""
    async with connect() as bus:
        report = await control.DOCUMENTS.delete(bus, route_id, who or user(), why)
    _tell(Applied(report=report, created=()), as_json=as_json)


@app.command("test")
@frame.command
async def try_routes(
    routes: Annotated[list[Path], typer.Argument(metavar="ROUTE…", help=_ROUTE_FILE_HELP, show_default=False)],
    events: Annotated[str, typer.Option("--events", help="Records as NDJSON; - is stdin.", show_default=False)],
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if a line is broken.")] = False,
    as_json: frame.JsonFlag = False,
) -> None:
    """Say, offline, what becomes of each record by each route, where it goes, and why not. Nothing is delivered."""
    documents = [document for file in routes for document in load(file)]
    control.check(documents, (), Settings().webhook_allowed())
    trial = Trial((parse_route(document) for document in documents), now_us=to_micros(datetime.now(UTC)))
    with sys.stdin.buffer if events == "-" else opened(Path(events)) as stream:
        for line in stream:
            _write(trial.line(line), as_json=as_json)
    summary = trial.summary
    for broken in summary.broken:
        frame.progress(str(broken))
    if as_json:
        frame.progress(frame.json_text(summary.to_dict()))
    else:
        told = ", ".join(f"{summary.outcomes[name]} {name}" for name in ("delivered", "filtered", "unmatched", "error"))
        frame.progress(f"{summary.records} records: {told}")
    if strict and summary.broken:
        raise Refused("records.broken", f"{summary.broken_count} lines are broken.", pointer=f"/{summary.broken[0].line}")


@app.command("parked")
@frame.command
async def parked_keys(
    route_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of the route; without it all.", show_default=False)] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many keys.", show_default=False)] = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Keys whose oldest record waits for its next attempt, and how many wait behind it; as the workers have written it down last."""
    async with connect() as bus:
        if route_id is not None:
            await control.DOCUMENTS.show(bus, route_id)
        found = [each.to_dict() for each in (await parked(bus, route_id))[:limit]]
    headers = ("route", "key", "topic", "partition", "offset", "waiting", "attempts", "code", "since", "next_attempt")
    frame.say(found, as_json=as_json, text=lambda: frame.table([[each[name] for name in headers] for each in found], headers))


def _write(told: Iterable[dict[str, Any]], *, as_json: bool) -> None:
    for each in told:
        frame.write(frame.json_text(each) if as_json else _line(each))


def _line(told: dict[str, Any]) -> str:
    about = f"{told['id']}  {told['route']}  {told['outcome']}"
    if told["outcome"] == "delivered":
        parameters = f"  {frame.json_text(told['parameters'])}" if "parameters" in told else ""
        record = told["record"]
        return f"{about} → {told['destination']}  {record['type']}  {frame.json_text(record['data'])}{parameters}"
    return f"{about}: {told['error']['code']}: {told['error']['message']}" if told["error"] else f"{about}: {told['why']}"


def _row(stored: Stored) -> dict[str, Any]:
    route = parse_route(stored.document)
    return {
        "id": route.id, "version": stored.record.version, "title": route.title, "topics": list(route.topics),
        "destination": route.destination.shown, "order": route.order, "enabled": route.enabled,
    }  # fmt: skip


def _down(behind: Lag) -> Iterator[str]:
    if behind.down is not None:
        told = behind.down.to_dict()
        yield f"# its destination is down since {told['since']} ({told['error']}); the next attempt is at {told['next_attempt']}"


def _warn(warnings: Iterable[Violation]) -> None:
    for each in warnings:
        frame.progress(f"warning: {each.code} at {each.pointer}: {each.message}")


def _tell(applied: Applied, *, as_json: bool) -> None:
    report = applied.report
    for topic in applied.created:
        frame.progress(f"created the topic {topic}")
    for worker in report.missing:
        frame.progress(f"warning: the worker {worker} has not said that it has this yet")
    if not report.reached and not report.missing and any(route.changed for route in report.documents):
        frame.progress("No worker is running; the change takes effect when one starts.")
    _warn(applied.warnings)
    text = "\n".join(f"{route.id} version {route.version}{'' if route.changed else ' (unchanged)'}" for route in report.documents)
    frame.say(applied.to_dict(), as_json=as_json, text=text)
