"""Plain expressions as Python functions: what they say is what the library says, or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.errors import InvalidInput
from streams.matching.expressions import Expression, ExpressionFailed
from streams.matching.shortcuts import Unsure, shortcut_of

NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 7, 2**31, 2**53, 2**53 + 1, 2**62, 2**63 - 1, -(2**63), 2**63, 0.0, -0.0, 0.5, 1.0, 2.0, 1e300, -7.25]
)  # fmt: skip
LEAVES = NUMBERS | st.none() | st.booleans() | st.sampled_from(["", "a", "b", "ä", "\U0001f600", "\uffff"])
VALUES = LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.sampled_from(["x", "y"]), LEAVES, max_size=2)
DATA = st.dictionaries(st.sampled_from(["x", "y", "z"]), VALUES, max_size=3) | LEAVES
ATOMS = st.sampled_from(
    [
        "data.x", "data.y", "data.x.y", 'data["x"]', "data.z", "type", "data", "1", "0", "-1", "2", "9007199254740993", "1.5", "0.0",
        "-2.0", "true", "false", '"a"', "'b'", '""', "null", "has(data.x)", "has(data.x.y)", "!has(data.z)", 'data.x in ["a", "b"]',
        "data.x in [1]", "size(data)", '"\\u00e4"', "1u", "-data.x", "data.x[0]", "nothing", "(data.x)", "(data.x).y",
        "type.startsWith('a')",
    ]
)  # fmt: skip
TEXTS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["&&", "||", "==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "in"]), inner).map(" ".join),
        inner.map("({})".format), inner.map("!{}".format), st.tuples(inner, inner, inner).map(lambda three: "{} ? {} : {}".format(*three)),
    ),
    max_leaves=5,
)  # fmt: skip


def said(ask: Any) -> Any:
    """Value and type, or that there is none."""
    try:
        value = ask()
    except ExpressionFailed:
        return "no value"
    return type(value), repr(value)


@settings(max_examples=500, deadline=None)  # the first compiles, which loads the library
@given(text=TEXTS, data=DATA, alike=st.booleans())
def test_a_shortcut_says_what_the_library_says(text: str, data: Any, alike: bool) -> None:
    try:
        expression = Expression(text, numbers_alike=alike)
    except InvalidInput:
        return
    shortcut = shortcut_of(text)
    if shortcut is None:
        return
    values = {"data": data, "type": "order.paid"}
    try:
        value = shortcut(values)
    except Unsure:
        return
    assert said(lambda: value) == said(lambda: expression.by_library(values))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("!has(data.test)", True), ("data.total * 100", 1200), ('"EUR"', "EUR"), ("data.total > 11.5 && data.kind == 'a'", True),
        ("data.total < 3 || data.kind in ['b', \"a\"]", True), ("data.kind + '-' + type", "a-order.paid"), ("(1 + 2) * 3 == 9", True),
        ("data.a.b != -1", True), ("!(data.total >= 12) || false", False), ('data["kind"] == "a"', True),
    ],
)  # fmt: skip
def test_plain_expressions_are_not_left_to_the_library(text: str, value: Any) -> None:
    shortcut = shortcut_of(text)
    assert shortcut is not None
    assert shortcut({"data": {"total": 12, "kind": "a", "a": {"b": 5}}, "type": "order.paid"}) == value


@pytest.mark.parametrize(
    "text", ["size(data.x) > 1", "data.x ? 1 : 2", "[1]", "data.x[0]", "data.l.exists(e, e > 1)", "1u", "a" * 501, "(" * 400]
)
def test_what_is_not_plain_is(text: str) -> None:
    assert shortcut_of(text) is None
