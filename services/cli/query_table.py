"""An answer as a table for people: aligned, numbers to the right, nulls told from empty texts, as wide as the terminal. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from rich.cells import cell_len, set_cell_size

#: Rows by which the widths are decided; later ones follow.
ROWS_SEEN = 1000
#: Narrowest that a column is made to fit the terminal, cells.
NARROWEST = 8
#: What stands where there is no value.
NULL = "NULL"
#: What stands where a text was cut.
CUT = "…"

_NUMBER = re.compile(r"\A(?:Nullable\(|LowCardinality\()*(?:U?Int\d+|Float\d+|BFloat16|Decimal\d*)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How rows are laid out."""

    names: tuple[str, ...]
    numeric: tuple[bool, ...]
    widths: tuple[int, ...]
    upright: bool  #: one row below the other, a line a column: side by side they do not fit


def text_of(value: Any) -> str:
    """A value on one line: control characters are shown, never sent to the terminal."""
    if value is None:
        return NULL
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def shape_of(names: Sequence[str], types: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None) -> Shape:
    """The layout for a terminal of `width` cells; None: as wide as it gets, nothing is cut."""
    shown = tuple(text_of(name) for name in names)
    numeric = tuple(bool(_NUMBER.match(kind)) for kind in types)
    widths = [max([cell_len(name), *(cell_len(text_of(row[index])) for row in rows)]) for index, name in enumerate(shown)]
    least = [width_ if numeric[index] else min(width_, NARROWEST) for index, width_ in enumerate(widths)]
    upright = width is not None and bool(widths) and sum(least) + 2 * (len(least) - 1) > width
    if width is not None and not upright:
        # The widest give way first.
        while sum(widths) + 2 * (len(widths) - 1) > width:
            widest = max((index for index in range(len(widths)) if widths[index] > least[index]), key=lambda index: widths[index])
            widths[widest] -= 1
    return Shape(names=shown, numeric=numeric, widths=tuple(widths), upright=upright)


def head(shape: Shape) -> Iterator[str]:
    """The lines above the first row."""
    if not shape.upright:
        yield _line(shape, shape.names)
        yield "  ".join("-" * width for width in shape.widths)


def lines(shape: Shape, rows: Sequence[Sequence[Any]], *, first: int = 0, width: int | None = None) -> Iterator[str]:
    """The lines of rows; `first` is the number of the first of them, from 0."""
    if not shape.upright:
        yield from (_line(shape, [text_of(value) for value in row]) for row in rows)
        return
    margin = max(cell_len(name) for name in shape.names)
    for number, row in enumerate(rows, first + 1):
        yield f"-- row {number} --"
        for name, value in zip(shape.names, row, strict=True):
            text = text_of(value)
            yield f"{_padded(name, margin, right=False)}  {text if width is None else _cut(text, max(NARROWEST, width - margin - 2))}"


def _line(shape: Shape, texts: Sequence[str]) -> str:
    cells = zip(texts, shape.widths, shape.numeric, strict=True)
    return "  ".join(_padded(_cut(text, width), width, right=numeric) for text, width, numeric in cells).rstrip()


def _cut(text: str, width: int) -> str:
    """At most `width` cells: wide characters take two."""
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + CUT


def _padded(text: str, width: int, *, right: bool) -> str:
    space = " " * max(0, width - cell_len(text))
    return space + text if right else text + space


_PLACE = re.compile(r"at line (\d+), column (\d+)")


def place_of(message: str) -> tuple[int, int] | None:
    """Line and column, from 1, that a message about a text names."""
    found = _PLACE.search(message)
    return (int(found[1]), int(found[2])) if found else None


def pointed(sql: str, line: int, column: int) -> Iterator[str]:
    """The line of a text, and below it a mark at a column; both from 1."""
    texts = sql.split("\n")
    text = texts[line - 1] if line <= len(texts) else ""
    start = max(0, column - 60)
    shown = text_of(text[start : start + 120])
    yield f"  {shown}"
    yield f"  {' ' * cell_len(text_of(text[start : column - 1]))}^"
