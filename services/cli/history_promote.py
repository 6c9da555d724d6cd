"""`mplp history promote`: paths of payloads as columns of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from services.cli import frame
from services.cli.history_calls import report_of
from streams.bus.sql import Sql
from streams.errors import InvalidInput
from streams.settings import Settings


@frame.command
async def promote(
    path: Annotated[
        str | None,
        typer.Argument(metavar="PATH", help="Such as data.amount, data.order.total, 'data.`unit price`'.", show_default=False),
    ] = None,
    table: Annotated[str, typer.Option("--table", metavar="TABLE", help="The table.")] = "system_events",
    type: Annotated[
        str | None,
        typer.Option("--type", metavar="TYPE", help="Float64, Int64, UInt64, Bool, String, LowCardinality(String), DateTime64, Array(…); "
                     "none: that of the stored values.", show_default=False),
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Show the promoted columns.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take the column away; payloads stay as they are.")] = False,
    why: Annotated[str, typer.Option("--why", help="Reason, kept with the event that tells of it.")] = "",
    as_json: frame.JsonFlag = False,
) -> None:  # fmt: skip
    """Make a path of payloads a typed column, with an index where one helps: queries read it instead of whole payloads.

    It can be asked by its name at once, and is filled in the background; Ctrl-C leaves that to go on, asked again it is waited for. It
    stays through restarts, upgrades and rebuilds. A value of another type is NULL.
    """
    if listing or path is None:
        if not listing or path is not None:
            raise InvalidInput("promote.one-of", "Say the PATH, or --list.")
        await _list(as_json=as_json)
        return
    if remove and type is not None:
        raise InvalidInput("promote.one-of", "--type has no meaning with --remove.")
    if remove:
        report = await report_of("/v1/history/demote", {"path": path, "table": table, "why": why}, _line)
        frame.say(report, as_json=as_json, text=f"{report['column']} of {report['table']} is removed.")
        return
    report = await report_of("/v1/history/promote", {"path": path, "table": table, "type": type, "why": why}, _line)
    frame.say(report, as_json=as_json, text=lambda: "\n".join(lines(report)))


async def _list(*, as_json: bool) -> None:
    asking = Sql(Settings())
    try:
        items = (await asking.get("/v1/history/promoted"))["items"]
    finally:
        await asking.close()
    frame.say(items, as_json=as_json, text=lambda: frame.table([_row(item) for item in items], HEADERS) if items else "(none)")


HEADERS = ("table", "column", "path", "type", "index", "rows", "bytes", "state")


def _row(item: Mapping[str, Any]) -> list[str]:
    share = 100 * item["rows_done"] // max(item["rows"], 1)
    return [
        item["table"], item["column"], item["path"], item["type"], item["index"] or "", f"{item['rows']:,}", f"{item['bytes']:,}",
        "ready" if item["ready"] else f"{share} % of the rows",
    ]  # fmt: skip


def _line(progress: Mapping[str, Any]) -> str:
    match progress["phase"]:
        case "type":
            return "Looking for the type of the stored values."
        case "materialising":
            done, of = int(progress["done"]), int(progress["of"])
            fault = f"; ClickHouse tries again: {progress['fault']}" if progress.get("fault") else ""
            return f"{done:,} of {of:,} rows have it ({100 * done // max(of, 1)} %){fault}"
        case _:
            return "Counting the values."


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """What a person reads."""
    index = f" with an index ({report['index']})" if report["index"] else ""
    head = "is" if report["created"] else "was already"
    yield f"{report['path']} {head} {report['column']} of {report['table']}, {report['type']}{index}."
    yield f"{report['values']:,} of {report['rows']:,} rows have a value ({report['seconds']:.1f} s)."
    if report["unlike"]:
        yield f"In {report['unlike']:,} rows the payload's value is of another type: there it is NULL, or an empty array."
