"""Transforms: paths of two names, which most are, do what longer ones do; what was given stays as it was."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streams.matching.paths import Path
from streams.routing.routes import DropFields, RenameFields, SetFields, Transform
from streams.routing.transform import Step, TransformFailed, step_of, steps_of

NAMES = st.sampled_from("abc")
PATHS = st.sampled_from(["data", "data.a", "data.b", "data.c", "data.a.b", "data.a[0]", "subject"])
LEAVES = st.none() | st.integers(0, 9) | st.just("x")
VALUES = LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(NAMES, LEAVES, max_size=2)
RECORDS = st.fixed_dictionaries({"subject": st.just("s"), "data": st.dictionaries(NAMES, VALUES, max_size=3) | VALUES})
EXPRESSIONS = st.sampled_from(["1", '"t"', "data", "subject", "data.a", "data.b", "[1, 2]", '{"a": 1}'])


def path(text: str, plain: bool) -> Path:
    found = Path(text)
    if plain:
        found.child = None  # as if it were a longer one
    return found


@st.composite
def transforms(draw: st.DrawFn, paths_of: st.SearchStrategy[str] = PATHS) -> tuple[Transform, Transform]:
    """The same transform twice: as it is, and the long way."""
    kind = draw(st.sampled_from(["set", "rename", "drop"]))
    texts = draw(st.lists(paths_of, min_size=1, max_size=3, unique=True))
    others = draw(st.lists(paths_of, min_size=len(texts), max_size=len(texts), unique=True))
    values = [draw(EXPRESSIONS) for _ in texts]

    def of(plain: bool) -> Transform:
        paths = [path(text, plain) for text in texts]
        if kind == "set":
            return SetFields(values=tuple(zip(paths, values, strict=True)))
        if kind == "rename":
            return RenameFields(pairs=tuple((source, path(other, plain)) for source, other in zip(paths, others, strict=True)))
        return DropFields(paths=tuple(paths))

    return of(False), of(True)


def result(transform: Transform, record: dict[str, Any]) -> Any:
    try:
        made = step_of(transform)(record)
    except TransformFailed as error:
        return error.code, error.message
    return made, [list(value) for value in made.values() if isinstance(value, dict)]


@given(pair=transforms(), record=RECORDS)
def test_the_short_way_makes_what_the_long_way_makes(pair: tuple[Transform, Transform], record: dict[str, Any]) -> None:
    before = copy.deepcopy(record)
    short, long = (result(transform, record) for transform in pair)
    assert short == long
    assert record == before


@given(pairs=st.lists(transforms(st.sampled_from(["data.a", "data.b", "data.c"])), max_size=4) | st.lists(transforms()), record=RECORDS)
def test_transforms_together_make_what_they_make_one_after_the_other(
    pairs: list[tuple[Transform, Transform]], record: dict[str, Any]
) -> None:
    def made(steps: Sequence[Step]) -> Any:
        draft: Any = record
        try:
            for step in steps:
                draft = step(draft)
        except TransformFailed as error:
            return error.code, error.message
        return draft, [list(value) for value in draft.values() if isinstance(value, dict)]

    before = copy.deepcopy(record)
    assert made(steps_of([short for short, _ in pairs])) == made([step_of(long) for _, long in pairs])
    assert record == before, "what was given stays as it was"


def test_names_of_the_payload_are_changed_in_one_step() -> None:
    some = [SetFields(values=((Path("data.a"), "1"),)), DropFields(paths=(Path("data.b"),))]
    assert len(steps_of(some)) == 1
    assert len(steps_of([*some, DropFields(paths=(Path("subject"),))])) == 3
