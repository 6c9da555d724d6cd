"""`mplp rules test`: rules over a file of records, offline."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from services.cli import frame
from services.cli.rules_options import FILE_HELP, load, opened
from streams.codec.avro import to_json
from streams.correlation import control
from streams.correlation.parse import parse_rule
from streams.correlation.trial import Summary, Trial, parse_until
from streams.errors import BackboneError, Refused


@frame.command
async def try_rules(
    rules: Annotated[list[Path], typer.Argument(metavar="RULE…", help=FILE_HELP, show_default=False)],
    events: Annotated[str, typer.Option("--events", help="Records as NDJSON, in the order of arrival; - is stdin.", show_default=False)],
    until: Annotated[str | None, typer.Option("--until", help="Where the watermark moves at the end.", show_default=False)] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if a line is broken.")] = False,
    as_json: frame.JsonFlag = False,
) -> None:
    """Run rules over a file, offline: one JSON object per composite on stdout, a summary on stderr."""
    try:
        summary = _try(rules, events, until)
        _tell_summary(summary, as_json=as_json)
        if strict and summary.broken:
            raise Refused("records.broken", f"{summary.broken_count} lines are broken.", pointer=f"/{summary.broken[0][0]}")
    except BackboneError as error:
        frame.fail(error, as_json=False)  # stdout has composites and nothing else


def _try(rules: Sequence[Path], events: str, until: str | None) -> Summary:
    documents = [document for file in rules for document in load(file)]
    control.check(documents)
    trial = Trial(parse_rule(document) for document in documents)
    end = None if until is None else parse_until(until)
    stream = sys.stdin.buffer if events == "-" else opened(Path(events))
    with stream:
        _run(trial, stream)
    for composite in trial.finish(end):
        frame.write(frame.json_text(to_json(composite)))
    return trial.summary


def _tell_summary(summary: Summary, *, as_json: bool) -> None:
    for number, message in summary.broken:
        frame.progress(f"line {number}: {message}")
    if as_json:
        frame.progress(frame.json_text(summary.to_dict()))
    else:
        frame.progress(
            f"{summary.records} records, {summary.matched} matched, {summary.late} late, {summary.duplicates} duplicates, "
            f"{summary.errors} errors, {summary.composites} composites"
        )


def _run(trial: Trial, stream: BinaryIO) -> None:
    for line in stream:
        for composite in trial.line(line):
            frame.write(frame.json_text(to_json(composite)))
