from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import InvalidInput
from streams.matching.expressions import Expression, ExpressionFailed, widened_text


@pytest.mark.parametrize(
    ("text", "data", "expected"),
    [
        ("data.total * 2.0 > 5", {"total": 100}, True),
        ("data.total * 2 > 5", {"total": 100.5}, True),
        ("data.total + data.tax == 3.5", {"total": 3, "tax": 0.5}, True),
        ("data.count > 1", {"count": 1.5}, True),
        ("data.count > 1.5", {"count": 2}, True),
        ("data.count == 2.0", {"count": 2}, True),
        ("data.count % 2 == 0", {"count": 4}, True),
        ("data.list[0] + data.rate > 1", {"list": [1], "rate": 0.5}, True),
        ("data.list[1] * 1.5 == 3.0", {"list": [1, 2]}, True),
        ("int(data.total * 100.0)", {"total": 3}, 300),
        ("'1 + 2.0' == data.text", {"text": "1 + 2.0"}, True),
    ],
)
def test_json_numbers_are_alike(text: str, data: dict[str, object], expected: object) -> None:
    assert Expression(text, numbers_alike=True).evaluate({"data": data}) == expected


def test_without_it_cel_is_strict() -> None:
    with pytest.raises(ExpressionFailed, match=r"overload|Unsupported"):
        Expression("data.total * 2.0").evaluate({"data": {"total": 100}})


@pytest.mark.parametrize("text", ["data.missing > 1", "data.text > 1", "1 / 0 > 0", "data.text * 2.0"])
def test_what_has_no_value_fails_with_the_reason(text: str) -> None:
    with pytest.raises(ExpressionFailed):
        Expression(text, numbers_alike=True).evaluate({"data": {"text": "x"}})


def test_only_true_and_false_hold() -> None:
    with pytest.raises(ExpressionFailed, match="not true or false"):
        Expression("1", numbers_alike=True).holds({})


@pytest.mark.parametrize("text", ["", "a ((", "x" * 5000, "\0", "data.x >"])
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Expression(text)
    assert caught.value.code == "expression.invalid"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a[0] + 1", "a[0] + 1.0"),
        ("[1, 2][ 0 ]", "[1.0, 2.0][ 0 ]"),
        ("x1 + 1.5e3 + 2u + 0x1F", "x1 + 1.5e3 + 2u + 0x1F"),
        ("'a 1' + \"b 2\" + r'3'", "'a 1' + \"b 2\" + r'3'"),
        ("1 // 2", "1.0 // 2"),
        (r"'it\'s 1' + '2'", r"'it\'s 1' + '2'"),
    ],
)
def test_only_whole_number_literals_are_widened(text: str, expected: str) -> None:
    assert widened_text(text) == expected


@given(st.text(max_size=60))
def test_widening_loses_no_text(text: str) -> None:
    assert widened_text(text).replace(".0", "") == text.replace(".0", "")
