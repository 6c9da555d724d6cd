"""What an expression reads and requires, read off its tokens."""

from __future__ import annotations

from typing import Any

import pytest

from streams.matching.expressions import Expression, ExpressionFailed
from streams.matching.reading import bound_names, pruned, reads, required_equalities


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("data.a.b > 1", {"data": {"a": {"b": None}}}),
        ("data.a == 1 && data.a.b == 2", {"data": {"a": None}}),
        ("data.a.b == 2 && data.a == 1", {"data": {"a": None}}),
        ("data.list[0].x", {"data": {"list": None}}),
        ('data["a.b"].c', {"data": {"a.b": {"c": None}}}),
        (r'data["a\"b"].c', {"data": None}),
        ("data[name]", {"data": None, "name": None}),
        ("data.text.startsWith('x')", {"data": {"text": None}}),
        ("size(data)", {"size": None, "data": None}),
        ("has(data.a.b)", {"has": None, "data": {"a": {"b": None}}}),
        ("'data.x' + type // data.y", {"type": None}),
        ("data.list.exists(x, x.y == data.z)", {"data": {"list": None, "z": None}, "x": None, "y": None}),
    ],
)
def test_reads(text: str, tree: dict[str, Any]) -> None:
    found = reads(text)
    if "exists" in text:
        assert found["data"] == tree["data"]
    else:
        assert found == tree


@pytest.mark.parametrize(
    ("text", "required", "is_all"),
    [
        ('data.kind == "x"', {("data", "kind"): "x"}, True),
        ("'x' == type && data.n > 1", {("type",): "x"}, False),
        ('data.kind == "x" && source == "y"', {("data", "kind"): "x", ("source",): "y"}, True),
        ('data.kind == "x" || data.n > 1', {}, False),
        ('data.n > 1 && (data.kind == "x" || data.m > 1)', {}, False),
        ('data.n > 1 ? data.kind == "x" : false', {}, False),
        ('data.kind != "x"', {}, False),
        ("data.kind == 1", {}, False),
        (r'data.kind == "a\n"', {}, False),
        ('data.kind == b"x"', {}, False),
        ('!(data.kind == "x")', {}, False),
        ('data.kind + "y" == "x"', {}, False),
        ('data.kind == "x" == true', {}, False),
        ('"a" == "b"', {}, False),
    ],
)
def test_required_equalities(text: str, required: dict[Any, str], is_all: bool) -> None:
    assert required_equalities(text) == (required, is_all)


def test_pruned_values_keep_what_is_read() -> None:
    tree = {"a": {"b": None}, "list": None, "gone": None}
    assert pruned({"a": {"b": 1, "c": 2}, "list": [{"x": 1}], "z": 3}, tree) == {"a": {"b": 1}, "list": [{"x": 1}]}
    assert pruned({"a": 5}, tree) == {"a": 5}
    assert pruned([1], tree) == [1]


@pytest.mark.parametrize(
    "text",
    [
        "data.a.b == 1", "has(data.a.c)", "has(data.a) && data.a.b < 2", "data.list.exists(x, x.y == 2)", "data.list[1].y == 2",
        "size(data.a) == 2",
        'data["a"]["b"] == 1', "data.nobody == 1", "data.a.b.c == 1", "data == {}", "data.a == {'b': 1, 'c': null}",
        "type == 'x' && 'a' in data",
    ],
)  # fmt: skip
def test_an_expression_says_the_same_of_the_pruned_record(text: str) -> None:
    import cel

    values = {"type": "x", "data": {"a": {"b": 1, "c": None}, "list": [{"y": 1}, {"y": 2}], "other": {"deep": [1, 2]}}}

    def outcome(evaluate: Any) -> Any:
        try:
            return evaluate()
        except (ExpressionFailed, RuntimeError, TypeError, ValueError, KeyError) as error:
            return type(error) is not None and "failed"

    assert outcome(lambda: Expression(text).evaluate(values)) == outcome(lambda: cel.compile(text).execute(values))


def test_names_that_macros_bind() -> None:
    assert bound_names("events.map(e, e.id).exists(x, x == 'a') && rule.id == y") == {"e", "x"}
