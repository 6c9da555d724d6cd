"""`mplp history verify`: compares the topics with the tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from services.cli import frame
from services.cli.history_calls import offset_or_time, report_of
from streams.durations import parse_duration_ms

Topics = Annotated[list[str] | None, typer.Option("--topic", metavar="TOPIC", help="Only this topic; may be repeated.", show_default=False)]

_BOUND = "an offset of every partition, a time (of Kafka), or a duration back from now, e.g. 24h."


@frame.command
async def verify(
    topic: Topics = None,
    since: Annotated[str | None, typer.Option("--from", metavar="WHERE", help=f"Begin: {_BOUND}", show_default=False)] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="WHERE", help="End, exclusive; likewise.", show_default=False)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only that every offset is there, once; not what it says.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long the sink may take to catch up.")] = "60s",
    as_json: frame.JsonFlag = False,
) -> None:
    """Compare topics and tables: is every offset in the history, once, and does its row say what the record says?

    Says `exact`, or what differs and where; exit code 1 if not exact. Works while events flow: it looks at what was there when it began.
    """
    body = {
        "topics": topic or [], "from": offset_or_time(since), "to": offset_or_time(until), "quick": quick,
        "timeout": parse_duration_ms(timeout) / 1000,
    }  # fmt: skip
    report = await report_of("/v1/history/verify", body, _line)
    frame.say(report, as_json=as_json, text=lambda: "\n".join(lines(report)))
    if not report["exact"]:
        raise typer.Exit(frame.EXIT_REFUSED)


def _line(progress: Mapping[str, Any]) -> str:
    done, of = int(progress["done"]), int(progress["of"])
    match progress["phase"]:
        case "waiting":
            return "Waiting for the sink to reach the ends of the topics."
        case "topics":
            return f"{done:,} of {of:,} offsets read ({100 * done // max(of, 1)} %), now {progress['topic']}"
        case "tables":
            return f"Reading the tables: {progress['topic']} ({done + 1} of {of} topics)"
        case _:
            return f"Comparing: {progress['topic']}"


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """What a person reads: a line per topic, then what differs, then the verdict."""
    headers = ("topic", "partitions", "offsets", "rows", "log records", "verdict")
    rows = [
        [
            each["topic"], len(each["partitions"]), f"{each['offsets']:,}", f"{each['rows']:,}", f"{each['log_records']:,}",
            "exact" if each["exact"] else "behind" if each["pending"] and not _differs(each) else "differs",
        ]
        for each in report["topics"]
    ]  # fmt: skip
    yield frame.table(rows, headers)
    for place in report["differences"]:
        at = f"{place['first']}" if place["offsets"] == 1 else f"{place['first']} to {place['end'] - 1} ({place['offsets']:,} offsets)"
        detail = f": {place['detail']}" if place["detail"] else ""
        yield f"{place['kind']}  {place['topic']}/{place['partition']} at {at}{detail}"
    if report["differences_left_off"]:
        yield f"… and {report['differences_left_off']:,} more"
    for gone in report["absent"]:
        yield f"note: {gone['topic']}/{gone['partition']} is not on the broker; its {gone['rows']:,} rows were not compared"
    if report["expired"]:
        yield f"note: {report['expired']:,} offsets are beyond the history's retention; they were not compared"
    if report["erased"]:
        yield f"note: the payloads of {report['erased']:,} rows were erased; they are as an erasure leaves them"
    yield _verdict(report)


def _differs(topic: Mapping[str, Any]) -> bool:
    return any(part[kind] for part in topic["partitions"] for kind in ("missing", "duplicate", "stray", "changed"))


def _verdict(report: Mapping[str, Any]) -> str:
    partitions = sum(len(each["partitions"]) for each in report["topics"])
    what = f"{report['offsets']:,} offsets of {partitions} partitions"
    how = "each there once; contents not compared" if report["quick"] else f"{report['compared']:,} of them compared with the topics"
    match report["verdict"]:
        case "exact":
            return f"exact: {what}, {how} ({report['seconds']:.1f} s)"
        case "behind":
            return f"behind: the sink has {report['pending']:,} offsets to go; the other {what} are exact. Wait longer with --timeout."
        case _:
            return f"not exact: {what} in {report['seconds']:.1f} s"
