"""States as JSON and back: every value comes back as it was, defaults are not written, and another shape is another version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.modules.states import STATES
from services.orchestrator.state import Execution
from streams.errors import InvalidInput
from streams.log.freeze import StateFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One part."""

    name: str
    kind: Literal["small", "large"] = "small"
    at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """Everything that a state may contain."""

    leaves: Mapping[str, Leaf] = field(default_factory=dict)
    order: tuple[Leaf, ...] = ()
    pair: tuple[int, str] = (0, "")
    seen: frozenset[tuple[int, str]] = frozenset()
    anything: Any = None
    inner: Leaf | None = None
    numbers: Mapping[int, float] = field(default_factory=dict)


LEAVES = st.builds(Leaf, name=st.text(), kind=st.sampled_from(["small", "large"]), at=st.none() | st.integers(-(2**63), 2**63 - 1))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=5,
)
WHOLES = st.builds(
    Whole,
    leaves=st.dictionaries(TEXTS, LEAVES, max_size=3),
    order=st.lists(LEAVES, max_size=3).map(tuple),
    pair=st.tuples(st.integers(0, 9), TEXTS),
    seen=st.frozensets(st.tuples(st.integers(0, 9), TEXTS), max_size=3),
    anything=JSON,
    inner=st.none() | LEAVES,
    numbers=st.dictionaries(st.integers(0, 9), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)


@given(WHOLES)
def test_a_state_comes_back_as_it_was(state: Whole) -> None:
    format_ = StateFormat(Whole)
    try:
        raw = orjson.dumps(format_.dump(state))
    except TypeError:
        return  # half surrogates are no JSON
    assert format_.load(orjson.loads(raw)) == state


def test_what_is_as_usual_is_not_written() -> None:
    assert StateFormat(Whole).dump(Whole(inner=Leaf(name="x"))) == {"inner": {"name": "x"}}


def test_another_shape_or_meaning_is_another_version() -> None:
    versions = {
        StateFormat(Whole).version,
        StateFormat(Leaf).version,
        StateFormat(Whole, meaning=2).version,
        StateFormat(Whole, Leaf).version,
    }
    assert len(versions) == 4
    assert StateFormat(Whole).version == StateFormat(Whole).version


def test_one_of_several_is_told_apart() -> None:
    format_ = StateFormat[Leaf | Whole](Leaf, Whole)
    for state in (Leaf(name="a"), Whole(pair=(1, "b"))):
        assert format_.load(orjson.loads(orjson.dumps(format_.dump(state)))) == state


@pytest.mark.parametrize("value", [None, 3, [], {"unknown": 1}, {"inner": {"name": "x", "kind": "huge"}}, {"order": [1]}])
def test_what_is_no_state_is_unreadable(value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        StateFormat(Whole).load(value)
    assert refused.value.code == "snapshot.unreadable"


def test_what_cannot_be_written_is_found_when_the_format_is_made() -> None:
    @dataclass
    class Bad:
        callback: bytes

    with pytest.raises(TypeError):
        StateFormat(Bad)


def test_the_machines_states_have_a_format() -> None:
    assert StateFormat(Execution).version != STATES.version
