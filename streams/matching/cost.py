"""What a CEL expression may cost, read off its tokens and the sizes of what it reads, without evaluating it. Pure.

The library evaluates to the end, however long that takes, and a rule reads records that anybody may send. Measured with
common-expression-language 0.10: a step of `exists` or `all` takes 0.5 µs; `map` and `filter` copy what they have built at each step
(50 ns an element: a list of 10,000 takes 5 s); texts are copied by `+`; a regular expression is linear in the text (no pattern hangs),
but takes as many steps for each character as it has parts in the worst case. So the worst case is bounded before an evaluation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from streams.matching.reading import Steps, chain_at, tokens_of, value_at

_MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter", "transformList", "transformMap"})
_BUILDING = frozenset({"map", "filter", "transformList", "transformMap"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Additions that cost nothing worth looking at, whatever the texts.
_SUMS_FREE = 8
#: Texts and growth beyond this are beyond every budget.
_MOST = 1e30
_NESTING = 10
#: A step of a macro costs as much as copying so many characters, so many parts of patterns times characters, or so many elements.
_CHARACTERS, _PARTS, _ELEMENTS = 2000.0, 20.0, 10.0
#: Parts that a class of Unicode characters (`\\w`, `\\pL`) stands for.
_CLASS_PARTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What of an expression decides its cost."""

    nesting: int = 0  #: macros inside each other
    builds: bool = False  #: whether a macro makes a list
    growth: float = 1.0  #: how many times as large as what it reads a value may become that macros build
    inside: tuple[Steps, ...] = ()  #: what is read of the record at each step of a macro, besides what macros inside it go over
    sums: int = 0  #: additions
    literals: int = 0  #: elements that the expression's own lists have at most
    patterns: tuple[str, ...] = ()  #: literals of regular expressions
    patterns_read: bool = False  #: whether a pattern is no literal

    @property
    def costly(self) -> bool:
        """Whether the cost depends on what is read; if not it is bounded by the expression's length."""
        return self.nesting > 0 or bool(self.patterns) or self.sums > _SUMS_FREE

    def steps(self, values: Mapping[str, Any], parts: int) -> float:
        """The steps that it takes at most, with the values bound to it, in units of a step of a macro; `parts`: of all its patterns."""
        longest, characters = _longest(values.values())
        turns = min(_MOST, min(_MOST, max(longest, self.literals) * self.growth) ** min(self.nesting, _NESTING))
        text = min(_MOST, characters * self.growth)
        steps = 0.0
        if self.nesting:
            read = sum(_size(value_at(values, steps, None)) for steps in self.inside)
            steps += turns * max(1.0, read * self.growth)
        if self.builds:
            steps += turns * longest * self.growth / _ELEMENTS
        return steps + turns * text * ((self.sums + 1) ** 2 / _CHARACTERS + parts / _PARTS)


def shape_of(text: str) -> Shape:
    """The shape of an expression."""
    tokens = tokens_of(text)
    brackets: list[list[Any]] = []  # of each open bracket: the name that its macro binds or None, additions in it, whether it builds
    nesting, builds, growth, sums = 0, False, 1.0, 0
    inside: list[Steps] = []
    bound: set[str] = set()
    for index, token in enumerate(tokens):
        if token in ("(", "[", "{"):
            name = _bound_by(tokens, index)
            if name is not None:
                bound.add(name)
            brackets.append([name, 0, name is not None and tokens[index - 1] in _BUILDING])
            builds = builds or brackets[-1][2]
            nesting = max(nesting, sum(name is not None for name, *_ in brackets))
        elif token in (")", "]", "}") and brackets:
            _, added, building = brackets.pop()
            growth = min(_MOST, growth * (1 + added)) if building else growth
            if brackets:
                brackets[-1][1] += added
        elif token == "+":
            sums += 1
            if brackets:
                brackets[-1][1] += 1
        elif _NAME.fullmatch(token) and any(name is not None for name, *_ in brackets) and tokens[index - 1] != ".":
            steps, behind = chain_at(tokens, index)
            if _bound_by(tokens, behind + 2) is None:
                inside.append(steps)
    patterns, read = _patterns(tokens)
    return Shape(
        nesting=nesting, builds=builds, growth=growth, inside=tuple(steps for steps in inside if steps[0] not in bound), sums=sums,
        literals=tokens.count(",") + 1, patterns=patterns, patterns_read=read,
    )  # fmt: skip


