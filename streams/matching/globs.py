"""Globs over dotted names: `*` is one segment, `**` any number of segments, also none; the rest is literal and case matters.

`order.*` matches `order.paid`, not `order.paid.late`; `order.**` matches `order`, `order.paid` and `order.paid.late`. Inside
a segment `*` stands for any characters but a dot: `order.pa*` matches `order.paid`.

Pure. Patterns come from rules, so no pattern may make matching explode: what lies between two wildcards is matched at its
first occurrence and never tried again (atomic groups), which is always right for globs (as in `fnmatch.translate`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

_END_OF_SEGMENT = r"(?=\.|\Z)"


@lru_cache(maxsize=4096)
def compile_glob(pattern: str) -> Callable[[str], bool]:
    """A function that says whether a name satisfies the pattern; made once per process and pattern."""
    if is_literal(pattern):
        return pattern.__eq__
    if pattern == "**":
        return lambda name: True
    fullmatch = re.compile(_regular_expression(pattern), re.DOTALL).fullmatch
    # With a dot in front every segment looks alike, the first too.
    return lambda name: fullmatch("." + name) is not None


def glob_matches(pattern: str, name: str) -> bool:
    """Whether `name` satisfies `pattern`."""
    return compile_glob(pattern)(name)


def is_literal(pattern: str) -> bool:
    """Whether the pattern matches exactly one name: itself."""
    return "*" not in pattern


def _regular_expression(pattern: str) -> str:
    runs: list[list[str]] = [[]]  # the segments between two `**`
    for segment in pattern.split("."):
        if segment == "**":
            runs.append([])
        else:
            runs[-1].append(segment)
    first, *others = ["".join(r"\." + _segment(segment) for segment in run) for run in runs]
    if not others:
        return first
    *middle, last = others
    return first + "".join(rf"(?>(?:\.[^.]*)*?{run})" for run in middle if run) + rf"(?:\.[^.]*)*{last}"


def _segment(segment: str) -> str:
    if segment == "*":
        return rf"[^.]+{_END_OF_SEGMENT}"
    first, *others = [re.escape(part) for part in re.split(r"\*+", segment)]
    if not others:
        return first + _END_OF_SEGMENT
    *middle, last = others
    return first + "".join(rf"(?>[^.]*?{part})" for part in middle) + rf"[^.]*{last}{_END_OF_SEGMENT}"
