"""`streams.matching.globs` against a plain recursive definition of the same globs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.matching.globs import glob_matches


def _segment_matches(pattern: str, segment: str) -> bool:
    if pattern == "*":
        return segment != ""
    if not pattern:
        return not segment
    if pattern[0] == "*":
        return any(_segment_matches(pattern[1:] or "", segment[skip:]) if pattern[1:] != "*" else True for skip in range(len(segment) + 1))
    return bool(segment) and segment[0] == pattern[0] and _inner(pattern[1:], segment[1:])


def _inner(pattern: str, segment: str) -> bool:
    """As `_segment_matches`, behind the first character: there a lone `*` may be empty."""
    if pattern == "*":
        return True
    return _segment_matches(pattern, segment)


def _matches(patterns: list[str], segments: list[str]) -> bool:
    if not patterns:
        return not segments
    if patterns[0] == "**":
        return any(_matches(patterns[1:], segments[skip:]) for skip in range(len(segments) + 1))
    return bool(segments) and _segment_matches(patterns[0], segments[0]) and _matches(patterns[1:], segments[1:])


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("order.paid", "order.paid", True), ("order.paid", "orderxpaid", False), ("order.*", "order.paid", True),
        ("order.*", "order", False), ("order.*", "order.paid.late", False), ("order.**", "order", True),
        ("order.**", "order.paid.late", True), ("**.failed", "failed", True), ("**.failed", "step.failed", True),
        ("**.failed", "xfailed", False), ("a.**.z", "a.z", True), ("a.**.**.z", "a.b.c.z", True), ("**", "", True),
        ("*", "a.b", False), ("order.pa*", "order.paid", True), ("order.pa*", "order.pa", True), ("order.*d", "order.paid", True),
        ("Order.*", "order.paid", False), ("a.*.b.**.c", "a.x.b.c", True), ("**.a.**", "b.a.c", True), ("a[b].*", "a[b].c", True),
        ("**.a*b*c.**.d", "x.axbxc.y.d", True), ("**.ab*.**.e", "abc.abd.e", True),
    ],
)  # fmt: skip
def test_examples(pattern: str, name: str, expected: bool) -> None:
    assert glob_matches(pattern, name) is expected


@given(
    st.lists(st.sampled_from(["a", "b", "ab", "*", "**", "a*", "*b", "a*b"]), min_size=1, max_size=6),
    st.lists(st.sampled_from(["a", "b", "ab", "aab", "abb", "c"]), min_size=1, max_size=6),
)
def test_agrees_with_the_definition(patterns: list[str], segments: list[str]) -> None:
    assert glob_matches(".".join(patterns), ".".join(segments)) is _matches(patterns, segments)


def test_a_hostile_pattern_is_answered_at_once() -> None:
    # Backtracking over these would take longer than the universe is old; the test would never end.
    assert not glob_matches("**." + "a.**." * 150 + "b", ".".join("a" * 500))
    assert not glob_matches("a*" * 300 + "b", "a" * 1000)
