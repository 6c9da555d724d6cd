"""`mplp dlq`: dead letters, listed, shown, put back and purged."""

from __future__ import annotations

import logging
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import orjson
import typer

from services.cli import frame
from services.cli.moments import moment
from services.cli.rules_options import Who, Why, opened, user
from streams.bus.bus import connect
from streams.errors import InvalidInput, Refused
from streams.routing import dlq
from streams.routing.selection import LetterSelection

app = typer.Typer(no_args_is_help=True, help="List, show, put back and purge dead letters.")

Route = Annotated[str | None, typer.Option("--route", help="Letters of this route (or group of handlers).", show_default=False)]
Code = Annotated[str | None, typer.Option("--code", help="Letters with this error code.", show_default=False)]
Key = Annotated[str | None, typer.Option("--key", help="Letters of this Kafka key.", show_default=False)]
Topic = Annotated[str | None, typer.Option("--topic", help="Letters of records of this topic.", show_default=False)]
Since = Annotated[str | None, typer.Option("--since", help="Letters at this time or later (RFC 3339, or 2h ago).", show_default=False)]
Until = Annotated[str | None, typer.Option("--until", help="Letters before this time (RFC 3339, or 2h ago).", show_default=False)]
Where = Annotated[
    str | None,
    typer.Option("--where", help="CEL over the record, and `letter` (route, code, key, attempts, …).", show_default=False),
]
Ids = Annotated[list[str] | None, typer.Option("--id", help="This letter (may be repeated).", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many are meant.")]

#: Seconds between two lines of progress.
_PROGRESS_S = 2.0
_EDIT_BYTES_MAX = 8 * 1024 * 1024


def _selection(
    route: str | None, code: str | None, key: str | None, topic: str | None, since: str | None, until: str | None, where: str | None,
    ids: list[str] | None,
) -> LetterSelection:  # fmt: skip
    return LetterSelection(
        route=route, code=code, key=key, topic=topic, since=_time(since), until=_time(until), where=where,
        ids=frozenset(ids) if ids else None,
    )  # fmt: skip


def _time(text: str | None) -> datetime | None:
    return None if text is None else moment(text)


@app.command("list")
@frame.command
async def list_letters(
    route: Route = None, code: Code = None, key: Key = None, topic: Topic = None, since: Since = None, until: Until = None,
    where: Where = None, ids: Ids = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest.", show_default=False)] = None,
    as_json: frame.JsonFlag = False,
) -> None:  # fmt: skip
    """The dead letters that were neither put back nor purged, by topic and partition, the oldest first."""
    selection = _selection(route, code, key, topic, since, until, where, ids)
    found: list[dict[str, Any]] = []
    async with connect() as bus, aclosing(dlq.letters(bus, selection)) as letters:
        async for letter in letters:
            found.append(letter.to_dict())
            if limit is not None and len(found) == limit:
                break
    headers = ("id", "route", "key", "code", "attempts", "first_time", "message")
    shown = [[str(each[name])[:80] if each[name] is not None else "" for name in headers] for each in found]
    frame.say(found, as_json=as_json, text=lambda: frame.table(shown, headers))


@app.command("show")
@frame.command
async def show_letter(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the letter: topic/partition/offset.", show_default=False)],
    as_json: frame.JsonFlag = False,
) -> None:
    """A dead letter: its record, what went wrong, how often and when, and what became of it."""
    async with connect() as bus:
        found = await dlq.show(bus, letter_id)
    frame.say(found, as_json=as_json, text=lambda: _letter_text(found))


@app.command("redrive")
@frame.command
async def redrive_letters(
    route: Route = None, code: Code = None, key: Key = None, topic: Topic = None, since: Since = None, until: Until = None,
    where: Where = None, ids: Ids = None, dry_run: DryRun = False,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Letters per second at most.", show_default=False)] = None,
    edit: Annotated[
        str | None,
        typer.Option("--edit", help="JSON or @file: fields of the event that replace those of the record; one letter.", show_default=False),
    ] = None,
    why: Why = "", who: Who = "", as_json: frame.JsonFlag = False,
) -> None:  # fmt: skip
    """Put dead letters back, in order, each once: to the route or group that gave them up.

    Stopped in the middle, it can be run again: what was put back is not put back twice. Without a filter all letters are meant.
    """
    selection = _selection(route, code, key, topic, since, until, where, ids)
    _quiet_client()
    async with connect() as bus:
        report = await dlq.redrive(
            bus, selection, who=who or user(), why=why, dry_run=dry_run, rate=rate, edit=None if edit is None else _edit(edit),
            progress=_Progress("put back"),
        )  # fmt: skip
    for refused in report.refused:
        frame.progress(f"{refused['id']}: {refused['code']}: {refused['message']}")
    told = f"{report.matched} matched, " + ("nothing was put back (dry run)" if dry_run else f"{report.redriven} put back")
    frame.say(report.to_dict(), as_json=as_json, text=told + (f", {report.refused_count} refused" if report.refused_count else ""))
    if report.refused_count and not report.redriven and not dry_run:
        raise typer.Exit(frame.EXIT_REFUSED)


@app.command("purge")
@frame.command
async def purge_letters(
    route: Route = None, code: Code = None, key: Key = None, topic: Topic = None, since: Since = None, until: Until = None,
    where: Where = None, ids: Ids = None,
    everything: Annotated[bool, typer.Option("--all", help="Needed where no filter is given.")] = False,
    dry_run: DryRun = False, why: Why = "", who: Who = "", as_json: frame.JsonFlag = False,
) -> None:  # fmt: skip
    """Settle dead letters without putting them back: they are no longer listed. They stay readable until retention takes them."""
    selection = _selection(route, code, key, topic, since, until, where, ids)
    if selection.everything and not everything:
        raise Refused("dlq.purge-all", "Without a filter this would purge every dead letter.", advice="Say --all if that is meant.")
    _quiet_client()
    async with connect() as bus:
        report = await dlq.purge(bus, selection, who=who or user(), why=why, dry_run=dry_run)
    told = f"{report['matched']} matched, " + ("nothing was purged (dry run)" if dry_run else f"{report['purged']} purged")
    frame.say(report, as_json=as_json, text=told)


class _Progress:
    """How many so far, at once and then now and then: of a slow redrive each batch would be a line."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._said_s = float("-inf")

    def __call__(self, done: int) -> None:
        if monotonic() - self._said_s >= _PROGRESS_S:
            self._said_s = monotonic()
            frame.progress(f"{done} {self._what} …")


def _quiet_client() -> None:
    """Commands that meet overtake each other: that is in order, and the client library's traces of it only confuse."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def _edit(text: str) -> dict[str, Any]:
    if text.startswith("@"):
        with opened(Path(text[1:])) as stream:
            content: bytes | str = stream.read(_EDIT_BYTES_MAX)
    else:
        content = text
    try:
        found = orjson.loads(content)
    except ValueError as error:
        raise InvalidInput("json.invalid", f"--edit is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise InvalidInput("event.not-object", "--edit is an object with fields of the event.")
    return found


def _letter_text(found: dict[str, Any]) -> str:
    lines = [f"{name:<12}{found[name]}" for name in ("id", "route", "stage", "code", "message", "attempts", "first_time", "time", "key")]
    lines.append(f"{'record':<12}{found['topic']}/{found['partition']}/{found['offset']} ({found['bytes']} bytes)")
    if found["settled"]:
        lines.append(f"{'settled':<12}{found['settled']}")
    for past in found["history"]:
        edited = ", edited" if past.get("edited") else ""
        failed = f"{past.get('code')}, {past.get('attempts')} attempts"
        lines.append(f"{'before':<12}{past.get('time')}  {failed}, put back by {past.get('who')}{edited}")
    body = "it cannot be read" if found["record"] is None else frame.json_text(found["record"], indent=True)
    return "\n".join([*lines, "", body])
