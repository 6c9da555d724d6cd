"""Texts of documents that live in control topics (rules, routes): what would change, a version's heading, a history."""

from __future__ import annotations

from collections.abc import Sequence

from services.cli import frame
from streams.control.changes import Change, Version
from streams.records import iso


def changes_text(changes: Sequence[Change]) -> str:
    """What an `apply` would do, with a diff of each document that would change."""
    said = []
    for change in changes:
        what = "is in force already" if change.kind == "unchanged" else "would be new" if change.kind == "new" else "would change"
        said.append(f"{change.id} {what} (version {change.version})" + (f":\n{change.diff()}" if change.kind == "changed" else ""))
    return "\n".join(said)


def heading(version: Version) -> str:
    """One line above a version's text: what was done, when, by whom and why."""
    by = f"{version.who or 'nobody named'}{': ' + version.why if version.why else ''}"
    return f"# version {version.version}{'' if version.in_force else ' (not in force)'}, {version.change} {iso(version.time)} by {by}"


def history_text(found: Sequence[Version]) -> str:
    """A table of versions, the newest first."""
    rows = [(each.version, each.change, iso(each.time), each.who, each.why, "yes" if each.in_force else "") for each in reversed(found)]
    return frame.table(rows, ("version", "change", "time", "who", "why", "in force"))
