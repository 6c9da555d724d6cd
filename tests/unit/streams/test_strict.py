"""Keys that a document gives twice are found, wherever they are, and nothing else is."""

from __future__ import annotations

import json

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from streams.strict import json_twice, yaml_twice

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def in_json(text: str) -> list[tuple[str, str]]:
    return [(fault.code, fault.pointer) for fault in json_twice(text.encode(), orjson.loads(text))]


def in_yaml(text: str) -> list[tuple[str, str]]:
    return [(fault.code, fault.pointer) for fault in yaml_twice(yaml.compose(text, yaml.SafeLoader))]


@pytest.mark.parametrize(
    ("text", "pointers"),
    [
        ('{"a": 1, "a": 2}', ["/a"]),
        ('{"a": {"b": [0, {"c/d": 1, "c/d": 1}]}}', ["/a/b/1/c~1d"]),
        ('{"a": 1, "\\u0061": 2}', ["/a"]),
        ('{"x": 1, "a" : 1, "b": "\\": ", "a":3}', ["/a"]),
        ('{"a": "\\":", "b": "x\\": y"}', []),
        ('[{"a": 1}, {"a": 1}]', []),
    ],
)
def test_in_json(text: str, pointers: list[str]) -> None:
    assert in_json(text) == [("schema.duplicateKey", pointer) for pointer in pointers]


@pytest.mark.parametrize(
    ("text", "pointers"),
    [
        ("a: 1\nb: 2\na: 3", ["/a"]),
        ("steps:\n  - {id: a, id: b}", ["/steps/0/id"]),
        ("a: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2}", []),
        ("a: 1\n'a': 2", ["/a"]),
        ("", []),
    ],
)
def test_in_yaml(text: str, pointers: list[str]) -> None:
    assert in_yaml(text) == [("schema.duplicateKey", pointer) for pointer in pointers]


@given(VALUES)
def test_what_was_written_by_a_writer_has_none(value: object) -> None:
    assert in_json(json.dumps(value)) == []
