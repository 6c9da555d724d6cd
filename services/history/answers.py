"""The forms that an answer takes: what the engine is asked for, and what becomes of its bytes on the way. Pure.

Rows come from the engine as lines of JSON objects, which may be cut anywhere; Arrow and Parquet come as they go out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import orjson


class Format(StrEnum):
    """How an answer is written."""

    JSON = "json"  #: an array of objects
    JSONL = "jsonl"  #: an object a line
    CSV = "csv"  #: as RFC 4180 but for plain line ends, names first; null is empty, what is no text or number is JSON
    COMPACT = "compact"  #: lines of JSON: names, ClickHouse types, then an array for each row
    ARROW = "arrow"  #: an Arrow IPC stream
    PARQUET = "parquet"

    @property
    def engine(self) -> str:
        """The engine's own format that it is made from."""
        return {Format.ARROW: "ArrowStream", Format.PARQUET: "Parquet"}.get(self, "JSONEachRow")

    @property
    def needs_columns(self) -> bool:
        """Whether names and types have to be known before the first row."""
        return self in (Format.CSV, Format.COMPACT, Format.ARROW, Format.PARQUET)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an answer."""

    name: str
    type: str  #: ClickHouse's name of the type


class Writer(Protocol):
    """Turns the engine's bytes into those of a format."""

    rows: int  #: rows seen; of Arrow and Parquet not known, 0

    def start(self) -> bytes:
        """What comes first."""

    def take(self, chunk: bytes) -> bytes:
        """What a part of the engine's answer becomes."""

    def end(self) -> bytes:
        """What comes last."""


class Unchanged:
    """Lines of objects, Arrow and Parquet."""

    def __init__(self, *, lines: bool) -> None:
        self.rows, self._lines = 0, lines

    def start(self) -> bytes:
        """See `Writer`."""
        return b""

    def take(self, chunk: bytes) -> bytes:
        """See `Writer`."""
        self.rows += chunk.count(b"\n") if self._lines else 0
        return chunk

    def end(self) -> bytes:
        """See `Writer`."""
        return b""


class Array:
    """One JSON array. A line's end is held back until it is known whether another line follows: a text in JSON has none inside."""

    def __init__(self) -> None:
        self.rows, self._held = 0, b""

    def start(self) -> bytes:
        """See `Writer`."""
        return b"["

    def take(self, chunk: bytes) -> bytes:
        """See `Writer`."""
        if not chunk:
            return b""
        self.rows += chunk.count(b"\n")
        chunk = self._held + chunk
        self._held = b"\n" if chunk.endswith(b"\n") else b""
        return chunk[: len(chunk) - len(self._held)].replace(b"\n", b",\n")

    def end(self) -> bytes:
        """See `Writer`."""
        return b"]"


class ByRow:
    """What is made row by row: CSV and compact JSON."""

    def __init__(self, columns: Sequence[Column], format: Format) -> None:
        self.rows, self._columns, self._held = 0, columns, b""
        self._csv = format is Format.CSV

    def start(self) -> bytes:
        """See `Writer`."""
        names = [column.name for column in self._columns]
        if self._csv:
            return _csv([names])
        return orjson.dumps(names) + b"\n" + orjson.dumps([column.type for column in self._columns]) + b"\n"

    def take(self, chunk: bytes) -> bytes:
        """See `Writer`."""
        lines = (self._held + chunk).split(b"\n")
        self._held = lines.pop()
        rows = [orjson.loads(line) for line in lines]
        self.rows += len(rows)
        values = [[row.get(column.name) for column in self._columns] for row in rows]
        return (
            _csv([[cell(value) for value in row] for row in values]) if self._csv else b"".join(orjson.dumps(row) + b"\n" for row in values)
        )

    def end(self) -> bytes:
        """See `Writer`."""
        return b""


def writer(format: Format, columns: Sequence[Column]) -> Writer:
    """The writer of a format; `columns` as far as the format needs them."""
    match format:
        case Format.JSON:
            return Array()
        case Format.CSV | Format.COMPACT:
            return ByRow(columns, format)
        case Format.JSONL | Format.ARROW | Format.PARQUET:
            return Unchanged(lines=format is Format.JSONL)


def cell(value: Any) -> str:
    """A value in CSV: texts as they are, null as nothing, the rest as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


# -- columns that Arrow and Parquet do not know

_WRAPPED = re.compile(r"\A(?:Nullable|LowCardinality)\((.*)\)\Z", re.DOTALL)
_AS_TEXT: Mapping[str, str] = {
    "JSON": "toJSONString({})",
    "Dynamic": "CAST({}, 'Nullable(String)')",
    "Variant": "CAST({}, 'Nullable(String)')",
    "Nothing": "CAST({}, 'Nullable(String)')",
    "DateTime": "toDateTime64({}, 0)",
    "String": "toValidUTF8({})",
    **dict.fromkeys(("Enum8", "Enum16", "UUID", "IPv4", "IPv6", "Int128", "Int256", "UInt128", "UInt256"), "toString({})"),
}


def portable(columns: Sequence[Column]) -> str:
    """The select list over a query that makes its columns what every reader of Arrow and Parquet understands.

    JSON, UUIDs, enums, addresses and integers beyond 64 bits become texts, times have their time zone, texts are valid UTF-8.
    """
    return ", ".join(f"{_converted(column)} AS {_quoted(column.name)}" for column in columns)


def _converted(column: Column) -> str:
    kind = column.type
    while wrapped := _WRAPPED.match(kind):
        kind = wrapped[1]
    return _AS_TEXT.get(kind.partition("(")[0], "{}").replace("{}", _quoted(column.name))


def _quoted(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
