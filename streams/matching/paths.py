"""Paths into records, as in `group-by`: dots, and keys with dots or indices as in CEL: `data.user`, `data["a.b"]`, `data.list[0]`.

Pure. Values are compared as JSON values: 1 equals 1.0, 1 is not "1", true is not 1; `canonical` gives equal values equal texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

from streams import limits
from streams.errors import InvalidInput

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_STEP = re.compile(r"""\.([A-Za-z_][A-Za-z0-9_-]*)|\[([0-9]+)\]|\[("(?:[^"\\]|\\.)*")\]|\['((?:[^'\\]|\\.)*)'\]""")
_INTEGERS_EXACT = 2**63

MISSING = object()


class Path:
    """A compiled path; `root` is the record's field that it starts at, `child` the name under it if that is where it ends."""

    __slots__ = ("child", "root", "steps", "text")

    def __init__(self, text: str) -> None:
        """Raises `InvalidInput` (`path.invalid`)."""
        first = _NAME.match(text) if len(text) <= limits.NAME_CHARACTERS_MAX else None
        if first is None:
            raise InvalidInput("path.invalid", f'{text[:60]!r} is not a path: write data.user, data["a.b"] or data.list[0].')
        steps: list[str | int] = []
        at = first.end()
        while at < len(text):
            found = _STEP.match(text, at)
            if found is None:
                raise InvalidInput("path.invalid", f"The path {text[:60]!r} cannot be read from character {at + 1} on.")
            name, index, double, single = found.groups()
            if index is not None:
                steps.append(int(index))
            elif double is not None:
                steps.append(_unquoted(double, text))
            else:
                steps.append(name if name is not None else re.sub(r"\\(.)", r"\1", single))
            at = found.end()
        self.text = text
        self.root = first.group()
        self.steps = tuple(steps)
        self.child = steps[0] if len(steps) == 1 and isinstance(steps[0], str) else None

    def get(self, record: Mapping[str, Any]) -> Any:
        """The value there; `MISSING` if the path does not exist or leads to null."""
        return self.within(record.get(self.root, MISSING))

    def within(self, value: Any) -> Any:
        """As `get`, given the value of the root."""
        for step in self.steps:
            if isinstance(step, str):
                if not isinstance(value, dict):
                    return MISSING
                value = value.get(step, MISSING)
            else:
                if not isinstance(value, list) or step >= len(value):
                    return MISSING
                value = value[step]
        return MISSING if value is None else value


def _unquoted(quoted: str, text: str) -> str:
    try:
        return str(orjson.loads(quoted))
    except ValueError:
        raise InvalidInput("path.invalid", f"The path {text[:60]!r} has a key that is no JSON text.") from None


@lru_cache(maxsize=4096)
def compile_path(text: str) -> Path:
    """`Path(text)`, compiled once per process."""
    return Path(text)


def canonical_value(value: Any) -> Any:
    """The value with every number that is whole written as an integer, so that equal JSON values have equal texts."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _INTEGERS_EXACT else value
    if isinstance(value, list):
        return [canonical_value(item) for item in value]
    if isinstance(value, dict):
        return {key: canonical_value(item) for key, item in value.items()}
    return value


def canonical(value: Any) -> str:
    """The compact JSON text of the value; equal values have equal texts, whatever the order of their keys."""
    if isinstance(value, str):
        return orjson.dumps(value).decode()
    return orjson.dumps(canonical_value(value), option=orjson.OPT_SORT_KEYS).decode()
