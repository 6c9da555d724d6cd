"""`mplp events`: produce, follow and look back at system events, or at the records of any other topic."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from services.cli import frame, records
from services.cli.moments import moment
from streams.bus import connect
from streams.bus.lines import Report, produce_lines
from streams.errors import InvalidInput
from streams.topics import SYSTEM_EVENTS

app = typer.Typer(no_args_is_help=True, help="Produce, follow and look back at system events.")

_PIECE_BYTES = 1024 * 1024
#: Events between two lines of progress.
_PROGRESS_EVENTS = 100_000


@app.command()
@frame.command
async def produce(
    file: Annotated[Path | None, typer.Argument(help="NDJSON file; - or none: standard input.", show_default=False)] = None,
    topic: Annotated[str, typer.Option(help="A topic whose records are system events.")] = SYSTEM_EVENTS,
    as_json: frame.JsonFlag = False,
) -> None:
    """Publishes one event per line of JSON: at least `type`; also id, source, subject, time, data, severity, correlation_id, ….

    Lines that are refused are named with number, code and message; the others are kept. Exit code 1 if any was refused.
    """
    report = Report()
    with _opened(file) as stream:
        async with connect() as bus:
            try:
                await produce_lines(bus.publisher, _watched(_pieces(stream), report), topic, report)
            finally:
                if report.accepted or report.rejected_count:
                    frame.progress(f"{report.accepted} accepted, {report.rejected_count} rejected")
    frame.say(report.to_dict(), as_json=as_json, text=lambda: _text(report))
    if report.rejected_count:
        raise typer.Exit(frame.EXIT_REFUSED)


@app.command()
@frame.command
async def tail(
    topic: Annotated[str, typer.Option(help="Logical name of any topic.")] = SYSTEM_EVENTS,
    filter: records.Filter = None,
    begin: records.From = "now",
    count: records.Count = None,
    timeout: records.Timeout = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Follows a topic: one record a line, decoded, as it comes. Ends after --count records or --timeout, with exit code 0."""
    await records.follow(topic, where=filter, since=begin, count=count, timeout=timeout, as_json=as_json, line=records.event_line)


@app.command()
@frame.command
async def history(
    type: Annotated[str | None, typer.Option(help="Glob over the type: order.*, **.failed.")] = None,
    source: Annotated[str | None, typer.Option(help="Glob over the source.")] = None,
    subject: Annotated[str | None, typer.Option(help="Exactly this subject.")] = None,
    correlation_id: Annotated[str | None, typer.Option("--correlation-id", help="Exactly this story.")] = None,
    since: Annotated[str | None, typer.Option(help="At this time or later (RFC 3339, or 2h ago).")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time (RFC 3339, or 2h ago).")] = None,
    filter: records.Filter = None,
    topic: Annotated[list[str] | None, typer.Option(help="Topics to look in (may be repeated); default: all topics of events.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the oldest.")] = 1000,
    after: Annotated[str | None, typer.Option(help="Go on behind the page that said so.", show_default=False)] = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Records that match, oldest first, read from the topics themselves. If there are more, stderr says how to go on."""
    wanted: dict[str, Any] = {"topics": topic} if topic else {}
    async with connect() as bus:
        found = await bus.history_page(
            type=type,
            source=source,
            subject=subject,
            correlation_id=correlation_id,
            since=since and moment(since),
            until=until and moment(until),
            where=filter,
            limit=limit,
            after=after,
            **wanted,
        )
    records.say_all(found.records, as_json=as_json)
    if found.next is not None:
        frame.progress(f"there are more: --after {found.next}")


def _opened(file: Path | None) -> BinaryIO:
    """The input as a raw stream. Standard input stays open when the command ends."""
    if file is None or str(file) == "-":
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    try:
        return open(file, "rb", buffering=0)
    except OSError as error:
        raise InvalidInput("file.unreadable", f"{file} cannot be read: {error.strerror or error}.") from error


async def _pieces(stream: BinaryIO) -> AsyncIterator[bytes]:
    """What the input has, as soon as it has it."""
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        while piece := stream.read(_PIECE_BYTES):
            yield piece
        return
    # A pipe or a terminal may make us wait: the loop must live on meanwhile, and Ctrl-C must end the wait.
    reader = asyncio.StreamReader(limit=_PIECE_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stream)
    try:
        while piece := await reader.read(_PIECE_BYTES):
            yield piece
    finally:
        transport.close()


async def _watched(pieces: AsyncIterator[bytes], report: Report) -> AsyncIterator[bytes]:
    """The same pieces, with a line of progress now and then."""
    said = 0
    async for piece in pieces:
        yield piece
        if report.accepted - said >= _PROGRESS_EVENTS:
            said = report.accepted
            frame.progress(f"{report.accepted} accepted, {report.rejected_count} rejected …")


def _text(report: Report) -> str:
    lines = [f"accepted {report.accepted}, rejected {report.rejected_count}"]
    for refusal in report.rejected:
        where = f" (at {refusal['pointer']})" if "pointer" in refusal else ""
        lines.append(f"  line {refusal['line']}: {refusal['code']}: {refusal['message']}{where}")
    if report.rejected_count > len(report.rejected):
        lines.append(f"  … and {report.rejected_count - len(report.rejected)} more")
    return "\n".join(lines)
