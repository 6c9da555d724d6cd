"""Plain CEL expressions as Python functions. Pure.

Plain are literals, paths, `has`, `!`, `&&`, `||`, comparisons, `in` a list of texts, `+`, `-` and `*`.

Most filters say no more than `data.total > 100 && !has(data.test)`. Handing the values over to the library, and the result back, costs ten
times as much as that. A shortcut gives the library's value or none at all (`Unsure`): whatever is not a plain case, by what the
expression says or by what the record has, is left to the library, which also words every error. A property test compares the two.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from streams.matching.reading import chain_at, tokens_of

#: Longer expressions are rare, and what they cost is not their first step.
_CHARACTERS_MAX = 500
#: Brackets and negations: what makes functions call functions.
_NESTING_MAX = 20
#: CEL's integers; and those that a double has exactly.
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1
_EXACT = 2**53
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEXT = re.compile(r""""[^"\\\n]*"|'[^'\\\n]*'""")
_INTEGER = re.compile(r"0|[1-9][0-9]{0,17}")
_DOUBLE = re.compile(r"[0-9]+\.[0-9]+")
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_SUMS: Mapping[str, Callable[[Any, Any], Any]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_PAIRS = frozenset({"&&", "||", "==", "!=", "<=", ">="})
_WORDS = frozenset({"true", "false", "null", "in"})

Shortcut: TypeAlias = Callable[[Mapping[str, Any]], Any]


class Unsure(Exception):
    """The library has to say."""


def shortcut_of(text: str) -> Shortcut | None:
    """A function that gives the value of a valid expression over named values, or raises `Unsure`; None: it is not plain."""
    if len(text) > _CHARACTERS_MAX or text.count("(") + text.count("!") > _NESTING_MAX:
        return None
    parser = _Parser(tokens_of(text))
    try:
        found = parser.any_of()
    except (Unsure, IndexError):
        return None
    return found if parser.at == len(parser.tokens) else None


class _Parser:
    """CEL's precedences. What it does not know raises `Unsure`."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens: list[str] = []
        for token in tokens:
            if self.tokens and self.tokens[-1] + token in _PAIRS:  # the lexer knows no operators of two characters
                self.tokens[-1] += token
            else:
                self.tokens.append(token)
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def any_of(self) -> Shortcut:
        found = self.all_of()
        while self.peek() == "||":
            self.next()
            found = _either(found, self.all_of())
        return found

    def all_of(self) -> Shortcut:
        found = self.relation()
        while self.peek() == "&&":
            self.next()
            found = _both(found, self.relation())
        return found

    def relation(self) -> Shortcut:
        found = self.sum()
        while (token := self.peek()) in _ORDERS or token == "in":
            self.next()
            found = _member(found, self.texts()) if token == "in" else _compared(found, self.sum(), _ORDERS[token], token in ("==", "!="))
        return found

    def texts(self) -> frozenset[str]:
        if self.next() != "[":
            raise Unsure
        found = []
        while True:
            if _TEXT.fullmatch(text := self.next()) is None:
                raise Unsure
            found.append(text[1:-1])
            if (token := self.next()) == "]":
                return frozenset(found)
            if token != ",":
                raise Unsure

    def sum(self) -> Shortcut:
        found = self.product()
        while (token := self.peek()) in ("+", "-"):
            self.next()
            found = _calculated(found, self.product(), _SUMS[token], token == "+")
        return found

    def product(self) -> Shortcut:
        found = self.unary()
        while self.peek() == "*":
            self.next()
            found = _calculated(found, self.unary(), _SUMS["*"], False)
        return found

    def unary(self) -> Shortcut:
        if self.peek() == "!":
            self.next()
            return _not(self.unary())
        if self.peek() == "-":
            self.next()
            if not _INTEGER.fullmatch(self.peek()) and not _DOUBLE.fullmatch(self.peek()):
                raise Unsure
            return _constant(-self.number())
        return self.primary()

    def primary(self) -> Shortcut:
        token = self.peek()
        if token == "(":
            self.next()
            found = self.any_of()
            if self.next() != ")" or self.peek() in (".", "["):
                raise Unsure
            return found
        if _TEXT.fullmatch(token):
            self.next()
            found = _constant(token[1:-1])
        elif _INTEGER.fullmatch(token) or _DOUBLE.fullmatch(token):
            found = _constant(self.number())
        elif token in ("true", "false"):
            self.next()
            found = _constant(token == "true")
        elif token == "has" and self.tokens[self.at + 1 : self.at + 2] == ["("]:
            self.at += 2
            found = _has(*self.path())
            if self.next() != ")":
                raise Unsure
        else:
            found = _at(*self.path())
        if self.peek() in (".", "[", "(", "{", "?"):
            raise Unsure
        return found

    def number(self) -> int | float:
        token = self.next()
        return int(token) if _INTEGER.fullmatch(token) else float(token)

    def path(self) -> tuple[str, tuple[str, ...]]:
        if not _NAME.fullmatch(self.peek()) or self.peek() in _WORDS:
            raise Unsure
        (root, *steps), self.at = chain_at(self.tokens, self.at)
        return root, tuple(steps)


def _constant(value: Any) -> Shortcut:
    return lambda values: value


def _at(root: str, steps: tuple[str, ...]) -> Shortcut:
    def at(values: Mapping[str, Any]) -> Any:
        value: Any = values.get(root)
        for step in steps:
            if type(value) is not dict:
                raise Unsure
            value = value.get(step)
        kind: type = type(value)
        if kind is str or kind is bool or kind is float or (kind is int and _INT_MIN <= value <= _INT_MAX):
            return value
        raise Unsure

    return at


def _has(root: str, steps: tuple[str, ...]) -> Shortcut:
    if not steps:
        raise Unsure
    *above, last = steps

    def has(values: Mapping[str, Any]) -> bool:
        value = values.get(root)
        for step in above:
            if type(value) is not dict:
                raise Unsure
            value = value.get(step)
        if type(value) is not dict:
            raise Unsure
        return last in value

    return has


def _not(operand: Shortcut) -> Shortcut:
    def negated(values: Mapping[str, Any]) -> bool:
        return not _truth(operand(values))

    return negated


def _both(left: Shortcut, right: Shortcut) -> Shortcut:
    def both(values: Mapping[str, Any]) -> bool:
        return _truth(left(values)) and _truth(right(values))

    return both


def _either(left: Shortcut, right: Shortcut) -> Shortcut:
    def either(values: Mapping[str, Any]) -> bool:
        return _truth(left(values)) or _truth(right(values))

    return either


def _truth(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise Unsure


def _member(left: Shortcut, texts: frozenset[str]) -> Shortcut:
    def member(values: Mapping[str, Any]) -> bool:
        value = left(values)
        if type(value) is not str:
            raise Unsure
        return value in texts

    return member


def _compared(left: Shortcut, right: Shortcut, holds: Callable[[Any, Any], bool], equality: bool) -> Shortcut:
    def compared(values: Mapping[str, Any]) -> bool:
        one, other = left(values), right(values)
        kind = type(one)
        if kind is not type(other):
            # CEL compares numbers by value; so does Python as long as both are exact.
            if kind is bool or kind is str or type(other) is bool or type(other) is str or abs(one) > _EXACT or abs(other) > _EXACT:
                raise Unsure
        elif kind is bool and not equality:
            raise Unsure
        return holds(one, other)

    return compared


def _calculated(left: Shortcut, right: Shortcut, of: Callable[[Any, Any], Any], joins: bool) -> Shortcut:
    def calculated(values: Mapping[str, Any]) -> Any:
        one, other = left(values), right(values)
        kind = type(one)
        if kind is not type(other):
            raise Unsure
        if kind is int:
            found = of(one, other)
            if _INT_MIN <= found <= _INT_MAX:
                return found
        elif kind is float:
            found = of(one, other)
            if math.isfinite(found):
                return found
        elif kind is str and joins:
            return one + other
        raise Unsure

    return calculated
