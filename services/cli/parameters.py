"""JSON objects on the command line: as text, from a file, from stdin."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson

from streams.errors import InvalidInput
from streams.records import Json


def object_of(text: str) -> dict[str, Json]:
    """The parameters as given. Raises `InvalidInput` (`parameters.unreadable`, `parameters.invalid`)."""
    if text.startswith("@"):
        try:
            text = sys.stdin.read() if text == "@-" else Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise InvalidInput("parameters.unreadable", f"{text[1:]} cannot be read: {error}") from error
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("parameters.invalid", f"The parameters are no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput("parameters.invalid", f"Parameters are a JSON object, not {type(found).__name__}.", pointer="")
    return found
