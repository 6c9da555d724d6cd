"""Figures: exact, and the same after any adding and removing as counted anew."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.correlation.figures import Distinct, Figure, Mean, Ranked, Sum, rank_of, value_of
from streams.matching.paths import MISSING

NUMBERS = st.one_of(
    st.integers(-(2**64), 2**64), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.1, -0.0, 1e308, 5e-324])
)


def rounded(exact: Fraction) -> float:
    try:
        return exact.numerator / exact.denominator
    except OverflowError:
        return sys.float_info.max if exact > 0 else -sys.float_info.max


@given(values=st.lists(NUMBERS, min_size=1), keep=st.data())
def test_sums_are_exact_and_removing_is_the_inverse_of_adding(values: list[float], keep: st.DataObject) -> None:
    gone = keep.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    total, mean = Sum(), Mean()
    for figure in (total, mean):
        for value in values:
            figure.add(value)
        for value, away in zip(values, gone, strict=True):
            if away:
                figure.remove(value)
    left = [Fraction(value) for value, away in zip(values, gone, strict=True) if not away]
    assert total.value == rounded(sum(left, Fraction(0)))
    assert mean.value == (rounded(sum(left, Fraction(0)) / len(left)) if left else 0.0)


@given(values=st.lists(st.floats(-1e9, 1e9)))
def test_a_sum_of_floats_is_that_of_fsum(values: list[float]) -> None:
    total = Sum()
    for value in values:
        total.add(value)
    assert total.value == math.fsum(values)


def test_sums_do_not_drift() -> None:
    total = Sum()
    for value in [1e16, 0.1, 0.2]:
        total.add(value)
    total.remove(1e16)
    assert total.value == 0.30000000000000004


@given(values=st.lists(NUMBERS, min_size=1, max_size=30), percentile=st.sampled_from([0, 1, 50, 55, 99.9, 100]), data=st.data())
def test_percentiles_follow_the_nearest_rank(values: list[float], percentile: float, data: st.DataObject) -> None:
    figure = Ranked(rank_of(percentile))
    for value in values:
        figure.add(value)
    away = data.draw(st.lists(st.sampled_from(range(len(values))), unique=True, max_size=len(values) - 1))
    for index in away:
        figure.remove(values[index])
    left = sorted(value for index, value in enumerate(values) if index not in away)
    assert figure.value == left[max(1, math.ceil(Fraction(str(percentile)) * len(left) / 100)) - 1]


def test_the_rank_is_that_of_the_decimal_as_written() -> None:
    assert math.ceil(7 / 100 * 100) == 8, "floats would say so"
    assert [rank_of(7)(100), rank_of(55)(20), rank_of(99.9)(1000), rank_of(0)(5), rank_of(100)(5), rank_of(95)(1)] == [7, 11, 999, 1, 5, 1]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("value_sum", 1, 1), ("value_sum", 1.5, 1.5), ("value_sum", True, MISSING), ("value_sum", "1", MISSING),
        ("value_sum", None, MISSING),
        ("value_sum", math.nan, MISSING), ("value_max", math.inf, MISSING), ("value_min", [1], MISSING), ("value_avg", MISSING, MISSING),
        ("value_count", "1", "1"), ("value_count", None, MISSING), ("value_count", MISSING, MISSING),
    ],
)  # fmt: skip
def test_what_takes_part(kind: str, value: Any, expected: Any) -> None:
    assert value_of(kind, value) is expected or value_of(kind, value) == expected


def test_distinct_values_are_json_values() -> None:
    figure: Figure = Distinct()
    values = [1, 1.0, "1", True, [1], [1.0], "[1]", {"a": 1, "b": 2}, {"b": 2, "a": 1.0}, 0, False, -0.0]
    for value in values:
        figure.add(value_of("value_count", value))
    assert figure.value == 8  # 1, "1", true, [1], "[1]", {a, b}, 0, false
    for value in values:
        figure.remove(value_of("value_count", value))
    assert figure.value == 0
