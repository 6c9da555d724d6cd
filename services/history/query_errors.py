"""ClickHouse's errors as ours: stable codes, where the fault is in the text, and what was probably meant. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from services.history.nearest import nearest
from streams.errors import BackboneError, Denied, InvalidInput, Refused, TooLarge

CODES: Mapping[int, tuple[type[BackboneError], str, str]] = {
    62: (InvalidInput, "sql.syntax", "The query cannot be parsed"),
    60: (InvalidInput, "sql.unknown-table", "Unknown table"),
    81: (InvalidInput, "sql.unknown-table", "Unknown database"),
    47: (InvalidInput, "sql.unknown-column", "Unknown column"),
    46: (InvalidInput, "sql.unknown-function", "Unknown function"),
    456: (InvalidInput, "sql.parameter", "A parameter has no value"),
    457: (InvalidInput, "sql.parameter", "A parameter has another type"),
    159: (TooLarge, "sql.timeout", "The query took too long"),
    160: (TooLarge, "sql.timeout", "The query would take too long"),
    394: (Refused, "sql.cancelled", "The query was cancelled"),
    241: (TooLarge, "sql.memory", "The query needs too much memory"),
    396: (TooLarge, "sql.too-many-rows", "The answer is too large"),
    158: (TooLarge, "sql.too-many-rows", "The query reads too many rows"),
    307: (TooLarge, "sql.too-many-rows", "The query reads too many bytes"),
    191: (TooLarge, "sql.too-many-rows", "A set or join of the query is too large"),
    164: (Denied, "sql.read-only", "Only reading is allowed"),
    452: (Denied, "sql.setting", "Settings cannot be changed"),
    497: (Denied, "sql.read-only", "Not allowed"),
    167: (InvalidInput, "sql.too-deep", "The query nests too deep"),
    168: (InvalidInput, "sql.too-deep", "The query is too large"),
    306: (InvalidInput, "sql.too-deep", "The query nests too deep"),
}
#: Characters of the text that are shown where it cannot be parsed.
NEAR_CHARACTERS = 40

_POSITION = re.compile(r"failed at position (\d+)")
_MEANT = re.compile(r"Maybe you meant: \['([^']+)'")
_MEANT_PART = re.compile(r"\s*Maybe you meant: \[.*?\]\.?")
_IDENTIFIER = re.compile(r"(?:identifier|Identifier|Missing columns:) [`'](.+?)[`']")
_REASON = re.compile(r"\A(?!Syntax error)(.+?): Syntax error|(Unmatched parentheses)", re.DOTALL)


class SqlSyntax(InvalidInput):
    """The text cannot be parsed: where, both counted from 1, and what stands there."""

    def __init__(self, message: str, *, line: int, column: int, advice: str | None = None) -> None:
        super().__init__("sql.syntax", message, pointer="/sql", advice=advice)
        self.line, self.column = line, column

    def to_dict(self) -> dict[str, object]:
        """As `BackboneError.to_dict`, with `line` and `column`."""
        return {**super().to_dict(), "line": self.line, "column": self.column}


def detail_of(text: str) -> str:
    """The sentence of ClickHouse's error, without what our wrapping and its own machinery added."""
    detail = re.sub(r"^.*?DB::Exception: ", "", text, flags=re.DOTALL)
    detail = re.sub(r"^(?:Code: \d+\. DB::Exception: )+", "", detail)
    detail = re.sub(r":? (?:In scope|In query|while executing function) .*", "", detail, flags=re.DOTALL)
    detail = re.sub(r"\s*:?\s*\([A-Z_]{4,}\)\s*\Z", "", detail.split(" (version ")[0])
    return detail.strip()[:500]


def translated(number: int, text: str) -> BackboneError:
    """The error with ClickHouse's number and text."""
    detail = detail_of(text)
    if "query parameter" in detail:
        number = 457
    found = CODES.get(number)
    if found is None:
        return InvalidInput("sql.failed", detail or "ClickHouse could not answer the query.", advice=_advice_on_types(detail))
    kind, code, sentence = found
    meant = _MEANT.search(detail)
    advice = f"Did you mean {meant[1]}?" if meant else "The query has no FROM." if "does not have the FROM clause" in text else None
    return kind(code, f"{sentence}: {_MEANT_PART.sub('', detail)}", advice=advice)


def _advice_on_types(detail: str) -> str | None:
    if "Dynamic" in detail:
        return "A path of a payload has the type of each value: say which you want, as in data.total::Float64 or data.total.:Float64."
    return None


def syntax(text: str, sql: str) -> BackboneError:
    """The error of a text that cannot be parsed, with the place in it that ClickHouse names."""
    position = _POSITION.search(text)
    if position is None:
        return translated(62, text)
    # Counted from 1, in bytes.
    before = sql.encode()[: int(position[1]) - 1].decode(errors="ignore")
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    rest = sql[len(before) :].strip()
    near = f"near `{' '.join(rest.split())[:NEAR_CHARACTERS]}`" if rest else "where it ends"
    reason = _REASON.search(detail_of(text))
    why = f": {reason[1] or 'a parenthesis is not closed'}" if reason else ""
    return SqlSyntax(f"The query cannot be parsed at line {line}, column {column}, {near}{why}.", line=line, column=column)


def with_columns(error: BackboneError, columns: Mapping[str, Sequence[str]]) -> BackboneError:
    """An error about an unknown column with the advice what was meant; `columns` by table, of the tables that the query names."""
    if error.code != "sql.unknown-column" or error.advice or not columns:
        return error
    found = _IDENTIFIER.search(error.message)
    name = found[1].rpartition(".")[2] if found else ""
    every = {column for some in columns.values() for column in some}
    table = min(columns)
    advice = nearest(name, every, "Did you mean {}?") or f"The columns of {table} are: {', '.join(columns[table])}."
    if "data" in every and "." not in name and "Did you mean" not in advice:
        advice += " What a payload has is written data.name."
    return InvalidInput(error.code, error.message, pointer=error.pointer, advice=advice)
