"""Expressions are bounded in cost before they are evaluated: the time that they take says nothing here, the bound does."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import limits
from streams.errors import InvalidInput
from streams.matching.cost import pattern_parts, shape_of
from streams.matching.expressions import Expression, ExpressionFailed


def evaluated(text: str, value: Any) -> Any:
    return Expression(text, numbers_alike=True).evaluate({"data": {"v": value, "w": value}})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data.v.exists(a, data.v.exists(b, data.v.exists(c, a + b + c < 0)))", list(range(200))),
        ("data.v.map(a, a).size() > 0", list(range(10_000))),
        ("data.v.filter(a, a > 5).size() > 0", list(range(10_000))),
        ("data.v.exists(a, data.w == data.v)", list(range(3000))),
        ("data.v.exists(a, a in data.w)", [-1] * 3000),
        ("data.v.map(a, data.w).size() > 0", ["x"] * 3000),
        ("(" + "+".join(["data.v"] * 300) + ").size() > 0", "x" * 1_000_000),
        ("[data.v]" + ".map(a, a + a)" * 60 + ".size() > 0", "x"),
        ("[data.v]" + ".map(a, a + a + a + a)" * 150 + ".size() > 0", [1]),
        ("data.v.all(a, data.w.matches('^(a|b|c|d)+x$'))", ["ab" * 50_000] * 100),
        ("data.v" + ".map(a, data.v" * 10 + ")" * 10 + ".size() > 0", list(range(10))),
        ('data.v.matches("(a{40}){40}")', "a" * 100_000),
        ("data.v.exists(k, data.v[k] == data.w)", {str(number): number for number in range(3000)}),
    ],
)
def test_what_may_take_too_long_has_no_value(text: str, value: Any) -> None:
    with pytest.raises(ExpressionFailed, match="steps"):
        evaluated(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data.v.exists(a, a == 9999)", list(range(10_000))),
        ("data.v.exists(a, data.w.exists(b, a + b == 198))", list(range(100))),
        ("data.v.map(a, a * 2).size() == 1000", list(range(1000))),
        ("data.v.all(a, a.startsWith('x') && a.matches('^x+$'))", ["x" * 100] * 100),
        ("data.v.exists(a, a in data.w)", [1] * 300),
        ("data.v.contains('b') || data.v.size() > 5", "a" * 1_000_000),
        ('data.v.matches("error|warning: .*")', "a" * 1_000_000 + "error"),
        ('data.v.matches("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")', "00000000-0000-0000-0000-000000000000"),
        (r'data.v.matches("(\\d{1,3}\\.){3}\\d{1,3}")', "127.0.0.1"),
        ("1+1+1+1+1+1+1+1+1+1+1 == 11", "x" * 1_000_000),
        ("data.v.map(a, a + a).size() == 3", ["x", "y", "z"]),
    ],
)
def test_what_people_write_has_one(text: str, value: Any) -> None:
    assert evaluated(text, value) is True


@pytest.mark.parametrize(
    "text",
    [
        'data.v.matches("[")',
        'matches(data.v, "(")',
        'data.v.matches("(a{1000}){1000}")',
        'data.v.matches("(a{100}){100}")',
        r'data.v.matches("(\\pL{200}){10}")',
        "data.v.matches(data.w)",
        "data.v.matches('a' + 'b')",
        "matches(data.v, data.w)",
        "data.v.exists(a, a.matches(r'*'))",
    ],
)
def test_patterns_that_are_bad_too_large_or_read_are_refused_when_compiled(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Expression(text)
    assert caught.value.code == "expression.invalid"


def test_a_pattern_that_tries_all_ways_elsewhere_is_linear_here() -> None:
    assert evaluated('data.v.matches("^(a+)+$")', "a" * 20_000 + "b") is False


@pytest.mark.parametrize(
    ("pattern", "parts"),
    [
        ("", 0), ("abc", 3), ("a{3}", 3), ("a{2,5}", 5), ("a{2,}", 3), ("a{0}", 1), ("(ab){10}", 30), ("(a{10}){10}", 110),
        ("a{10}b{10}", 20), (r"\{3}", 2 + 1), (r"\d{2}", 100), ("[abc]{2}", 8), (r"[^\w]", 54), ("[]]", 2), (r"\p{Greek}", 50),
        ("a{x}", 4), ("(", 1), (")", 1), ("[", 2), ("\\", 1),
    ],
)  # fmt: skip
def test_the_parts_of_a_pattern(pattern: str, parts: int) -> None:
    assert pattern_parts(pattern) == parts


@given(st.text(alphabet="ab(){}[]\\,123^*+?|pP.w", max_size=30))
def test_any_text_has_parts(pattern: str) -> None:
    assert 0 <= pattern_parts(pattern) < math.inf


@given(st.text(alphabet="ab()[]{}.,+'\" matchesmapv", max_size=60))
def test_any_text_has_a_shape(text: str) -> None:
    assert shape_of(text).steps({"a": [1, {"b": "x"}]}, 5) >= 0


def test_what_costs_the_same_whatever_it_reads_is_not_looked_at() -> None:
    assert not shape_of("data.v > 1 && data.w == 'x' || has(data.z) && data.v + data.w > 2").costly
    assert shape_of("data.v.exists(a, a > 1)").nesting == 1
    assert limits.EXPRESSION_STEPS_MAX > 100_000
