"""`mplp rules show`: a rule as it is in force, as it was, who has changed it, and what it does."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli import frame
from services.cli.documents import heading, history_text
from services.cli.rules_options import RuleId
from streams.bus.bus import connect
from streams.correlation import control
from streams.correlation.rule_changes import Version, text_of
from streams.correlation.tallies import Tally
from streams.correlation.workers import living
from streams.records import from_micros, iso
from streams.topics import COMPOSITES, DEAD_LETTER_SUFFIX


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
            frame.say([each.to_dict() for each in found], as_json=as_json, text=lambda: history_text(found))
            return
        tally = None
        if number is None:
            number = (await control.show(bus, rule_id)).record.version
            tally = (await living(bus))[1].get(rule_id)
        version = await control.version(bus, rule_id, number)
    figures = [] if tally is None else [f"# {line}" for line in figures_text(tally)]
    frame.say(
        {**shown(version), "figures": None if tally is None else tally.to_dict()},
        as_json=as_json,
        text=lambda: "\n".join([heading(version), *figures, text_of(version.document)]),
    )


def shown(version: Version) -> dict[str, Any]:
    """A version as JSON: first what `rules list` says of a rule."""
    document = version.document
    return {
        "id": version.id, "version": version.version, "title": document.get("title", ""), "type": document["correlation"]["type"],
        "severity": document.get("severity", "warning"), "enabled": document.get("enabled", True), **version.to_dict(),
    }  # fmt: skip


def figures_text(tally: Tally) -> list[str]:
    """The figures as lines for a person: first what there is, then what is wrong."""
    last = "" if tally.last_matched_us is None else f", the last of {iso(from_micros(tally.last_matched_us))}"
    said = [
        f"{_counted(tally.matched, 'record')} matched{last}; {_counted(tally.composites, 'composite')}, "
        f"{_counted(tally.revised, 'revision')}; {_counted(tally.groups, 'group')} kept"
    ]
    if tally.late:
        said.append(f"{tally.late} late, the last by {tally.late_by_us / 1e6:.3g} s: {', '.join(tally.late_ids)}")
    if tally.ahead:
        said.append(f"{tally.ahead} ahead of their arrival: {', '.join(tally.ahead_ids)}")
    if tally.errors:
        said.append(f"{_counted(tally.errors, 'record')} on which an expression failed; the last: {tally.last_error}")
    if tally.performed or tally.given_up or tally.waiting:
        dead = f" (see {COMPOSITES}{DEAD_LETTER_SUFFIX})" if tally.given_up else ""
        said.append(f"{_counted(tally.performed, 'action')} performed, {tally.given_up} given up{dead}, {tally.waiting} waiting")
    others = ("duplicates", "evicted", "overflowed")
    counted = [f"{getattr(tally, name)} {name}" for name in others if getattr(tally, name)]
    return said + ([", ".join(counted)] if counted else [])


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
