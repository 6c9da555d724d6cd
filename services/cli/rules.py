"""`mplp rules`: correlation rules in force, and rules on trial."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
import yaml

from services.cli import frame
from streams.bus.bus import connect
from streams.codec.avro import to_json
from streams.correlation import control
from streams.correlation.control import Report, Stored
from streams.correlation.parse import parse_rule
from streams.correlation.trial import Summary, Trial, parse_until
from streams.documents import read_documents
from streams.errors import BackboneError, InvalidInput, NotFound, Refused
from streams.records import Json, iso

#: A file of rules; larger is a mistake (and YAML of that size takes minutes to read).
_FILE_BYTES_MAX = 4 * 1024 * 1024

app = typer.Typer(no_args_is_help=True, help="Apply, list, show, delete and try correlation rules.")

_FILE_HELP = "Rules as YAML or JSON; `---` between several in one file."
Files = Annotated[list[Path], typer.Argument(metavar="FILE…", help=_FILE_HELP, show_default=False)]
RuleId = Annotated[str, typer.Argument(metavar="ID", help="Id of the rule.", show_default=False)]
Why = Annotated[str, typer.Option("--why", help="Reason, kept with the change.")]
Who = Annotated[str, typer.Option("--who", help="Who makes the change.")]


@app.command("apply")
@frame.command
async def apply_rules(files: Files, why: Why = "", who: Who = "", as_json: frame.JsonFlag = False) -> None:
    """Put rules in force. All files are checked first; returns when every worker has the rules, or says which has not."""
    documents = [document for file in files for document in load(file)]
    control.check(documents)
    async with connect() as bus:
        report = await control.apply(bus, documents, who or _user(), why)
    _tell(report, as_json=as_json)


@app.command("list")
@frame.command
async def list_rules(as_json: frame.JsonFlag = False) -> None:
    """The rules in force, also disabled ones."""
    async with connect() as bus:
        stored = await control.list_rules(bus)
    rows = [_row(rule) for rule in stored]
    headers = ("id", "version", "type", "severity", "enabled", "title")
    frame.say(rows, as_json=as_json, text=lambda: frame.table([[row[name] for name in headers] for row in rows], headers))


@app.command("show")
@frame.command
async def show_rule(rule_id: RuleId, as_json: frame.JsonFlag = False) -> None:
    """One rule as it was applied, with version, who and why."""
    async with connect() as bus:
        stored = await control.show(bus, rule_id)
    record = stored.record
    value = {**_row(stored), "who": record.who, "why": record.why, "time": iso(record.time), "rule": stored.document}
    by = f"{record.who or 'nobody named'}{': ' + record.why if record.why else ''}"
    text = yaml.safe_dump(stored.document, sort_keys=False, allow_unicode=True).rstrip()
    frame.say(value, as_json=as_json, text=f"# version {record.version}, applied {iso(record.time)} by {by}\n{text}")


@app.command("delete")
@frame.command
async def delete_rule(rule_id: RuleId, why: Why = "", who: Who = "", as_json: frame.JsonFlag = False) -> None:
    """Take a rule out of force; its state is gone."""
    async with connect() as bus:
        report = await control.delete(bus, rule_id, who or _user(), why)
    _tell(report, as_json=as_json)


@app.command("test")
@frame.command
async def try_rules(
    rules: Annotated[list[Path], typer.Argument(metavar="RULE…", help=_FILE_HELP, show_default=False)],
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
    stream = sys.stdin.buffer if events == "-" else _opened(Path(events))
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


def load(file: Path) -> list[Json]:
    """The documents of a file. Raises `NotFound` (`file.missing`) and `InvalidInput` (`file.unreadable`)."""
    try:
        with _opened(file) as stream:
            text = stream.read(_FILE_BYTES_MAX + 1)
        if len(text) > _FILE_BYTES_MAX:
            raise InvalidInput("file.too-large", f"{file} is larger than {_FILE_BYTES_MAX} bytes.")
        documents = [document for document in read_documents(text, code="file.unreadable") if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput("file.unreadable", f"{file} is neither YAML nor JSON: {reason}") from error
    found = [item for document in documents for item in (document if isinstance(document, list) else [document])]
    if not found:
        raise InvalidInput("file.empty", f"{file} has no rule.")
    return found


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise NotFound("file.missing", f"{file} cannot be read: {error.strerror}.") from error


def _row(stored: Stored) -> dict[str, Any]:
    document = stored.document
    return {
        "id": stored.record.id, "version": stored.record.version, "title": document.get("title", ""),
        "type": document["correlation"]["type"], "severity": document.get("severity", "warning"), "enabled": document.get("enabled", True),
    }  # fmt: skip


def _tell(report: Report, *, as_json: bool) -> None:
    for worker in report.missing:
        frame.progress(f"warning: the worker {worker} has not said that it has this yet")
    if not report.reached and not report.missing and any(rule.changed for rule in report.rules):
        frame.progress("No worker is running; the change takes effect when one starts.")
    text = "\n".join(f"{rule.id} version {rule.version}{'' if rule.changed else ' (unchanged)'}" for rule in report.rules)
    frame.say(report.to_dict(), as_json=as_json, text=text)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
