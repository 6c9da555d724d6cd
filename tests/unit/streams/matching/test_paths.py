from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import InvalidInput
from streams.matching.paths import MISSING, Path, canonical

RECORD = {"type": "t", "data": {"user": "ann", "a.b": {"c": [10, {"d": 1}]}, "none": None, "zero": 0, "it's": 2}}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("type", "t"),
        ("data.user", "ann"),
        ('data["user"]', "ann"),
        ('data["a.b"].c[0]', 10),
        ("data['a.b'].c[1].d", 1),
        ('data["it\'s"]', 2),
        (r"data['it\'s']", 2),
        ("data.zero", 0),
        ("data.none", MISSING),
        ("data.unknown", MISSING),
        ("data.user.deeper", MISSING),
        ("data[0]", MISSING),
        ('data["a.b"].c[2]', MISSING),
        ("nothing.at.all", MISSING),
    ],
)
def test_a_path_leads_to_its_value(path: str, expected: object) -> None:
    assert Path(path).get(RECORD) is expected or Path(path).get(RECORD) == expected


@pytest.mark.parametrize(
    "path", ["", ".", "data.", "data..x", "data[", "data[-1]", "data[x]", 'data["x]', "1data", "data x", "data." + "x" * 2000]
)
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Path(path)
    assert caught.value.code == "path.invalid"


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (0, -0.0, True),
        (1, "1", False),
        (1, True, False),
        ("", None, False),
        ([1, 2.0], [1.0, 2], True),
        ({"a": 1, "b": [2.0]}, {"b": [2], "a": 1.0}, True),
        (0.1, 0.1, True),
        (1e300, 1e300, True),
        (2**63 - 1, float(2**63), False),
    ],
)
def test_equal_json_values_and_only_they_have_equal_texts(one: object, other: object, equal: bool) -> None:
    assert (canonical(one) == canonical(other)) is equal


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    )
)
def test_the_text_is_canonical_json(value: object) -> None:
    import orjson

    assert canonical(orjson.loads(canonical(value))) == canonical(value)
