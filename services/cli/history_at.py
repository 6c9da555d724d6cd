"""`mplp history at`: an execution as it was at an instant, from the history."""

from __future__ import annotations

from typing import Annotated

import typer

from services.cli import frame
from services.cli.history_calls import asked
from services.cli.moments import moment
from services.processes import offline
from streams.records import iso


@frame.command
async def at(
    time: Annotated[
        str, typer.Argument(metavar="TIME", help='An instant (RFC 3339; without a zone it is UTC), a date, "10m ago", or now.')
    ],
    execution: Annotated[str, typer.Option("--execution", metavar="ID", help="The execution's id.")],
    stale: Annotated[bool, typer.Option("--stale", help="Do not wait for the history to catch up with the topics.")] = False,
    as_json: frame.JsonFlag = False,
) -> None:
    """An execution as it was at an instant, from the rows of the history: also when the topics have its records no more.

    Says the same as `mplp workflow state --at`, which folds the log.
    """
    instant = moment(time)
    found = await asked("/v1/history/at", {"execution": execution, "time": iso(instant), "stale": str(stale).lower()})
    if found["behind"]:
        frame.progress(f"The history is {found['behind']} records behind the topics.")
    view = {**found["execution"], "steps": found["steps"]}
    frame.say(found, as_json=as_json, text=lambda: f"As of {iso(instant)}\n\n{offline.timeline(view)}")
