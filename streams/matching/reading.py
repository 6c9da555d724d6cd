"""What a CEL expression reads, and what it requires: read off its tokens, without evaluating it. Pure.

Binding a payload to CEL converts all of it, which costs far more than evaluating: so only the parts that the expression names are
bound (`pruned`). And an expression that requires a field to equal a text lets an index skip it (`required_equalities`). Both err on
the safe side: what is not understood is bound whole, and requires nothing.
"""

from __future__ import annotations

import re
from typing import Any

#: Tokens of CEL as far as needed: texts, comments, names, numbers, white space, anything else.
TOKEN = re.compile(
    r"""[rRbB]{0,2}(?:\"\"\"(?s:.*?)\"\"\"|'''(?s:.*?)'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|//[^\n]*|[A-Za-z_][A-Za-z0-9_]*"""
    r"""|0[xX][0-9a-fA-F]+[uU]?|[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[uU]?|\s+|.""",
    re.DOTALL,
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN_TEXT = re.compile(r""""[^"\\\n]*"|'[^'\\\n]*'""")
_OPENING = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}
#: A macro that binds a name of its own.
_BINDING = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne|map|filter|transformList|transformMap)\s*\(\s*([A-Za-z_][A-Za-z0-9_]*)\s*,")

Steps = tuple[str, ...]  #: a root and keys under it
Tree = dict[str, "Tree | None"]  #: what is read of an object; None: all of it


def tokens_of(text: str) -> list[str]:
    """The tokens, without white space and comments."""
    return [token for token in (found.group() for found in TOKEN.finditer(text)) if not token.isspace() and not token.startswith("//")]


def bound_names(text: str) -> frozenset[str]:
    """The names that the expression's own macros bind."""
    return frozenset(_BINDING.findall(text))


def reads(text: str) -> Tree:
    """Root → what is read of it. A root may be a name that a macro binds; then nobody has a value for it."""
    tokens = tokens_of(text)
    tree: Tree = {}
    index = 0
    while index < len(tokens):
        if _NAME.fullmatch(tokens[index]) and not (index and tokens[index - 1] in (".", "?")):
            steps, index = chain_at(tokens, index)
            _plant(tree, steps)
        else:
            index += 1
    return tree


def chain_at(tokens: list[str], index: int) -> tuple[Steps, int]:
    """The longest path that begins here, and the index behind it."""
    steps = [tokens[index]]
    index += 1
    while index + 1 < len(tokens):
        name = tokens[index + 1]
        called = index + 2 < len(tokens) and tokens[index + 2] == "("
        if tokens[index] == "." and _NAME.fullmatch(name) and not called:
            steps.append(name)
            index += 2
        elif tokens[index] == "[" and _PLAIN_TEXT.fullmatch(name) and index + 2 < len(tokens) and tokens[index + 2] == "]":
            steps.append(name[1:-1])
            index += 3
        else:
            break
    return tuple(steps), index


def _plant(tree: Tree, steps: Steps) -> None:
    for step in steps[:-1]:
        below = tree.setdefault(step, {})
        if below is None:
            return
        tree = below
    tree[steps[-1]] = None


def pruned(value: Any, tree: Tree | None) -> Any:
    """The value with only what is read of it; what is no object stays whole."""
    if tree is None or type(value) is not dict:
        return value
    return {name: pruned(value[name], below) for name, below in tree.items() if name in value}


def required_equalities(text: str) -> tuple[dict[Steps, str], bool]:
    """Paths that must lead to a text for the expression to be true, and whether that is all that it says."""
    conjuncts = _conjuncts(tokens_of(text))
    if conjuncts is None:
        return {}, False
    found: dict[Steps, str] = {}
    for tokens in conjuncts:
        equality = _equality(tokens)
        if equality is not None:
            found.setdefault(*equality)
    return found, len(found) == len(conjuncts)


def _conjuncts(tokens: list[str]) -> list[list[str]] | None:
    """The operands of `&&` at the top; None if the expression is no plain conjunction."""
    parts: list[list[str]] = [[]]
    depth, index = 0, 0
    while index < len(tokens):
        token = tokens[index]
        depth += _OPENING.get(token, 0)
        if depth == 0 and (token == "?" or tokens[index : index + 2] == ["|", "|"]):
            return None
        if depth == 0 and tokens[index : index + 2] == ["&", "&"]:
            parts.append([])
            index += 2
            continue
        parts[-1].append(token)
        index += 1
    return parts


def _equality(tokens: list[str]) -> tuple[Steps, str] | None:
    if tokens and _PLAIN_TEXT.fullmatch(tokens[0]):
        tokens = [*tokens[3:], "=", "=", tokens[0]] if tokens[1:3] == ["=", "="] else []
    if len(tokens) < 4 or tokens[-3:-1] != ["=", "="] or not _PLAIN_TEXT.fullmatch(tokens[-1]) or not _NAME.fullmatch(tokens[0]):
        return None
    steps, end = chain_at(tokens, 0)
    return (steps, tokens[-1][1:-1]) if end == len(tokens) - 3 else None


def value_at(value: Any, steps: Steps, missing: Any) -> Any:
    """What lies in a value at a path; `missing` if it does not exist. Null is a value."""
    for step in steps:
        if not isinstance(value, dict):
            return missing
        value = value.get(step, missing)
    return value
