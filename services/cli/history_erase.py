"""`mplp history erase`: takes a subject's payloads out of the history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from services.cli import frame
from services.cli.history_calls import report_of
from streams.durations import parse_duration_ms


@frame.command
async def erase(
    subject: Annotated[
        str, typer.Option("--subject", metavar="SUBJECT", help="Subject of the records; or an execution's id: all that belongs to it.")
    ],
    reason: Annotated[str, typer.Option("--reason", "--why", metavar="TEXT", help="Why; kept with the erasure for ever.")],
    effects: Annotated[
        bool, typer.Option("--effects", help="Also everything that these records caused, near or far, and executions among it as a whole.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be erased.")] = False,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long the sink may take to catch up.")] = "60s",
    as_json: frame.JsonFlag = False,
) -> None:
    """Take the payloads of everything about a subject out of all tables, for good. The rows stay, without what they told.

    There is no way back. Topics keep their records as long as their retention says; what comes later of the subject stays.
    """
    body = {
        "subject": subject, "why": reason, "effects": effects, "dry_run": dry_run, "timeout": parse_duration_ms(timeout) / 1000,
    }  # fmt: skip
    report = await report_of("/v1/history/erase", body, _line)
    frame.say(report, as_json=as_json, text=lambda: "\n".join(lines(report)))


def _line(progress: Mapping[str, Any]) -> str:
    match progress["phase"]:
        case "waiting":
            return "Waiting for the sink to reach the ends of the topics."
        case "looking":
            return "Looking for what is the subject's, and what quotes it."
        case _:
            return f"{progress['done']:,} of {progress['of']:,} payloads erased"


def lines(report: Mapping[str, Any]) -> Iterator[str]:
    """What a person reads."""
    by_table = ", ".join(f"{count:,} of {table}" for table, count in report["tables"].items())
    verb = "would be erased" if report["dry_run"] else "erased"
    if report["rows"]:
        yield f"{verb}: the payloads of {report['rows']:,} rows about {report['subject']}: {by_table} ({report['seconds']:.1f} s)"
    else:
        yield f"Nothing is left to erase about {report['subject']}."
    if report["already"]:
        yield f"{report['already']:,} rows had lost theirs before."
    if report["caused"]:
        yield f"{report['caused']:,} rows that these caused keep theirs; --effects reaches them, and what they caused."
    if report["erasure"]:
        yield f"It is kept as {report['erasure']}. The topics' own records go when their retention ends."
