"""`mplp rules explain`: why a rule has fired for a group, and why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from services.cli import frame
from services.cli.rules_options import RuleId
from streams.bus.bus import connect
from streams.correlation.explaining import Explanation, explain
from streams.correlation.standing import Standing
from streams.errors import InvalidInput
from streams.records import iso

#: Records of a group that are shown as text.
_RECORDS_MAX = 20


@frame.command
async def explain_rule(
    rule_id: RuleId,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="NAME=VALUE", help="The group, an entry of group-by each; without it the groups used last."),
    ] = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """How a group stands right now: what has been seen, what is missing, until when, and what may keep the rule from firing.

    Exact as of the end of the topics; works while no worker runs.
    """
    async with connect() as bus:
        found = await explain(bus, rule_id, group_of(group or ()))
    frame.say(found.to_dict(), as_json=as_json, text=lambda: "\n".join(lines(found)))


def group_of(texts: Sequence[str]) -> dict[str, str]:
    """`name=value` texts as a group; a name may be a path. Raises `InvalidInput` (`group.invalid`)."""
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name or name in found:
            raise InvalidInput("group.invalid", f"{text!r} is not of the form name=value, each name once.")
        found[name] = value
    return found


def lines(found: Explanation) -> Iterator[str]:
    """What a person reads."""
    yield f"{found.rule_id} version {found.version} ({found.type}, {found.severity}){': ' + found.title if found.title else ''}"
    if found.group:
        asked = ", ".join(f"{name}={value}" for name, value in found.group.items())
        yield f"Group {asked}{'' if found.known else ': nothing is kept of it'}"
    elif len(found.standings) != 1 or found.standings[0].group:
        yield f"{found.groups} groups{', those used last:' if found.standings else ''}"
    for each in found.standings:
        yield ""
        yield from _standing(each, records=bool(found.group) or not each.group)
    if found.last is not None:
        yield ""
        yield f"Said last, at {iso(found.last.time)} ({found.last.id}): {found.last.explanation}"
    if found.nearest:
        yield ""
        yield "Groups with such a name: " + "; ".join(
            ", ".join(f"{name}={value}" for name, value in group.items()) for group in found.nearest
        )
    if found.hints:
        yield ""
        yield from (f"- {hint}" for hint in found.hints)


def _standing(standing: Standing, *, records: bool) -> Iterator[str]:
    yield from standing.sentences
    if records:
        for seen in standing.seen[-_RECORDS_MAX:]:
            yield f"  {iso(seen.time)}  {seen.type}  {seen.id}"
        if standing.count > _RECORDS_MAX:
            yield f"  … the newest {min(len(standing.seen), _RECORDS_MAX)} of {standing.count}"
