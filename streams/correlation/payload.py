"""What of a record's payload goes along with a match: all of it if it is small, else the fields that the rule reads. Pure.

A payload that cannot be read (written by something else than this product) goes along unread, as far as it is small: it is no object.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson

from streams import limits, nesting
from streams.correlation.rules import Rule
from streams.matching.expressions import ExpressionFailed
from streams.matching.paths import compile_path
from streams.records import Json

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def payload_of(rule: Rule, data: str, parsed: Callable[[], Any]) -> tuple[str, bool]:
    """The payload's JSON text, and whether it was cut down. `parsed` gives the payload; it is only asked for one that is too large."""
    if len(data) <= limits.MATCH_PAYLOAD_BYTES_MAX // 4 or len(data.encode()) <= limits.MATCH_PAYLOAD_BYTES_MAX:
        return data, False
    try:
        values = parsed()
    except ExpressionFailed:
        return "{}", True
    if not isinstance(values, dict):
        return "{}", True
    kept: dict[str, Any] = {}
    size = 2
    for name in sorted(_names_read(rule) & values.keys()):
        content = orjson.dumps({name: values[name]})
        if size + len(content) <= limits.MATCH_PAYLOAD_BYTES_MAX:
            kept[name] = values[name]
            size += len(content)
    return orjson.dumps(kept).decode(), True


def read_payload(data: str) -> Json:
    """The payload of a record that took part; an empty object if it cannot be read."""
    try:
        return nesting.parsed(data)
    except ValueError:
        return {}


@lru_cache(maxsize=4096)
def _texts_read(rule_id: str, text: str) -> frozenset[str]:
    return frozenset(_NAME.findall(text))


def _names_read(rule: Rule) -> frozenset[str]:
    """Names of fields of the payload that the rule's expressions after the match, its groups and its figure may read."""
    document = rule.document if isinstance(rule.document, dict) else {}
    texts = orjson.dumps([document.get("confidence"), document.get("actions")]).decode()
    paths = [*rule.group_by, *(path for of in rule.aliases.values() for path in of.values())]
    if rule.condition.field is not None:
        paths.append(rule.condition.field)
    found = {str(steps[0]) for path in paths if path not in rule.aliases and (steps := compile_path(path).steps)}
    return _texts_read(rule.id, texts) | found
