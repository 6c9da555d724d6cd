"""JSON texts within the depth that all our readers bear. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from streams import limits
from streams.records import Json


def parsed(text: str | bytes, *, levels: int = limits.PAYLOAD_DEPTH_MAX) -> Json:
    """The value of a JSON text. Raises ValueError: no JSON, or nested deeper than so many levels.

    A whole number beyond 64 bits comes as the nearest float, as in JavaScript.
    """
    value = orjson.loads(text)
    if len(text) < 2 * levels:  # too short for so many pairs of brackets
        return value
    brackets = text.count(b"[") + text.count(b"{") if isinstance(text, bytes) else text.count("[") + text.count("{")
    # A guess that is quick and never wrong in its no; only then the value is walked.
    if brackets > levels and depth(value) > levels:
        raise ValueError(f"it is nested deeper than {levels} levels")
    return value


def depth(value: Any) -> int:
    """How deep lists and objects lie in each other; without recursion."""
    found, level = 0, [value]
    while level := [child for item in level for child in children(item)]:
        found += 1
    return found


def children(value: Any) -> Any:
    """The values right inside a value."""
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple)) else ()
