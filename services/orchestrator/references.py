"""References: `${step-id.result.path[0].x}`, `${input.x}`, `${execution.id}`, and `$${` for a literal `${`.

A string that is one reference keeps the value's type; inside a longer text a string is put in as it is, anything else as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn, TypeAlias

import orjson

from streams.records import Json

_ROOT = re.compile(r"[^.\[\]${}\"'\s]+")
_KEY = re.compile(r"\.([^.\[\]${}\"'\s]+)|\[(0|[1-9][0-9]{0,8})\]|\[\"((?:[^\"\\]|\\.)*)\"\]")

#: A path below a root: keys of objects and indices of lists.
Path: TypeAlias = tuple[str | int, ...]


class ReferenceSyntax(ValueError):
    """The text between `${` and `}` is no reference. The message says why."""


class ReferenceMissing(Exception):
    """The path of a reference does not exist in the value that it leads into."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference: the name before the first dot or bracket, and the path below it."""

    root: str
    path: Path
    text: str

    def __str__(self) -> str:
        return "${" + self.text + "}"


#: A text cut into literal pieces and references.
Pieces: TypeAlias = tuple[str | Reference, ...]
#: Gives the value of a reference; raises `ReferenceMissing`.
Resolve: TypeAlias = Callable[[Reference], Json]


@lru_cache(maxsize=8192)
def parse_text(text: str) -> Pieces:
    """Cuts a text at its references. Raises `ReferenceSyntax`."""
    if "${" not in text:
        return (text,)
    pieces: list[str | Reference] = []
    literal = ""
    at = 0
    while (start := text.find("${", at)) >= 0:
        if start > at and text[start - 1] == "$":
            literal += text[at : start - 1] + "${"
            at = start + 2
            continue
        literal += text[at:start]
        if literal:
            pieces.append(literal)
            literal = ""
        reference, at = _parse_reference(text, start + 2)
        pieces.append(reference)
    literal += text[at:]
    if literal:
        pieces.append(literal)
    return tuple(pieces)


def _parse_reference(text: str, start: int) -> tuple[Reference, int]:
    """The reference whose first character is at `start`, and the place after its closing brace."""
    root = _ROOT.match(text, start)
    if root is None:
        raise ReferenceSyntax(f"A name is missing after ${{ in {text[:80]!r}.")
    path: list[str | int] = []
    at = root.end()
    while key := _KEY.match(text, at):
        name, index, quoted = key.groups()
        if name is not None:
            path.append(name)
        elif index is not None:
            path.append(int(index))
        else:
            path.append(_unquoted(quoted))
        at = key.end()
    if text[at : at + 1] != "}":
        wrong = text[at : at + 1]
        raise ReferenceSyntax(
            f"{wrong!r} is not expected in a reference in {text[:80]!r}." if wrong else f"A }} is missing in {text[:80]!r}."
        )
    return Reference(root=root.group(), path=tuple(path), text=text[start:at]), at + 1


def _unquoted(text: str) -> str:
    try:
        return str(orjson.loads(f'"{text}"'))
    except orjson.JSONDecodeError as error:
        raise ReferenceSyntax(f'"{text}" is not a JSON text.') from error


def references_in(value: Json) -> Iterator[Reference]:
    """All references in the texts of a JSON value. Raises `ReferenceSyntax`."""
    if isinstance(value, str):
        yield from (piece for piece in parse_text(value) if isinstance(piece, Reference))
    elif isinstance(value, dict):
        for item in value.values():
            yield from references_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from references_in(item)


def walk(value: Any, path: Path, reference: Reference) -> Json:
    """The value at `path` below `value`. Raises `ReferenceMissing`."""
    for key in path:
        try:
            found = isinstance(value, dict if isinstance(key, str) else list)
            value = value[key] if found else _nowhere(reference, key, value)
        except (KeyError, IndexError):
            _nowhere(reference, key, value)
    return value


def _nowhere(reference: Reference, key: str | int, value: Any) -> NoReturn:
    shown = f"[{key}]" if isinstance(key, int) else f".{key}"
    raise ReferenceMissing(f"{reference} leads nowhere: there is no {shown} in {_kind(value)}.")


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case dict():
            return "the object with the keys " + (", ".join(map(str, list(value)[:10])) or "(none)")
        case list():
            return f"the list of {len(value)}"
        case _:
            return f"a {type(value).__name__}"


def resolve(value: Json, lookup: Resolve) -> Json:
    """`value` with all references replaced. Raises `ReferenceMissing`."""
    if isinstance(value, str):
        return _resolve_text(value, lookup) if "${" in value else value
    if isinstance(value, dict):
        return {key: resolve(item, lookup) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve(item, lookup) for item in value]
    return value


def _resolve_text(text: str, lookup: Resolve) -> Json:
    pieces = parse_text(text)
    if len(pieces) == 1:
        only = pieces[0]
        return lookup(only) if isinstance(only, Reference) else only
    return "".join(piece if isinstance(piece, str) else _as_text(lookup(piece)) for piece in pieces)


def _as_text(value: Json) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