def _bound_by(tokens: list[str], index: int) -> str | None:
    """The name that the macro binds whose arguments open here."""
    called = 2 <= index < len(tokens) and tokens[index] == "(" and tokens[index - 2] == "." and tokens[index - 1] in _MACROS
    binds = index + 2 < len(tokens) and tokens[index + 2] == "," and _NAME.fullmatch(tokens[index + 1]) is not None
    return tokens[index + 1] if called and binds else None


def _patterns(tokens: list[str]) -> tuple[tuple[str, ...], bool]:
    """The literals that `matches` takes for a pattern, and whether it takes anything else."""
    found, read = [], False
    for index, token in enumerate(tokens[:-1]):
        if token != "matches" or tokens[index + 1] != "(":
            continue
        last = _closing(tokens, index + 1) - 1
        alone = tokens[last - 1] == "(" if index and tokens[index - 1] == "." else tokens[last - 1] == ","
        if alone and tokens[last][-1:] in ("'", '"'):
            found.append(tokens[last])
        else:
            read = True
    return tuple(found), read


def _closing(tokens: list[str], index: int) -> int:
    depth = 0
    for at in range(index, len(tokens)):
        depth += (tokens[at] in ("(", "[", "{")) - (tokens[at] in (")", "]", "}"))
        if depth == 0:
            return at
    return len(tokens)


def pattern_parts(pattern: str) -> int:
    """How many parts a regular expression has once its counted repetitions are written out."""
    groups: list[list[int]] = [[0, 0]]  # of each open group: its parts without the last item's, and those
    index = 0
    while index < len(pattern):
        item, after = _item(pattern, index)
        group = groups[-1]
        repeated = _repetition(pattern, index)
        if repeated is not None:
            times, after = repeated
            group[1] *= times
        elif pattern[index] == "(":
            groups.append([1, 0])
        elif pattern[index] == ")" and len(groups) > 1:
            total, last = groups.pop()
            groups[-1] = [sum(groups[-1]), total + last]
        else:
            groups[-1] = [sum(group), item]
        index = after
    return sum(map(sum, groups))


def _item(pattern: str, index: int) -> tuple[int, int]:
    """The parts of the item here, and the index behind it."""
    match pattern[index]:
        case "\\":
            kind = pattern[index + 1 : index + 2]
            end = index + 2
            if kind in ("p", "P"):
                end = pattern.find("}", end) + 1 if pattern[end : end + 1] == "{" else end + 1
            return (_CLASS_PARTS if kind and kind in "pPwWdDsSbB" else 1), max(end, index + 2)
        case "[":
            end = index + 2 + (pattern[index + 1 : index + 2] == "^")
            while end < len(pattern) and pattern[end] != "]":
                end += 2 if pattern[end] == "\\" else 1
            classes = len(re.findall(r"\\[pPwWdDsS]|\[:", pattern[index:end]))
            return end - index + _CLASS_PARTS * classes, end + 1
        case _:
            return 1, index + 1


def _repetition(pattern: str, index: int) -> tuple[int, int] | None:
    """How often a counted repetition that stands here repeats, and the index behind it."""
    found = re.compile(r"\{(\d{1,9})(,(\d{1,9})?)?\}").match(pattern, index)
    if found is None:
        return None
    least, more, most = found.groups()
    return max(1, int(most or least) + (more is not None and most is None)), found.end()


def _longest(values: Iterable[Any]) -> tuple[int, int]:
    """Of everything in the values: the elements of the longest list or object, and the characters of the longest text."""
    elements, characters = 0, 0
    waiting: list[Any] = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            characters = max(characters, len(value))
        elif isinstance(value, (dict, list)):
            elements = max(elements, len(value))
            waiting += value.values() if isinstance(value, dict) else value
            if isinstance(value, dict):
                waiting += value
    return elements, characters


def _size(value: Any) -> int:
    """Elements of a value, all the way down."""
    count, waiting = 0, [value]
    while waiting:
        item = waiting.pop()
        count += 1
        if isinstance(item, (dict, list)):
            waiting += item.values() if isinstance(item, dict) else item
    return count
