"""Reading documents that people write, JSON or YAML, into JSON values. Pure."""

from __future__ import annotations

import orjson
import yaml

from streams.documents import begins_like_json, read_yaml
from streams.errors import InvalidDocument, InvalidInput, Violation
from streams.records import Json
from streams.strict import json_twice

#: Aliases (`*name`) of a YAML document.
ALIASES_MAX = 100


def read_document(text: str) -> Json:
    """The document in `text`: JSON if it begins like JSON, else YAML. Raises `InvalidInput` (`document.malformed`) with the line.

    A key that is given twice is malformed too: `InvalidDocument` with `schema.duplicateKey` and pointers.
    A broken JSON document is not tried as YAML, which might read something else into it.
    """
    if begins_like_json(text):
        try:
            parsed: Json = orjson.loads(text)
            _refuse_twice(json_twice(text.encode(), parsed))
            return parsed
        except orjson.JSONDecodeError as error:
            raise InvalidInput(
                "document.malformed", f"This is not JSON: line {error.lineno}, column {error.colno}: {error.msg}."
            ) from error
    try:
        document = _loaded(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InvalidInput("document.malformed", f"This is neither JSON nor YAML: {where}{problem}.") from error
    except RecursionError as error:
        raise InvalidInput("document.malformed", "The document is nested too deeply.") from error
    except ValueError as error:
        raise InvalidInput("document.malformed", f"{error}") from error
    return document


def _loaded(text: str) -> Json:
    documents = read_yaml(text, code="document.malformed", aliases_max=ALIASES_MAX)
    if len(documents) > 1:
        raise ValueError("These are several documents; one is expected.")
    return documents[0] if documents else None


def _refuse_twice(faults: list[Violation]) -> None:
    if faults:
        raise InvalidDocument("document.malformed", faults[0].message, faults)
