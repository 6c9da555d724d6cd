"""Views with parameters that are written out where they are asked. Pure.

ClickHouse answers a recursive view by walking again for each time that the walk names itself; written out in the query it walks once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

#: Views that are written out.
VIEWS = ("causes",)

_TOKEN = re.compile(
    r"""(?P<quoted>'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*")|(?P<name>[A-Za-z_]\w*)|(?P<other>\s+|.)""", re.DOTALL
)
#: What a parameter may be given: a text, a number, or a parameter of the query itself. Anything else is left to the engine.
_GIVEN = re.compile(r"\A(\w+) = ('(?:[^'\\]|\\.|'')*'|-?\d+|\{\w+:[\w(), ]+\})\Z", re.DOTALL)


def written_out(sql: str, bodies: Mapping[str, str], database: str) -> str:
    """A query, as ClickHouse formats it, with calls of views replaced by what they stand for.

    `bodies`: the SELECT of each, its tables with the name of their database. The query passed the guard: a name before a parenthesis that
    is a view's is that view.
    """
    tokens = [(match.lastgroup, match[0]) for match in _TOKEN.finditer(sql)]
    out: list[str] = []
    index = 0
    while index < len(tokens):
        kind, text = tokens[index]
        body = (
            bodies.get(text.strip("`")) if kind in ("name", "quoted") and index + 1 < len(tokens) and tokens[index + 1][1] == "(" else None
        )
        if body is not None and (end := _closing(tokens, index + 1)) is not None:
            given = dict(_given("".join(part for _, part in tokens[index + 2 : end])))
            if given and given.keys() == _parameters(body):
                _drop_database(out, database)
                out.append(f"(\n{_filled(body, given)}\n)")
                index = end + 1
                continue
        out.append(text)
        index += 1
    return "".join(out)


def _closing(tokens: list[tuple[str | None, str]], start: int) -> int | None:
    depth = 0
    for index in range(start, len(tokens)):
        depth += {"(": 1, ")": -1}.get(tokens[index][1], 0)
        if depth == 0:
            return index
    return None


def _given(arguments: str) -> Iterator[tuple[str, str]]:
    """The one argument, if it is of a kind that can be written out."""
    if match := _GIVEN.match(arguments.strip()):
        yield match[1], match[2]


_PLACE = re.compile(r"\{(\w+):(\w+)\}")


def _parameters(body: str) -> set[str]:
    return {match[1] for match in _PLACE.finditer(body)}


def _filled(body: str, given: Mapping[str, str]) -> str:
    # A function, so that a backslash of the value stays one.
    return _PLACE.sub(lambda match: f"CAST({given[match[1]]}, '{match[2]}')", body)


def _drop_database(out: list[str], database: str) -> None:
    """Takes back the name of the database, which stands before the view's."""
    if len(out) >= 2 and out[-1] == "." and out[-2].strip("`") == database:
        del out[-2:]
