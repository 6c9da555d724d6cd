"""The shell's root: `mplp`. It knows the names and one line of help of every noun; a noun's module is imported when it is used.

So `mplp --help` and every command start quickly, whatever the other nouns import.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from typing import Annotated, Any

import typer
import typer.main
from typer.core import TyperCommand, TyperGroup

DISTRIBUTION = "mplp-backbone"

HELP = """The MPLP backbone: workflows, events, correlation and history of multi-agent systems over one Kafka log.

Every command has --json. Exit codes: 0 done, 1 refused or failed, 2 usage, 3 a server cannot be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A name on the command line: where it is, whether it is a noun (a group of commands) or one command, a line of help."""

    module: str  #: module with `app`, a `typer.Typer`
    noun: bool
    help: str
    panel: str


def _noun(name: str, help: str) -> Entry:
    return Entry(module=f"services.cli.{name}", noun=True, help=help, panel="Nouns")


def _command(module: str, help: str) -> Entry:
    return Entry(module=f"services.cli.{module}", noun=False, help=help, panel="Commands")


#: Every name that `mplp` understands, in the order of the help.
ENTRIES = {
    "up": _command("system", "Start everything on this machine and supervise it."),
    "down": _command("system", "Stop what `mplp up` started."),
    "status": _command("system", "Processes, Kafka, ClickHouse and lag."),
    "config": _command("system", "List every setting with its value and where it comes from."),
    "query": _command("query", "Ask the history in SQL, read-only."),
    "workflow": _noun("workflow", "Validate, run, watch and command workflow executions."),
    "events": _noun("events", "Produce, follow and look back at system events."),
    "composites": _noun("composites", "Follow what the correlation rules find."),
    "rules": _noun("rules", "Apply, list, show, delete, explain and try correlation rules."),
    "history": _noun("history", "Prove that the history is exact, and look after it."),
    "routes": _noun("routes", "Apply, list, show, delete and try routes; see what is parked."),
    "dlq": _noun("dlq", "List, show, put back and purge dead letters."),
    "modules": _noun("modules", "List the modules, call their operations, and send messages between them."),
    "topics": _noun("topics", "Create and verify the topics and schemas."),
}


def load(name: str) -> TyperCommand | TyperGroup:
    """The real command behind a name of `ENTRIES`: imports its module."""
    entry = ENTRIES[name]
    group = typer.main.get_group(importlib.import_module(entry.module).app)
    found: Any = group if entry.noun else group.commands[name]
    found.name = name
    if not found.help:
        found.help = entry.help
    return found  # type: ignore[no-any-return]


class LazyGroup(TyperGroup):
    """Lists the names of `ENTRIES` without importing them; resolves to the real command."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in ENTRIES.items():
            self.commands[name] = TyperCommand(name, help=entry.help, callback=None, rich_help_panel=entry.panel)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """As the base class (unknown names are usage errors with a suggestion), then imports the module of the name."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command if name is None else load(name), rest


app = typer.Typer(
    cls=LazyGroup,
    name="mplp",
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def version() -> str:
    """The version of the installed distribution."""
    return importlib.metadata.version(DISTRIBUTION)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mplp {version()}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Only carries the options that stand before the noun."""


def command_line() -> TyperGroup:
    """The whole command line, as typer runs it."""
    root_command = typer.main.get_command(app)
    assert isinstance(root_command, TyperGroup)
    return root_command


def main() -> None:
    """The entry point of `mplp`."""
    from streams import collector  # a noun needs it, their names do not

    collector.look_seldom()
    command_line().main(prog_name="mplp")
