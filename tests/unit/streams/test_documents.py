"""YAML is read as JSON values: strictly, within bounds, and all faults have a place."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from streams.documents import VALUES_MAX, read_documents, read_yaml
from streams.errors import InvalidDocument

NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(st.characters(min_codepoint=32, max_codepoint=126)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc-/~", max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(VALUES.filter(lambda value: value is not None), min_size=1, max_size=3))
def test_what_was_written_is_read(values: list[object]) -> None:
    assert read_yaml(yaml.safe_dump_all(values), code="x") == json.loads(json.dumps(values))


def test_a_time_is_the_text_that_was_written() -> None:
    assert read_yaml("until: 2026-01-01T00:00:00Z\nday: 2026-01-01", code="x") == [{"until": "2026-01-01T00:00:00Z", "day": "2026-01-01"}]


@pytest.mark.parametrize(
    ("text", "pointers"),
    [("a: 1\na: 2", ["/a"]), ("a: {b: 1, b: 2}\nc: 1\nc: 2", ["/c", "/a/b"]), ("a: 1\n---\nb: 1\nb: 2", ["/1/b"])],
)
def test_a_key_that_is_given_twice_is_refused_with_its_place(text: str, pointers: list[str]) -> None:
    with pytest.raises(InvalidDocument) as refused:
        read_yaml(text, code="file.bad")
    assert refused.value.code == "file.bad"
    assert [(fault.code, fault.pointer) for fault in refused.value.violations] == [("schema.duplicateKey", at) for at in pointers]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &x 1\nb: *x", "aliases"),
        ("a: .nan", "no number in JSON"),
        ("a: 18446744073709551616", "64 bits"),
        ("1: a", "put it in quotes"),
        ("a: !!binary aGk=", "no form in JSON"),
        ("a: !!set {x}", "no form in JSON"),
        ('a: "\\ud83d"', "surrogates not allowed"),
    ],
)
def test_what_json_has_not_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_yaml(text, code="x")


def test_aliases_that_stand_for_a_tree_of_aliases_are_not_followed_without_end() -> None:
    doubling = "a0: &a0 [x, x]\n" + "".join(f"a{level}: &a{level} [*a{level - 1}, *a{level - 1}]\n" for level in range(1, 49))
    with pytest.raises(ValueError, match=str(VALUES_MAX)):
        read_yaml(doubling, code="x", aliases_max=100)
    assert read_yaml("a: &x [1]\nb: *x", code="x", aliases_max=1) == [{"a": [1], "b": [1]}]


def test_numbers_are_those_of_json() -> None:
    assert read_yaml("[1e6, -1E+5, 1e308, 1.5e3, 2.e1]", code="x") == [[1e6, -1e5, 1e308, 1.5e3, 20.0]]


@given(st.dictionaries(st.text(max_size=4), VALUES | st.text(max_size=8), max_size=4))
def test_what_is_json_is_read_as_json(value: dict[str, object]) -> None:
    expected = json.loads(
        json.dumps(value, ensure_ascii=False), parse_int=lambda text: int(text) if abs(int(text)) < 2**63 else float(text)
    )
    for text in (json.dumps(value), json.dumps(value, indent="\t", ensure_ascii=False)):
        assert read_documents(text, code="x") == [expected]


def test_json_with_a_key_twice_is_refused_and_yaml_stays_yaml() -> None:
    with pytest.raises(InvalidDocument) as refused:
        read_documents('{"a": {"b": 1, "b": 2}}', code="x")
    assert [fault.pointer for fault in refused.value.violations] == ["/a/b"]
    assert read_documents("{a: 1}\n---\n[b]", code="x") == [{"a": 1}, ["b"]]
    with pytest.raises(ValueError, match="nested"):
        read_documents("[" * 200 + "]" * 200, code="x")
