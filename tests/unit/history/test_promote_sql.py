"""Promoted columns: paths, names and types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.history.promote_sql import KINDS, Column, add, expression, infer, kind_of, name_of, parse_path, path_text, promoted
from streams.errors import BackboneError, InvalidInput

SEGMENTS = st.lists(st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("data.amount", ("amount",)),
        ("data.order.total", ("order", "total")),
        ("data.`unit price`", ("unit price",)),
        ('data."a.b".c', ("a.b", "c")),
        ("data.`it\\`s`", ("it`s",)),
        ("data.`items[0]`", ("items[0]",)),
    ],
)
def test_a_path(text: str, path: tuple[str, ...]) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize(
    "text",
    ["", "amount", "data", "data.", "data..a", ".data.a", "data.a.", "data.a b", "data.`a", "data.``", "data.a;DROP", "data.items[0].sku",
     "data.items[]", "data.a" + ".b" * 20, "data." + "a" * 300, "data.`a\x00`", "payload.a", "data.`\ud800`", "`data.a`"],
)  # fmt: skip
def test_no_path(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_path(text)
    assert refused.value.code == "promote.path"


@given(SEGMENTS)
def test_a_path_is_read_as_it_is_written(segments: list[str]) -> None:
    text = path_text(segments)
    if len(text) <= 256:
        assert parse_path(text) == tuple(segments)


@given(SEGMENTS)
def test_what_a_column_says_is_what_it_is(segments: list[str]) -> None:
    column = Column(table="system_events", name="data_x", path=tuple(segments), type="Float64")
    if len(path_text(segments)) <= 256:
        assert promoted("system_events", "data_x", "Nullable(Float64)", f"promoted from {path_text(segments)}") == column
    assert promoted("system_events", "data_x", "Nullable(Float64)", "") is None


@given(SEGMENTS, st.sets(st.text(max_size=5)))
def test_a_name_needs_no_quotes_and_is_free(segments: list[str], others: set[str]) -> None:
    taken = {"data_text", "data", *others, name_of(segments, ())}
    name = name_of(segments, taken)
    assert name.isascii()
    assert name.isidentifier()
    assert name not in taken


def test_a_name_that_is_taken_gets_a_number() -> None:
    assert name_of(["order", "total"], {"data"}) == "data_order_total"
    assert name_of(["text"], {"data_text"}) == "data_text_2"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("float64", "Float64"), ("Nullable(Int64)", "Int64"), ("lowcardinality(Nullable(String))", "LowCardinality(String)"),
        ("DateTime64(3, 'UTC')", "DateTime64"), ("DateTime", "DateTime64"), ("Array( String )", "Array(String)"),
    ],
)  # fmt: skip
def test_a_type(text: str, name: str) -> None:
    assert kind_of(text) == name


@pytest.mark.parametrize("text", ["", "JSON", "Float32", "Float64) EPHEMERAL", "AggregateFunction(sum, Int64)", "Array(Array(String))"])
def test_no_type(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        kind_of(text)
    assert refused.value.code == "promote.type"


@pytest.mark.parametrize(
    ("kinds", "elements", "texts", "found"),
    [
        ({"Int64": 3}, (), 0, "Int64"),
        ({"Int64": 3, "Null": 9}, (), 0, "Int64"),
        ({"Int64": 3, "Double": 1}, (), 0, "Float64"),
        ({"Int64": 3, "UInt64": 1}, (), 0, "UInt64"),
        ({"Bool": 3}, (), 0, "Bool"),
        ({"String": 100}, (), 10, "LowCardinality(String)"),
        ({"String": 100}, (), 11, "String"),
        ({"String": 10**6}, (), 1001, "String"),
        ({"Array": 2}, ("String", "Null"), 0, "Array(String)"),
        ({"Array": 2}, (), 0, "Array(String)"),
        ({"Array": 2}, ("Int64",), 0, "Array(Int64)"),
        ({"Array": 2}, ("Int64", "Double"), 0, "Array(Float64)"),
    ],
)
def test_the_type_of_values(kinds: dict[str, int], elements: tuple[str, ...], texts: int, found: str) -> None:
    assert infer(["a"], kinds, elements, texts) == found


@pytest.mark.parametrize(
    ("kinds", "elements", "code"),
    [
        ({}, (), "promote.no-values"),
        ({"Null": 7}, (), "promote.no-values"),
        ({"Object": 1, "Int64": 5}, (), "promote.object"),
        ({"String": 1, "Int64": 5}, (), "promote.mixed"),
        ({"Array": 1}, ("Object",), "promote.object"),
        ({"Array": 1}, ("Int64", "String"), "promote.object"),
    ],
)
def test_values_that_no_column_holds(kinds: dict[str, int], elements: tuple[str, ...], code: str) -> None:
    with pytest.raises(BackboneError) as refused:
        infer(["a"], kinds, elements, 0)
    assert refused.value.code == code


def test_every_type_has_an_expression_of_its_own() -> None:
    made = {expression(Column(table="system_events", name="data_a", path=("a",), type=kind)) for kind in KINDS}
    assert len(made) == len(KINDS)
    assert len({kind.column for kind in KINDS.values()}) == len(KINDS)


def test_odd_names_stay_texts() -> None:
    text = add(Column(table="system_events", name="data_a", path=("a' OR 1", "b`\\"), type="Int64"))
    assert "JSONExtract(data_text, 'a\\' OR 1', 'b`\\\\', 'Nullable(Int64)')" in text
