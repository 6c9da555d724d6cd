"""Keys that a JSON or YAML document gives twice: parsers keep the last and say nothing, and what was meant is gone. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from streams.errors import Violation
from streams.records import Json

_KEY_MARK = re.compile(rb'"\s*:')
_CODE = "schema.duplicateKey"


class _Pairs(dict[str, Any]):
    """An object that remembers the keys that it was given again."""

    twice: tuple[str, ...] = ()


def json_twice(text: bytes, value: Json) -> list[Violation]:
    """The keys that a JSON text gives twice; `value` is what it was parsed to, which tells at little cost that there are none."""
    if len(_KEY_MARK.findall(text)) == _keys(value):
        return []
    try:
        return list(_found(json.loads(text, object_pairs_hook=_pairs, parse_int=_nothing, parse_float=_nothing), ""))
    except RecursionError:
        return [Violation(code=_CODE, pointer="", message="A key is given more than once somewhere, too deep down to say where.")]


def yaml_twice(root: yaml.Node | None) -> Iterator[Violation]:
    """The keys that a composed YAML document gives twice in one mapping."""
    waiting: list[tuple[yaml.Node, str]] = [] if root is None else [(root, "")]
    met: set[int] = set()
    while waiting:
        node, pointer = waiting.pop()
        if id(node) in met:
            continue  # an alias
        met.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(item, f"{pointer}/{place}") for place, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, item in node.value:
                name = key.value if isinstance(key, yaml.ScalarNode) else None
                if name is None:
                    continue
                if name in seen and name != "<<":
                    yield _violation(f"{pointer}/{_escaped(name)}", name)
                seen.add(name)
                waiting.append((item, f"{pointer}/{_escaped(name)}"))


def _nothing(_: str) -> None:
    """Numbers do not matter here, and very long ones are slow to read."""


def _pairs(pairs: list[tuple[str, Any]]) -> _Pairs:
    found = _Pairs(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        found.twice = tuple(name for name in found if names.count(name) > 1)
    return found


def _found(value: Any, pointer: str) -> Iterator[Violation]:
    if isinstance(value, _Pairs):
        yield from (_violation(f"{pointer}/{_escaped(name)}", name) for name in value.twice)
        for name, item in value.items():
            yield from _found(item, f"{pointer}/{_escaped(name)}")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _found(item, f"{pointer}/{place}")


def _violation(pointer: str, name: str) -> Violation:
    return Violation(code=_CODE, pointer=pointer, message=f"The key {name[:60]!r} is given more than once here.")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _keys(value: Json) -> int:
    """How many keys all objects of a value have together; without recursion."""
    count, level = 0, [value]
    while level:
        count += sum(len(item) for item in level if isinstance(item, dict))
        holders = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level = [item for holder in holders for item in holder]
    return count
