"""What several `mplp rules` commands take: files of rules, ids, who wants it and why."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
import yaml

from streams.documents import read_documents
from streams.errors import InvalidInput, NotFound
from streams.records import Json

#: A file of rules; larger is a mistake (and YAML of that size takes minutes to read).
_FILE_BYTES_MAX = 4 * 1024 * 1024

FILE_HELP = "Rules as YAML or JSON; `---` between several in one file; - is stdin."
Files = Annotated[list[Path], typer.Argument(metavar="FILE…", help=FILE_HELP, show_default=False)]
RuleId = Annotated[str, typer.Argument(metavar="ID", help="Id of the rule.", show_default=False)]
Why = Annotated[str, typer.Option("--why", help="Reason, kept with the change.")]
Who = Annotated[str, typer.Option("--who", help="Who makes the change.")]


def load(file: Path) -> list[Json]:
    """The documents of a file. Raises `NotFound` (`file.missing`) and `InvalidInput` (`file.unreadable`)."""
    try:
        with sys.stdin.buffer if str(file) == "-" else opened(file) as stream:
            text = stream.read(_FILE_BYTES_MAX + 1)
        if len(text) > _FILE_BYTES_MAX:
            raise InvalidInput("file.too-large", f"{file} is larger than {_FILE_BYTES_MAX} bytes.")
        documents = [document for document in read_documents(text, code="file.unreadable") if document is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput("file.unreadable", f"{file} is neither YAML nor JSON: {reason}") from error
    found = [item for document in documents for item in (document if isinstance(document, list) else [document])]
    if not found:
        raise InvalidInput("file.empty", f"{file} has no document.")
    return found


def opened(file: Path) -> BinaryIO:
    """A file, to be read. Raises `NotFound` (`file.missing`)."""
    try:
        return file.open("rb")
    except OSError as error:
        raise NotFound("file.missing", f"{file} cannot be read: {error.strerror}.") from error


def user() -> str:
    """Who runs this command, as the operating system says; empty if it has no name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
