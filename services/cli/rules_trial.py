"""`mplp rules test`: rules over a file of records, offline."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from services.cli import frame
from services.cli.rules_options import FILE_HELP, load, opened
from streams.codec.avro import to_json
from streams.correlation import control
from streams.correlation.intentions import described
from streams.correlation.parse import parse_rule
from streams.correlation.trial import Summary, Trial, parse_until
from streams.errors import BackboneError, Refused
from streams.records import CompositeEvent


@frame.command
async def try_rules(
    rules: Annotated[list[Path], typer.Argument(metavar="RULE…", help=FILE_HELP, show_default=False)],
    events: Annotated[str, typer.Option("--events", help="Records as NDJSON, in the order of arrival; - is stdin.", show_default=False)],
    until: Annotated[str | None, typer.Option("--until", help="Where the watermark moves at the end.", show_default=False)] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 if a line is broken.")] = False,
    actions: Annotated[bool, typer.Option("--actions", help="Say with each composite what it would bring about.")] = False,
    as_json: frame.JsonFlag = False,
) -> None:
    """Run rules over a file, offline: one JSON object per composite on stdout, a summary on stderr."""
    try:
        summary = _try(rules, events, until, actions)
        _tell_summary(summary, as_json=as_json)
        if strict and summary.broken:
            raise Refused("records.broken", f"{summary.broken_count} lines are broken.", pointer=f"/{summary.broken[0].line}")
    except BackboneError as error:
        frame.fail(error, as_json=False)  # stdout has composites and nothing else


def _try(rules: Sequence[Path], events: str, until: str | None, actions: bool) -> Summary:
    documents = [document for file in rules for document in load(file)]
    control.check(documents)
    trial = Trial(parse_rule(document) for document in documents)
    end = None if until is None else parse_until(until)
    stream = sys.stdin.buffer if events == "-" else opened(Path(events))
    with stream:
        for line in stream:
            _write(trial, trial.line(line), actions)
    _write(trial, trial.finish(end), actions)
    return trial.summary


def _tell_summary(summary: Summary, *, as_json: bool) -> None:
    for broken in summary.broken:
        frame.progress(str(broken))
    for reason, count in summary.unrendered.items():
        frame.progress(f"action {reason} ({count} ×)")
    if as_json:
        frame.progress(frame.json_text(summary.to_dict()))
    else:
        frame.progress(
            f"{summary.records} records, {summary.matched} matched, {summary.late} late, {summary.duplicates} duplicates, "
            f"{summary.errors} errors, {summary.composites} composites" + (f", {summary.actions} actions" if summary.actions else "")
        )


def _write(trial: Trial, composites: Iterable[CompositeEvent], actions: bool) -> None:
    for composite in composites:
        shown = to_json(composite)
        if actions:
            shown["actions"] = [described(each) for each in trial.actions()]
        frame.write(frame.json_text(shown))
