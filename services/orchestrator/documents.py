"""Reading documents that people write, JSON or YAML, into JSON values. Pure."""

from __future__ import annotations

import math
import re
from typing import Any

import orjson
import yaml

from streams.errors import InvalidDocument, InvalidInput, Violation
from streams.records import Json
from streams.strict import json_twice, yaml_twice

#: Aliases (`*name`) of a YAML document: each may stand for a tree of aliases, so a few lines could become gigabytes.
ALIASES_MAX = 100
#: An object or a list as JSON writes them; `{a: 1}` and `[a]` are YAML.
_JSON_BEGIN = re.compile(r"\s*(\{\s*[\"}]|\[\s*[\[{\"\]])")
_INT64 = (-(2**63), 2**64 - 1)


class _Loader(yaml.SafeLoader):
    """YAML as JSON: times stay texts, aliases are counted."""

    aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            self.aliases += 1
            if self.aliases > ALIASES_MAX:
                raise InvalidInput("document.malformed", f"The document has more than {ALIASES_MAX} aliases.")
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_document(text: str) -> Json:
    """The document in `text`: JSON if it begins like JSON, else YAML. Raises `InvalidInput` (`document.malformed`) with the line.

    A key that is given twice is malformed too: `InvalidDocument` with `schema.duplicateKey` and pointers.
    A broken JSON document is not tried as YAML, which might read something else into it.
    """
    if _JSON_BEGIN.match(text):
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
        _check_json(document)
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


def _loaded(text: str) -> Any:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        _refuse_twice(list(yaml_twice(node)))
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _refuse_twice(faults: list[Violation]) -> None:
    if faults:
        raise InvalidDocument("document.malformed", faults[0].message, faults)


def _check_json(value: Any) -> None:
    """Refuses what YAML has and JSON has not."""
    match value:
        case None | bool() | str():
            pass
        case int():
            if not _INT64[0] <= value <= _INT64[1]:
                raise ValueError(f"The number {str(value)[:40]} has more than 64 bits.")
        case float():
            if not math.isfinite(value):
                raise ValueError(f"{value} is no number in JSON.")
        case list():
            for item in value:
                _check_json(item)
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise ValueError(f"The key {key!r} is not a text: put it in quotes.")
                _check_json(item)
        case _:
            raise ValueError(f"A {type(value).__name__} has no form in JSON.")
