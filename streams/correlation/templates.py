"""`{{…}}` in actions: CEL inside JSON texts. Compiled when a rule is read, rendered when it fires. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import orjson

from streams.errors import InvalidInput
from streams.matching.expressions import Expression, ExpressionFailed, compiled
from streams.matching.reading import bound_names
from streams.records import Json, iso

_HOLE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)

#: What an expression in an action may read.
ROOTS = frozenset({"rule", "group", "composite", "events"})


@dataclass(frozen=True, slots=True)
class Text:
    """A text with holes. One hole and nothing else keeps the value's type."""

    parts: tuple[str | Expression, ...]

    def render(self, values: Mapping[str, Any]) -> Json:
        """Raises `ExpressionFailed`: an expression has no value, or one that JSON cannot say."""
        found = [part if isinstance(part, str) else json_of(part.evaluate(values), part.text) for part in self.parts]
        if len(found) == 1:
            return found[0]
        return "".join(part if isinstance(part, str) else orjson.dumps(part).decode() for part in found)


#: A JSON value with `Text` where a text has holes; objects and arrays are kept as they are.
Template: TypeAlias = Any

Fault: TypeAlias = Callable[[str, str, str], None]  #: code, pointer, message


def compile_template(value: Json, at: str, fault: Fault) -> Template:
    """The value with its texts compiled, at any depth (not the names of fields). Faults are told with their pointer."""
    if isinstance(value, str):
        return _text(value, at, fault)
    if isinstance(value, dict):
        return {str(name): compile_template(item, f"{at}/{escaped(name)}", fault) for name, item in value.items()}
    if isinstance(value, list):
        return [compile_template(item, f"{at}/{index}", fault) for index, item in enumerate(value)]
    return value


def _text(text: str, at: str, fault: Fault) -> str | Text:
    pieces = _HOLE.split(text)
    if len(pieces) == 1:
        if "{{" in text:
            fault("template.invalid", at, "A template begins with {{ but does not end with }}.")
        return text
    parts: list[str | Expression] = []
    for index, piece in enumerate(pieces):
        if index % 2 == 0:
            if piece:
                parts.append(piece)
            continue
        try:
            expression = compiled(piece.strip(), numbers_alike=True)
        except InvalidInput as error:
            fault(error.code, at, error.message)
            continue
        unknown = expression.variables - ROOTS - bound_names(expression.text)
        if unknown:
            names, known = ", ".join(sorted(unknown)), ", ".join(sorted(ROOTS))
            fault("expression.unknown-name", at, f"There is no {names} in {{{{{piece}}}}}; a template reads {known}.")
        parts.append(expression)
    return Text(tuple(parts))


def render(template: Template, values: Mapping[str, Any]) -> Json:
    """The JSON value. Raises `ExpressionFailed`."""
    if isinstance(template, Text):
        return template.render(values)
    if isinstance(template, dict):
        return {name: render(item, values) for name, item in template.items()}
    if isinstance(template, list):
        return [render(item, values) for item in template]
    return template


_PLAIN = frozenset({str, int, bool, type(None)})


def json_of(value: Any, text: str) -> Json:
    """The value of an expression as JSON: times as RFC 3339, durations as seconds."""
    if type(value) in _PLAIN:  # most are
        return value
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, dict):
        # CEL's maps have no order; what is intended must be the same, byte for byte, when it is intended again.
        return {str(name): json_of(value[name], text) for name in sorted(value, key=str)}
    if isinstance(value, (list, tuple)):
        return [json_of(item, text) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ExpressionFailed(f"{text}: JSON has no {value}")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ExpressionFailed(f"{text}: JSON has no {type(value).__name__}")


def escaped(name: Any) -> str:
    """A part of a JSON pointer (RFC 6901)."""
    return str(name).replace("~", "~0").replace("/", "~1")
