"""`mplp composites`: follow what the correlation rules find."""

from __future__ import annotations

import typer

from services.cli import frame, records
from streams.records import CompositeEvent, Record
from streams.topics import COMPOSITES

app = typer.Typer(no_args_is_help=True, help="Follow what the correlation rules find.")


@app.callback()
def composites() -> None:
    """Follow what the correlation rules find."""


@app.command()
@frame.command
async def tail(
    filter: records.Filter = None,
    begin: records.From = "now",
    count: records.Count = None,
    timeout: records.Timeout = None,
    as_json: frame.JsonFlag = False,
) -> None:
    """Follows the composite events: one a line, with its explanation. Ends after --count composites or --timeout, with exit code 0."""
    await records.follow(COMPOSITES, where=filter, since=begin, count=count, timeout=timeout, as_json=as_json, line=_line)


def _line(record: Record) -> str:
    return records.composite_line(record) if isinstance(record, CompositeEvent) else records.event_line(record)
