"""The names in a CEL expression: steps, variables and functions that cannot exist are found before anything runs.

Names are read from the expression's tokens. Where it cannot be told what a name means, it passes: then its evaluation decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from services.orchestrator.sight import Sight, Visible
from streams.errors import InvalidInput, Violation
from streams.matching.expressions import compiled

#: Texts, comments, names and numbers, anything else.
_TOKEN = re.compile(
    r"""[rRbB]{0,2}(?:\"\"\"(?s:.*?)\"\"\"|'''(?s:.*?)'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|//[^\n]*|\w+|\s+|.""", re.DOTALL
)
#: A text without escapes or prefix, which is the name that it shows.
_PLAIN_TEXT = re.compile(r"\"[^\"\\\n]+\"|'[^'\\\n]+'")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: Variables of every expression. `event` is null where no event has started the execution.
VARIABLES = frozenset({"input", "steps", "event"})
#: Variables of a fallback's condition.
FALLBACK_VARIABLES = VARIABLES | {"error"}
#: Names that stand for themselves: types and name spaces of the language.
# fmt: off
_BUILT_IN = frozenset({
    "bool", "bytes", "double", "duration", "dyn", "google", "int", "list", "map", "null_type", "optional", "string", "timestamp",
    "type", "uint",
})
#: Macros that bind the names before their last argument.
_BINDING = frozenset({
    "all", "exists", "exists_one", "existsOne", "filter", "map", "optMap", "optFlatMap", "transformList", "transformMap",
})
_FUNCTIONS = _BINDING | {
    "has", "in", "size", "int", "uint", "double", "string", "bytes", "type", "dyn", "timestamp", "duration", "matches",
    "contains", "startsWith", "endsWith", "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear",
    "getHours", "getMinutes", "getSeconds", "getMilliseconds", "of", "ofNonZeroValue", "none", "value", "hasValue", "or",
    "orValue",
}
# fmt: on


def expression_faults(
    text: str, pointer: str, seen: Sight, visible: Visible | None, variables: frozenset[str] = VARIABLES
) -> Iterator[Violation]:
    """Faults of an expression where `visible` can be seen (None: all steps outside of turns) and `variables` have values."""
    steps = None
    if visible is not None:
        variables, steps = variables | visible.names, visible.steps | visible.latest
    try:
        expression = compiled(text)
    except InvalidInput as error:
        yield Violation(code=error.code, pointer=pointer, message=error.message)
        return
    tokens = _tokens(text)
    bound = set(_bound(tokens))
    for name in sorted(name for name in expression.variables if _NAME.fullmatch(name)):
        if name not in variables | _BUILT_IN | bound:
            known = ", ".join(sorted(variables))
            yield Violation(code="expression.invalid", pointer=pointer, message=f"There is no variable {name!r}. There are: {known}.")
    for name in dict.fromkeys(name for name, after in pairwise(tokens) if after == "(" and _NAME.fullmatch(name)):
        if name not in _FUNCTIONS:
            yield Violation(code="expression.invalid", pointer=pointer, message=f"There is no function {name!r}.")
    if "steps" not in bound:
        for name in dict.fromkeys(_steps(tokens)):
            yield from seen.step(name, pointer, steps)


def _tokens(text: str) -> list[str]:
    """The tokens that mean something; an empty one at each end, so that each has neighbours."""
    found = (match.group() for match in _TOKEN.finditer(text))
    return ["", *(token for token in found if not token.isspace() and not token.startswith("//")), "", "", ""]


def _bound(tokens: list[str]) -> Iterator[str]:
    """Names that a macro binds: `.map(x, …)`, `.all(k, v, …)`."""
    for at, name in enumerate(tokens):
        if name in _BINDING and tokens[at - 1] == "." and tokens[at + 1] == "(":
            while at + 3 < len(tokens) and _NAME.fullmatch(tokens[at + 2]) and tokens[at + 3] == ",":
                yield tokens[at + 2]
                at += 2


def _steps(tokens: list[str]) -> Iterator[str]:
    """Ids of the steps that are named as they are: `steps["id"]`, `steps.id`. Computed ids are not known here."""
    for at, token in enumerate(tokens):
        if token != "steps" or tokens[at - 1] == ".":
            continue
        joint, name, after = tokens[at + 1 : at + 4]
        if joint == "." and _NAME.fullmatch(name) and after != "(":
            yield name
        elif joint == "[" and after == "]" and _PLAIN_TEXT.fullmatch(name):
            yield name[1:-1]
