"""What several `mplp workflow` commands take: who wants it and why, values as JSON."""

from __future__ import annotations

import getpass
from typing import Annotated

import orjson
import typer

from streams.errors import InvalidInput
from streams.records import Json

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The execution's id.")]
ByOption = Annotated[str | None, typer.Option("--by", help="Who wants it; default: the user of this machine.")]
WhyOption = Annotated[str | None, typer.Option("--why", help="The reason, kept with the decision.")]


def parse_json(text: str, option: str) -> Json:
    """The JSON value of an option. Raises `InvalidInput` (`input.malformed`)."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("input.malformed", f"{option} is not JSON: {error.msg} at column {error.colno}.") from error


def who(by: str | None, why: str | None) -> dict[str, Json]:
    """Who wants it and why, as commands carry it."""
    return {"by": by or user(), **({"why": why} if why else {})}


def user() -> str:
    """Who runs this command, as the operating system says."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user id without a name, as in containers
        return "unknown"
