"""`mplp history`: looking after the history of everything that happened."""

from __future__ import annotations

import typer

from services.cli import (
    history_at,
    history_erase,
    history_export,
    history_promote,
    history_rebuild,
    history_retention,
    history_verify,
)

app = typer.Typer(no_args_is_help=True, help="Prove that the history is exact, look back into it, and look after it.")

app.command("verify")(history_verify.verify)
app.command("rebuild")(history_rebuild.rebuild)
app.command("at")(history_at.at)
app.command("export")(history_export.export)
app.command("retention")(history_retention.retention)
app.command("erase")(history_erase.erase)
app.command("promote")(history_promote.promote)
