"""CEL expressions (Common Expression Language): compiled once, evaluated over named values, without I/O, bounded in length.

JSON integers become CEL ints, other numbers doubles. With `numbers_alike` (rules, filters) int and double literals compare
alike, as people expect of JSON: an int is bound as it is and arithmetic that mixes both is retried with doubles.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import cel

from streams import limits
from streams.errors import InvalidInput


class ExpressionFailed(Exception):  # noqa: N818  it is a fact about a record, not a defect
    """An expression has no value here: a missing key, a wrong type, a division by zero. The text says which."""


class Expression:
    """A compiled CEL expression. `variables` are the names of the roots that it reads (and of its comprehension variables)."""

    __slots__ = ("_program", "text", "variables")

    def __init__(self, text: str) -> None:
        """Compiles `text`. Raises `InvalidInput` (`expression.invalid`): too long, or not CEL."""
        if len(text) > limits.EXPRESSION_CHARACTERS_MAX:
            raise InvalidInput("expression.invalid", f"An expression has at most {limits.EXPRESSION_CHARACTERS_MAX} characters.")
        try:
            self._program = cel.compile(text)
        except Exception as error:  # noqa: BLE001  the binding raises ValueError, RuntimeError and others for bad syntax
            raise InvalidInput("expression.invalid", f"This is not a CEL expression: {str(error).strip().splitlines()[0] if str(error).strip() else text}") from error
        self.text = text
        self.variables = frozenset(self._program.variables())

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """The value of the expression; only what it reads is bound. Raises `ExpressionFailed`."""
        bound = {name: values[name] for name in self.variables if name in values}
        try:
            return self._program.execute(bound)
        except Exception as error:  # noqa: BLE001  the binding raises TypeError, ValueError, RuntimeError, KeyError by fault
            raise ExpressionFailed(f"{self.text}: {error}") from error

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the value is `true`. Raises `ExpressionFailed`, also when the value is no boolean."""
        value = self.evaluate(values)
        if not isinstance(value, bool):
            raise ExpressionFailed(f"{self.text}: the value is {type(value).__name__}, not true or false")
        return value


@lru_cache(maxsize=4096)
def compiled(text: str) -> Expression:
    """`Expression(text)`, compiled once per process."""
    return Expression(text)
