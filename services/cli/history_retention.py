"""`mplp history retention`: how long the history keeps rows, and what it may not go below."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli import frame
from services.cli.history_calls import asked


@frame.command
async def retention(
    tried: Annotated[
        str | None,
        typer.Option(
            "--try", metavar="LIFETIMES", help='Whether these could be set, e.g. "system_events=400d, deliveries=90d".', show_default=False
        ),
    ] = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """How long each table keeps its rows (MPLP_HISTORY_RETENTION), the least that is possible now, and why.

    A lifetime that is too short for what is under way is not applied as long as that lasts.
    """
    found = await asked("/v1/history/retention", None if tried is None else {"try": tried})

    def text() -> str:
        rows = [
            [
                each["table"], each["wished"] or "for ever", each["in_force"] or "for ever", each["least"] or "", each["oldest_row"] or "",
                each["because"] or "",
            ]
            for each in found["tables"]
        ]  # fmt: skip
        return frame.table(rows, ("table", "wished", "in force", "least", "oldest row", "because"))

    frame.say(found, as_json=as_json, text=text)
