"""What of a record's payload goes along with a match: all of it if it is small, else the fields that the rule reads. Pure.

A payload that cannot be read (written by something else than this product) goes along unread, as far as it is small: it is no object.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import orjson

from streams import limits, nesting
from streams.correlation.rules import Rule
from streams.matching.expressions import ExpressionFailed
from streams.records import Json

#: A payload of so many characters is small, whatever they are.
SMALL_CHARACTERS = limits.MATCH_PAYLOAD_BYTES_MAX // 4

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def payload_of(rule: Rule, data: str, parsed: Callable[[], Any]) -> tuple[str, bool]:
    """The payload's JSON text, and whether it was cut down. `parsed` gives the payload; it is only asked for one that is too large."""
    if len(data) <= SMALL_CHARACTERS or len(data.encode()) <= limits.MATCH_PAYLOAD_BYTES_MAX:
        return data, False
    try:
        values = parsed()
    except ExpressionFailed:
        return "{}", True
    reads = _reader(rule)
    kept = _of_object(values, reads, limits.MATCH_PAYLOAD_BYTES_MAX) if isinstance(values, dict) else None
    return orjson.dumps({} if kept is None else kept[0]).decode(), True


def _fitting(value: Any, reads: Callable[[str], bool], room: int) -> tuple[Any, int] | None:
    """What of a value fits into so many bytes, and how many it has: all of it, or of an object or a list of objects what is read."""
    size = len(orjson.dumps(value))
    if size <= room:
        return value, size
    if isinstance(value, dict):
        return _of_object(value, reads, room)
    if isinstance(value, list):  # whole, or expressions would count and find other elements
        items = [{name: item[name] for name in item if reads(name)} if isinstance(item, dict) else item for item in value]
        size = len(orjson.dumps(items))
        return (items, size) if size <= room else None
    return None


def _of_object(content: dict[str, Any], reads: Callable[[str], bool], room: int) -> tuple[dict[str, Any], int] | None:
    kept: dict[str, Any] = {}
    used = 2
    for name in sorted(filter(reads, content)):
        around = len(orjson.dumps(name)) + 2
        found = _fitting(content[name], reads, room - used - around)
        if found is not None:
            kept[name] = found[0]
            used += around + found[1]
    return (kept, used) if kept else None


def read_payload(data: str) -> Json:
    """The payload of a record that took part; an empty object if it cannot be read."""
    try:
        return nesting.parsed(data)
    except ValueError:
        return {}


def _reader(rule: Rule) -> Callable[[str], bool]:
    """Whether the rule's expressions after the match (confidence, actions), its groups or its figure may read a field of this name.

    Names are looked for in the texts, not parsed out of them: one too many does no harm.
    """
    document = rule.document if isinstance(rule.document, dict) else {}
    paths = [*rule.group_by, *(path for of in rule.aliases.values() for path in of.values())]
    if rule.condition.field is not None:
        paths.append(rule.condition.field)
    names, text = _read_in(tuple(_texts([document.get("confidence"), document.get("actions"), paths])))
    return lambda name: name in names or (name in text and _NAME.fullmatch(name) is None)


@lru_cache(maxsize=4096)
def _read_in(texts: tuple[str, ...]) -> tuple[frozenset[str], str]:
    text = "\n".join(texts)
    return frozenset(_NAME.findall(text)), text


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
