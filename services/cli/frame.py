"""What every command shares: `--json`, output, progress on stderr, and errors as a line, a code and an exit code.

Exit codes: 0 done, 1 refused or failed, 2 usage, 3 a server cannot be reached. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from functools import wraps
from typing import Annotated, Any, NoReturn, ParamSpec, TypeVar

import orjson
import structlog
import typer

from streams.errors import BackboneError
from streams.records import iso
from streams.tracebacks import plain_processors

T = TypeVar("T")
P = ParamSpec("P")

JsonFlag = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130


def json_text(value: Any, *, indent: bool = False) -> str:
    """`value` as JSON text; datetimes as RFC 3339 with microseconds and Z."""

    def default(item: Any) -> Any:
        if isinstance(item, datetime):
            return iso(item)
        if isinstance(item, (set, frozenset)):
            return sorted(item)
        if isinstance(item, BackboneError):
            return item.to_dict()
        return str(item)

    option = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indent else 0)
    return orjson.dumps(value, default=default, option=option).decode()


def write(text: str) -> None:
    """One line of result on stdout, flushed at once so that pipes see it live."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say(value: Any, *, as_json: bool, text: str | Callable[[], str]) -> None:
    """The result: `value` as one line of JSON with `--json`, else `text`."""
    write(json_text(value) if as_json else text() if callable(text) else text)


def progress(text: str) -> None:
    """A line about what is going on, on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def table(rows: Iterable[Sequence[Any]], headers: Sequence[str]) -> str:
    """Rows as aligned columns, plain text, no borders: readable, and easy for awk."""
    cells = [[str("" if cell is None else cell) for cell in row] for row in rows]
    widths = [max([len(header), *(len(row[index]) for row in cells)]) for index, header in enumerate(headers)]

    def line(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()

    return "\n".join([line([header.upper() for header in headers]), *(line(row) for row in cells)])


def fail(error: BackboneError, *, as_json: bool) -> NoReturn:
    """Ends the command with the error: a sentence on stderr, with `--json` also the error object on stdout."""
    where = f" (at {error.pointer})" if error.pointer and error.pointer not in error.message else ""
    progress(f"error: {error.code}: {error.message}{where}")
    told = getattr(error, "violations", None) or [fault for fault in error.faults if fault.message.rstrip(".") not in error.message]
    for violation in told:
        progress(f"  {violation.code} at {violation.pointer or '/'}: {violation.message}")
    if error.advice:
        progress(f"  {error.advice}")
    if as_json:
        write(json_text({"error": error.to_dict()}))
    raise typer.Exit(error.exit_code)


def command(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Turns an async command (its flag, if any, is called `as_json`) into one that typer calls; errors end as `fail` says."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        as_json = bool(kwargs.get("as_json", False))
        # What the client library tries before it gives up is told by our own error, in one sentence.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
        # Nothing but results on stdout: a warning must not stand in the middle of somebody's JSON.
        structlog.configure(
            processors=plain_processors(colors=sys.stderr.isatty()), logger_factory=lambda *_: structlog.PrintLogger(sys.stderr)
        )
        try:
            return asyncio.run(function(*args, **kwargs))
        except BackboneError as error:
            fail(error, as_json=as_json)
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            sys.stderr.close()
            raise typer.Exit(0) from None

    return wrapper
