"""Writes the generated pages of `docs/reference`: `python -m services.cli.reference [FOLDER]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from services.cli.frame import progress
from services.cli.main import ENTRIES, HELP, load
from services.processes.reference import errors_page, http_page, page, queries_page, settings_page, table
from services.processes.reference_modules import modules_page


def pages() -> Mapping[str, str]:
    """File name → content."""
    return {
        "cli.md": cli_page(),
        "http.md": http_page(),
        "settings.md": settings_page(),
        "errors.md": errors_page(),
        "modules.md": modules_page(),
        "queries.md": queries_page(),
    }


def cli_page() -> str:
    """Every command with its arguments and options."""
    return page("Command line", HELP, *(part for name in ENTRIES for part in _commands(("mplp", name), load(name))))


def _commands(path: tuple[str, ...], command: Any) -> Iterator[str]:
    if isinstance(command, TyperGroup):
        yield f"## {' '.join(path)}\n\n{command.help}"
        for name, child in command.commands.items():
            yield from _commands((*path, name), child)
        return
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option" and not parameter.hidden]
    usage = " ".join([*path, *(_shown(argument) for argument in arguments), "[OPTIONS]"])
    rows: list[list[object]] = [[f"`{_name(argument)}`", getattr(argument, "help", "") or "", ""] for argument in arguments]
    rows += [[", ".join(f"`{name}`" for name in option.opts), option.help or "", _default(option)] for option in options]
    yield f"{'#' * min(4, len(path))} {' '.join(path)}\n\n{command.help}\n\n```text\n{usage}\n```\n\n" + table(
        ["parameter", "meaning", "default"], rows
    )


def _shown(argument: Any) -> str:
    name = _name(argument) + ("…" if argument.nargs != 1 and not _name(argument).endswith("…") else "")
    return name if argument.required else f"[{name}]"


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _default(option: Any) -> str:
    default = option.default
    return "" if default in (None, False, (), []) or callable(default) else f"`{default}`"


def main() -> None:
    """Writes the pages."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/reference")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in pages().items():
        (folder / name).write_text(content)
        progress(f"wrote {folder / name}")


if __name__ == "__main__":
    main()
