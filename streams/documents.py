"""JSON and YAML that people write (definitions, rules), read as JSON values: strictly, and within bounds. Pure.

What JSON has not is refused or stays a text: a time is the text that was written, keys are texts, numbers are finite and have 64 bits.
A key that is given twice is refused. An alias (`*name`) may stand for a tree of aliases, so that a few lines become gigabytes: they
are counted, and so are the values of a document with its aliases followed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from streams.errors import InvalidDocument, Violation
from streams.nesting import parsed
from streams.records import Json
from streams.strict import json_twice, yaml_twice

#: Values of one document, aliases followed.
VALUES_MAX = 200_000
_INT64 = (-(2**63), 2**64 - 1)


class _Loader(yaml.SafeLoader):
    """YAML without times, with counted aliases."""

    aliases_left = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            self.aliases_left -= 1
            if self.aliases_left < 0:
                raise ValueError("It has aliases (*name), or more of them than are taken.")
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# Numbers as in JSON and YAML 1.2: YAML 1.1 takes `1e6` for a text.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))
#: An object or a list as JSON writes them; `{a: 1}` and `[a]` are YAML.
_JSON_BEGIN = re.compile(r"\s*(\{\s*[\"}]|\[\s*[\[{\"\]])")


def begins_like_json(text: str) -> bool:
    """Whether a text is JSON, if it is anything. Read as YAML it might be something else (texts with emoji, large numbers, tabs)."""
    return _JSON_BEGIN.match(text) is not None


def read_documents(text: str | bytes, *, code: str) -> list[Json]:
    """The documents of a text: the one of JSON if it begins like JSON, else as `read_yaml` says, without aliases. Raises as that does."""
    text = text if isinstance(text, str) else text.decode()
    if not begins_like_json(text):
        return read_yaml(text, code=code)
    value = parsed(text)
    faults = json_twice(text.encode(), value)
    if faults:
        raise InvalidDocument(code, faults[0].message, faults)
    return [value]


def read_yaml(text: str | bytes, *, code: str, aliases_max: int = 0) -> list[Json]:
    """The documents of a YAML text (`---` between them), empty ones included.

    Raises `InvalidDocument` (`code`) with a pointer for each key that is given twice (first the document's number, if there are several),
    `yaml.YAMLError`, `ValueError` (aliases, and what JSON has not) and `RecursionError`.
    """
    loader = _Loader(text)
    loader.aliases_left = aliases_max
    try:
        nodes = list(_nodes(loader))
        faults = [fault for place, node in enumerate(nodes) for fault in _twice(node, f"/{place}" if len(nodes) > 1 else "")]
        if faults:
            raise InvalidDocument(code, faults[0].message, faults)
        documents = [loader.construct_document(node) for node in nodes]
    finally:
        loader.dispose()
    for document in documents:
        _check_json(document)
    return documents


def _nodes(loader: _Loader) -> Iterator[yaml.Node]:
    while loader.check_node():
        node = loader.get_node()
        if node is not None:
            yield node


def _twice(node: yaml.Node, at: str) -> Iterator[Violation]:
    for fault in yaml_twice(node):
        yield Violation(code=fault.code, pointer=at + fault.pointer, message=fault.message)


def _check_json(document: Any) -> None:
    """Refuses what YAML has and JSON has not, and what is too large; without recursion."""
    waiting, left = [document], VALUES_MAX
    while waiting:
        value = waiting.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"It has more than {VALUES_MAX} values.")
        match value:
            case None | bool():
                pass
            case str():
                value.encode()  # raises a ValueError for half surrogates
            case int():
                if not _INT64[0] <= value <= _INT64[1]:
                    raise ValueError(f"The number {str(value)[:40]} has more than 64 bits.")
            case float():
                if not math.isfinite(value):
                    raise ValueError(f"{value} is no number in JSON.")
            case list():
                waiting += value
            case dict():
                for key in value:
                    if not isinstance(key, str):
                        raise ValueError(f"The key {key!r} is not a text: put it in quotes.")
                waiting += value.values()
            case _:
                raise ValueError(f"A {type(value).__name__} has no form in JSON.")
