"""`mplp history rebuild`: makes the tables anew from the topics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from services.cli import frame
from services.cli.history_calls import report_of
from services.cli.history_verify import Topics
from streams.durations import parse_duration_ms


@frame.command
async def rebuild(
    topic: Topics = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the old tables under other names.")] = False,
    why: Annotated[str, typer.Option("--why", help="Reason, kept with the event that tells of it.")] = "",
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long the sink may take to catch up.")] = "60s",
    as_json: frame.JsonFlag = False,
) -> None:
    """Make the tables anew from the topics: filled beside the old ones, compared with what was read, then swapped at once.

    What the topics no longer have is copied over. Ctrl-C before the swap leaves everything as it was; queries go on all the time.
    """
    body = {"topics": topic or [], "keep": keep, "why": why, "timeout": parse_duration_ms(timeout) / 1000}
    report = await report_of("/v1/history/rebuild", body, _line)
    frame.say(report, as_json=as_json, text=lambda: "\n".join(lines(report)))


def _line(progress: Mapping[str, Any]) -> str:
    done, of = int(progress["done"]), int(progress["of"])
    match progress["phase"]:
        case "waiting":
            return "Waiting for the sink to reach the ends of the topics."
        case "topics":
            return f"{done:,} of {of:,} offsets read again ({100 * done // max(of, 1)} %), now {progress['topic']}"
        case "copying":
            return "Copying what the topics no longer have, or what was not asked for."
        case _:
            return "Comparing the new tables with what was read."


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """What a person reads."""
    yield (
        f"rebuilt: {', '.join(report['tables'])}: {report['rows']:,} rows from {len(report['topics'])} topics, "
        f"{report['copied']:,} copied, in {report['seconds']:.1f} s; the sink stood still for {report['paused_s']:.1f} s"
    )
    if report["kept"]:
        yield f"The old tables are kept as {', '.join(report['kept'])}."
