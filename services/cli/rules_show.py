"""`mplp rules show`: a rule as it is in force, as it was, who has changed it, and what it does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from services.cli import frame
from services.cli.rules_options import RuleId
from streams.bus.bus import connect
from streams.correlation import control
from streams.correlation.rule_changes import Version, text_of
from streams.records import iso


@frame.command
async def show_rule(
    rule_id: RuleId,
    number: Annotated[int | None, typer.Option("--version", help="This version instead of the one in force.", show_default=False)] = None,
    history: Annotated[bool, typer.Option("--history", help="All versions: who changed what, when and why.")] = False,
    as_json: frame.JsonFlag = False,
) -> None:
    """One rule as it was applied, with version, who and why. The text is YAML that `rules apply` takes."""
    async with connect() as bus:
        if history:
            found = await control.history(bus, rule_id)
            frame.say([each.to_dict() for each in found], as_json=as_json, text=lambda: _history_text(found))
            return
        if number is None:
            number = (await control.show(bus, rule_id)).record.version
        version = await control.version(bus, rule_id, number)
    frame.say(shown(version), as_json=as_json, text=lambda: "\n".join([*_heading(version), text_of(version.document)]))


def shown(version: Version) -> dict[str, Any]:
    """A version as JSON: first what `rules list` says of a rule."""
    document = version.document
    return {
        "id": version.id, "version": version.version, "title": document.get("title", ""), "type": document["correlation"]["type"],
        "severity": document.get("severity", "warning"), "enabled": document.get("enabled", True), **version.to_dict(),
    }  # fmt: skip


def _heading(version: Version) -> list[str]:
    by = f"{version.who or 'nobody named'}{': ' + version.why if version.why else ''}"
    what = version.type.removeprefix("rule.")
    return [f"# version {version.version}{'' if version.in_force else ' (not in force)'}, {what} {iso(version.time)} by {by}"]


def _history_text(found: Sequence[Version]) -> str:
    rows = [
        (each.version, each.type.removeprefix("rule."), iso(each.time), each.who, each.why, "yes" if each.in_force else "")
        for each in reversed(found)
    ]
    return frame.table(rows, ("version", "change", "time", "who", "why", "in force"))
