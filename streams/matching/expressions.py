"""CEL expressions (Common Expression Language): compiled once, evaluated over named values, without I/O, bounded in length and cost.

JSON integers become CEL ints, other numbers doubles, and CEL refuses arithmetic that mixes them. JSON has one kind of number,
so with `numbers_alike` (rules, filters) an expression that fails for that reason is tried again with every whole number, in
the values and in the expression itself (but not as an index), as a double.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from streams import limits
from streams.errors import InvalidInput
from streams.matching.cost import pattern_parts, shape_of
from streams.matching.reading import TOKEN, Tree, pruned, reads
from streams.matching.shortcuts import Unsure, shortcut_of


class ExpressionFailed(Exception):
    """An expression has no value here: a missing key, a wrong type, a division by zero. The text says which."""


class Expression:
    """A compiled CEL expression. `variables` are the names of the roots that it reads (and of its comprehension variables)."""

    def __init__(self, text: str, *, numbers_alike: bool = False) -> None:
        """Compiles `text`. Raises `InvalidInput` (`expression.invalid`): too long, not CEL, a bad or too large regular expression."""
        if len(text) > limits.EXPRESSION_CHARACTERS_MAX:
            raise InvalidInput("expression.invalid", f"An expression has at most {limits.EXPRESSION_CHARACTERS_MAX} characters.")
        self._program = _compile(text)
        self._numbers_alike = numbers_alike
        self._shape = shape_of(text)
        self._parts = _parts_of(self._shape.patterns, readable=not self._shape.patterns_read)
        self.text = text
        self.variables = frozenset(self._program.variables())
        read = reads(text)
        self._shortcut = None if self._shape.costly else shortcut_of(text)
        # A variable that the tokens do not show is bound whole.
        self._reads: dict[str, Tree | None] = {name: read.get(name) for name in self.variables}

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The value of the expression. Raises `ExpressionFailed`."""
        if self._shortcut is not None:
            try:
                return self._shortcut(values)
            except Unsure:
                pass  # the library says what it is, or why there is none
        return self.by_library(values)

    def by_library(self, values: Mapping[str, Any]) -> Any:
        """As `evaluate`, also of what is plain; only what the expression reads is bound."""
        bound = {name: pruned(values[name], tree) for name, tree in self._reads.items() if name in values}
        if self._shape.costly and self._shape.steps(bound, self._parts) > limits.EXPRESSION_STEPS_MAX:
            raise ExpressionFailed(f"{self.text}: what it reads is so large that it may take more than {limits.EXPRESSION_STEPS_MAX} steps")
        try:
            return self._program.execute(bound)
        except TypeError as error:
            if not self._numbers_alike:
                raise ExpressionFailed(f"{self.text}: {_reason(error)}") from error
        except Exception as error:
            raise ExpressionFailed(f"{self.text}: {_reason(error)}") from error
        try:
            return self._widened_program.execute(widened(bound))
        except Exception as error:
            raise ExpressionFailed(f"{self.text}: {_reason(error)}") from error

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the value is `true`. Raises `ExpressionFailed`, also when the value is no boolean."""
        value = self.evaluate(values)
        if not isinstance(value, bool):
            raise ExpressionFailed(f"{self.text}: the value is {type(value).__name__}, not true or false")
        return value

    @cached_property
    def _widened_program(self) -> Any:
        return _compile(widened_text(self.text))


def _compile(text: str) -> Any:
    import cel  # takes half a second to load (it brings a shell of its own), and many commands compile nothing

    try:
        return cel.compile(text)
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), text)
        raise InvalidInput("expression.invalid", f"This is not a CEL expression: {reason}") from error


def _reason(error: Exception) -> str:
    """Why there is no value. The library says of a missing key no more than its name."""
    return f"no such key: {error.args[0]}" if isinstance(error, KeyError) and error.args else str(error)


def _parts_of(patterns: Sequence[str], *, readable: bool) -> int:
    """The parts of all regular expressions of an expression. Raises `InvalidInput` (`expression.invalid`)."""
    if not readable:
        raise InvalidInput("expression.invalid", "The pattern of `matches` is a text that stands in the expression.")
    parts = 0
    for literal in patterns:
        pattern = _compile(literal).execute({})
        try:
            _compile("''.matches(pattern)").execute({"pattern": pattern})
        except Exception as error:
            reason = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
            raise InvalidInput(
                "expression.invalid", f"{literal[:60]} is not a regular expression that can be used: {reason[:200]}"
            ) from error
        parts += pattern_parts(pattern)
    if parts > limits.PATTERN_PARTS_MAX:
        raise InvalidInput(
            "expression.invalid",
            f"Regular expressions have at most {limits.PATTERN_PARTS_MAX} parts, repetitions written out; here are {parts}.",
        )
    return parts


def widened(value: Any) -> Any:
    """The value with every int as a float, all the way down; truth values stay."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return float(value)
    if isinstance(value, dict):
        return {key: widened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [widened(item) for item in value]
    return value


def widened_text(text: str) -> str:
    """The expression with its whole-number literals as doubles, except a literal that is all there is between brackets (an index)."""
    tokens = [match.group() for match in TOKEN.finditer(text)]
    solid = [index for index, token in enumerate(tokens) if not token.isspace()]
    for place, index in enumerate(solid):
        if not tokens[index].isdigit():
            continue
        before = tokens[solid[place - 1]] if place else ""
        after = tokens[solid[place + 1]] if place + 1 < len(solid) else ""
        if not (before == "[" and after == "]"):
            tokens[index] += ".0"
    return "".join(tokens)


@lru_cache(maxsize=4096)
def compiled(text: str, *, numbers_alike: bool = False) -> Expression:
    """`Expression(text)`, compiled once per process."""
    return Expression(text, numbers_alike=numbers_alike)
