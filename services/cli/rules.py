"""`mplp rules`: correlation rules in force, and rules on trial."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli import frame, rules_backtest, rules_explain, rules_show, rules_trial
from services.cli.documents import changes_text
from services.cli.rules_options import Files, RuleId, Who, Why, load, user
from streams.bus.bus import connect
from streams.correlation import control
from streams.correlation.control import Report
from streams.correlation.rule_changes import Stored

app = typer.Typer(no_args_is_help=True, help="Apply, list, show, delete, explain and try correlation rules.")


@app.command("apply")
@frame.command
async def apply_rules(
    files: Files,
    why: Why = "",
    who: Who = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change, as a diff.")] = False,
    as_json: frame.JsonFlag = False,
) -> None:
    """Put rules in force, all or none. All files are checked first; returns when every worker has the rules, or says which has not.

    An older version comes back with: mplp rules show ID --version N | mplp rules apply -
    """
    documents = [document for file in files for document in load(file)]
    control.check(documents)
    async with connect() as bus:
        if dry_run:
            changes = await control.plan(bus, documents)
            frame.say({"rules": [change.to_dict() for change in changes]}, as_json=as_json, text=lambda: changes_text(changes))
            return
        report = await control.apply(bus, documents, who or user(), why)
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


app.command("show")(rules_show.show_rule)


@app.command("delete")
@frame.command
async def delete_rule(rule_id: RuleId, why: Why = "", who: Who = "", as_json: frame.JsonFlag = False) -> None:
    """Take a rule out of force; its state is gone."""
    async with connect() as bus:
        report = await control.delete(bus, rule_id, who or user(), why)
    _tell(report, as_json=as_json)


app.command("test")(rules_trial.try_rules)
app.command("backtest")(rules_backtest.backtest_rules)
app.command("explain")(rules_explain.explain_rule)


def _row(stored: Stored) -> dict[str, Any]:
    document = stored.document
    return {
        "id": stored.record.id, "version": stored.record.version, "title": document.get("title", ""),
        "type": document["correlation"]["type"], "severity": document.get("severity", "warning"), "enabled": document.get("enabled", True),
    }  # fmt: skip


def _tell(report: Report, *, as_json: bool) -> None:
    for worker in report.missing:
        frame.progress(f"warning: the worker {worker} has not said that it has this yet")
    if not report.reached and not report.missing and any(rule.changed for rule in report.documents):
        frame.progress("No worker is running; the change takes effect when one starts.")
    text = "\n".join(f"{rule.id} version {rule.version}{'' if rule.changed else ' (unchanged)'}" for rule in report.documents)
    frame.say(report.to_dict(), as_json=as_json, text=text)
