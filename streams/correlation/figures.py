"""The figures that conditions are tested with: incremental, exact, and able to take a value back.

A figure is fed the values of the records of a window. Adding and removing are inverse to each other, so a window slides and an
out-of-order record is put in its place without counting anew. Sums are exact whatever the order and the magnitudes: they are
kept as integers times a power of two, and rounded once, when they are asked for (the correctly rounded sum, as `math.fsum`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

from sortedcontainers import SortedList

from streams.correlation.rules import Rule
from streams.matching.paths import MISSING, canonical

#: Types whose field holds numbers; `value_count` takes any JSON value.
NUMERIC = frozenset({"value_sum", "value_avg", "value_min", "value_max", "value_percentile", "anomaly"})
#: The most of a double; what is beyond is said as this.
_MOST = sys.float_info.max


def value_of(rule_type: str, value: Any) -> Any:
    """The value as figures take it; `MISSING` where the record takes no part: null, or no number where one is needed.

    Distinct values are compared as JSON values: 1 equals 1.0, `true` is not 1.
    """
    if value is MISSING or value is None:
        return MISSING
    kind = type(value)
    if rule_type in NUMERIC:
        return value if kind is int or (kind is float and math.isfinite(value)) else MISSING
    if kind is str or kind is int or (kind is float and math.isfinite(value)):
        return value
    return "", canonical(value)  # a text of its own kind, so that it equals no string


class Figure(Protocol):
    """The figure over the values that were added and not removed."""

    def add(self, value: Any) -> None:
        """One more value."""

    def remove(self, value: Any) -> None:
        """A value that was added is taken back."""

    @property
    def value(self) -> float:
        """The figure; of an empty window 0."""


class Distinct:
    """How many different values there are: O(1)."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[Any, int] = {}

    def add(self, value: Any) -> None:
        """See `Figure.add`."""
        counts = self._counts
        counts[value] = counts.get(value, 0) + 1

    def remove(self, value: Any) -> None:
        """See `Figure.remove`."""
        counts = self._counts
        left = counts[value] - 1
        if left:
            counts[value] = left
        else:
            del counts[value]

    @property
    def value(self) -> float:
        """See `Figure.value`."""
        return len(self._counts)


class Sum:
    """The exact sum, rounded when it is read: O(1)."""

    __slots__ = ("_shift", "_total", "count")

    def __init__(self) -> None:
        self._total = 0  # the sum is _total / 2**_shift
        self._shift = 0
        self.count = 0

    def add(self, value: float) -> None:
        """See `Figure.add`."""
        scaled = self._scaled(value)  # may scale the total as well
        self._total += scaled
        self.count += 1

    def remove(self, value: float) -> None:
        """See `Figure.remove`."""
        scaled = self._scaled(value)
        self._total -= scaled
        self.count -= 1

    def _scaled(self, value: float) -> int:
        if type(value) is int:
            return value << self._shift
        numerator, denominator = value.as_integer_ratio()
        digits = denominator.bit_length() - 1
        if digits > self._shift:
            self._total <<= digits - self._shift
            self._shift = digits
        return numerator << (self._shift - digits)

    @property
    def value(self) -> float:
        """See `Figure.value`."""
        return quotient(self._total, 1 << self._shift)

    @property
    def mean(self) -> float:
        """The exact mean, rounded once; 0 without values."""
        return quotient(self._total, self.count << self._shift) if self.count else 0.0


class Mean(Sum):
    """The mean: O(1)."""

    __slots__ = ()

    @property
    def value(self) -> float:
        """See `Figure.value`."""
        return self.mean


class Ranked:
    """The value at a rank counted from the least: least, greatest and percentiles. O(log n) by a sorted list."""

    __slots__ = ("_rank", "_values")

    def __init__(self, rank: Callable[[int], int]) -> None:
        """`rank`: the position (from 1) for a number of values."""
        self._rank = rank
        self._values: Any = SortedList()

    def add(self, value: float) -> None:
        """See `Figure.add`."""
        self._values.add(value)

    def remove(self, value: float) -> None:
        """See `Figure.remove`."""
        self._values.remove(value)

    @property
    def value(self) -> float:
        """See `Figure.value`."""
        values = self._values
        return values[self._rank(len(values)) - 1] if values else 0.0


def quotient(numerator: int, denominator: int) -> float:
    """The correctly rounded quotient; beyond the range of a double its greatest."""
    try:
        return numerator / denominator
    except OverflowError:
        return _MOST if (numerator < 0) == (denominator < 0) else -_MOST


@lru_cache(maxsize=256)
@lru_cache(maxsize=256)
def rank_of(percentile: float) -> Callable[[int], int]:
    """Nearest rank: ⌈p/100·n⌉, at least 1, without the rounding of floats (7 of 100 is 7, not 8)."""
    exact = Fraction(str(percentile)) / 100
    numerator, denominator = exact.numerator, exact.denominator
    return lambda count: max(1, -(-numerator * count // denominator))


def _first(count: int) -> int:
    return 1


def _last(count: int) -> int:
    return count


NewFigure: TypeAlias = Callable[[], Figure]


def figure_for(rule: Rule) -> NewFigure | None:
    """What makes the rule's figure, empty; None: it is the number of records."""
    match rule.type:
        case "value_count":
            return Distinct
        case "value_sum":
            return Sum
        case "value_avg":
            return Mean
        case "value_min":
            return lambda: Ranked(_first)
        case "value_max":
            return lambda: Ranked(_last)
        case "value_percentile":
            rank = rank_of(rule.condition.percentile if rule.condition.percentile is not None else 50.0)
            return lambda: Ranked(rank)
        case _:
            return None
