"""Read-only SQL: checked on the parser's tree, formatted back, wrapped, run on a read-only connection with limits."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from services.history import guard
from services.history.engine import error_code, is_unavailable, unavailable
from services.history.tables import readable
from streams import limits
from streams.errors import BackboneError, Denied, InvalidInput, Refused, TooLarge

#: Rows that `Rows.batches` gives at once.
BATCH_ROWS = 1000
_SHOW = re.compile(r"\s*SHOW\s+TABLES\s*;?\s*\Z", re.IGNORECASE)
_DESCRIBE = re.compile(r"\s*DESC(?:RIBE)?\s+(?:TABLE\s+)?(?:`?(\w+)`?\s*\.\s*)?`?(\w+)`?\s*;?\s*\Z", re.IGNORECASE)
_NAME = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """What one query may cost."""

    seconds: int = limits.QUERY_SECONDS_MAX
    rows: int = limits.QUERY_ROWS_MAX
    result_bytes: int = 256 * 1024**2
    memory_bytes: int = 1024**3
    rows_read: int = 10_000_000_000

    def settings(self) -> dict[str, Any]:
        """As settings of a connection; the last makes it read-only, and nothing can be changed after it."""
        return {
            "max_execution_time": self.seconds,
            "timeout_overflow_mode": "throw",
            "max_result_rows": self.rows,
            "max_result_bytes": self.result_bytes,
            "result_overflow_mode": "throw",
            "max_memory_usage": self.memory_bytes,
            "max_rows_to_read": self.rows_read,
            "max_ast_elements": 20_000,
            "max_expanded_ast_elements": 200_000,
            "max_recursive_cte_evaluation_depth": 1000,
            "date_time_output_format": "iso",
            "output_format_json_quote_64bit_integers": 0,
            "output_format_json_quote_decimals": 1,
            "output_format_json_named_tuples_as_objects": 1,
            "output_format_json_validate_utf8": 1,
            "allow_introspection_functions": 0,
            "readonly": 1,
        }


@dataclass(frozen=True, slots=True)
class QueryResult:
    """An answer: names and ClickHouse types of the columns, and rows of JSON values (times as RFC 3339, decimals and UUIDs as text)."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    lines: Sequence[bytes]

    def rows(self) -> list[list[Any]]:
        """The rows as lists."""
        return [orjson.loads(line) for line in self.lines]

    def objects(self) -> list[dict[str, Any]]:
        """The rows as objects; of two columns with one name the last wins."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows()]

    async def batches(self) -> AsyncIterator[list[Mapping[str, Any]]]:
        """The rows, as objects, in batches."""
        for start in range(0, len(self.lines), BATCH_ROWS):
            yield [dict(zip(self.columns, orjson.loads(line), strict=True)) for line in self.lines[start : start + BATCH_ROWS]]
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Nothing is held: the answer is complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A query that passed the guard."""

    sql: str
    parameters: Mapping[str, Any]
    marker: str  #: a comment in the text by which it can be found and ended


def shortcut(sql: str, database: str) -> str | None:
    """`SHOW TABLES` and `DESCRIBE TABLE name` as a query of ours; None for anything else. Raises `InvalidInput` (`sql.unknown-table`)."""
    if _SHOW.match(sql):
        return "SELECT arrayJoin([" + ", ".join(f"'{name}'" for name in readable()) + "]) AS name"
    if match := _DESCRIBE.match(sql):
        if match[1] not in (None, database) or match[2] not in readable():
            raise InvalidInput("sql.unknown-table", f"There is no table {match[2]}.", advice="There are: " + ", ".join(readable()) + ".")
        return f"SELECT name, type, comment FROM system.columns WHERE database = '{database}' AND table = '{match[2]}' ORDER BY position"
    return None


def prepare(parser: Client, sql: str, parameters: Mapping[str, Any], *, database: str, functions: frozenset[str]) -> Prepared:
    """Checks a query. `parser` only parses: the text is a value to it. Raises `Denied` and `InvalidInput` (`sql.…`)."""
    marker = f"mplp-query-{uuid.uuid4().hex}"
    if len(sql) > guard.SQL_CHARACTERS_MAX:
        raise TooLarge("sql.too-long", f"A query has at most {guard.SQL_CHARACTERS_MAX} characters.")
    if "\x00" in sql:
        raise InvalidInput("sql.syntax", "A query may not contain a null byte.")
    for name in parameters:
        if not _NAME.match(name):
            raise InvalidInput("sql.parameter", f"{name!r} is no name of a parameter.")
    values = {name: _bindable(name, value) for name, value in parameters.items()}
    own = shortcut(sql, database)
    if own is not None:
        return Prepared(sql=f"{own} /* {marker} */", parameters={}, marker=marker)
    try:
        answer = parser.raw_query(
            "SELECT parseQueryToJSON({q:String}), formatQuery({q:String})", parameters={"q": sql}, fmt="JSONCompactEachRow"
        )
    except ClickHouseError as error:
        if error_code(error) not in _CODES and not is_unavailable(error):
            # It is a statement, since it was parsed, but one whose tree cannot be shown: no SELECT is among those.
            raise Denied("sql.read-only", "Only SELECT can be asked.", advice=guard.ADVICE) from error
        raise translated(error) from error
    tree_text, formatted = orjson.loads(answer)
    try:
        tree = orjson.loads(tree_text)
    except orjson.JSONDecodeError as error:
        raise InvalidInput("sql.too-deep", "The query nests too deep.") from error
    guard.check(tree, database=database, tables=readable(), functions=functions)
    return Prepared(sql=f"SELECT * FROM (\n{formatted}\n) /* {marker} */", parameters=values, marker=marker)


def _bindable(name: str, value: Any) -> Any:
    """A parameter's value as the driver takes it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list) and all(item is None or isinstance(item, bool | int | float | str) for item in value):
        return value
    raise InvalidInput(
        "sql.parameter", f"The parameter {name} is neither a text, a number, a boolean nor a list of them.", pointer=f"/parameters/{name}"
    )


def run(client: Client, prepared: Prepared, settings: Mapping[str, Any] | None) -> QueryResult:
    """Runs a checked query. `settings` for a server (where they go with each request); an embedded connection has them already."""
    answer = _asked(client, prepared, settings, "JSONCompactEachRowWithNamesAndTypes")
    lines = answer.splitlines()
    if len(lines) < 2:
        return QueryResult((), (), ())
    return QueryResult(tuple(orjson.loads(lines[0])), tuple(orjson.loads(lines[1])), lines[2:])


def run_columns(client: Client, prepared: Prepared, settings: Mapping[str, Any] | None) -> bytes:
    """As `run`: the whole answer as JSON text, an object with an array for each column."""
    return _asked(client, prepared, settings, "JSONColumns")


def _asked(client: Client, prepared: Prepared, settings: Mapping[str, Any] | None, format: str) -> bytes:
    try:
        return client.raw_query(
            prepared.sql, parameters=dict(prepared.parameters) or None, settings=dict(settings) if settings else None, fmt=format
        )  # fmt: skip
    except ClickHouseError as error:
        raise translated(error) from error


def functions_of(client: Client) -> frozenset[str]:
    """Names (lower case) of the functions that a query may use, from the engine's own list."""
    rows = client.query("SELECT lower(name), categories, alias_to FROM system.functions WHERE origin = 'System'").result_rows
    categories = {name: set(str(text).replace(";", ",").split(",")) for name, text, _ in rows}
    allowed = {name for name, found in categories.items() if any(category.strip() in guard.CATEGORIES for category in found)}
    allowed |= {name.lower() for name in guard.OTHERS}
    return frozenset(allowed | {name for name, _, alias in rows if alias and str(alias).lower() in allowed})


_CODES: Mapping[int, tuple[type[BackboneError], str, str]] = {
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
    164: (Denied, "sql.read-only", "Only reading is allowed"),
    452: (Denied, "sql.setting", "Settings cannot be changed"),
    497: (Denied, "sql.read-only", "Not allowed"),
    167: (InvalidInput, "sql.too-deep", "The query nests too deep"),
    168: (InvalidInput, "sql.too-deep", "The query is too large"),
    306: (InvalidInput, "sql.too-deep", "The query nests too deep"),
}


def translated(error: ClickHouseError) -> BackboneError:
    """ClickHouse's error as one of ours, without what our wrapping added."""
    if is_unavailable(error):
        return unavailable(error)
    detail = re.sub(r"^.*?DB::Exception: ", "", str(error), flags=re.DOTALL)
    detail = re.sub(r":? In scope .*", "", detail, flags=re.DOTALL).split(" (version ")[0].strip()[:500]
    found = _CODES.get(error_code(error))
    if found is None:
        return InvalidInput("sql.failed", detail or "ClickHouse could not answer the query.")
    kind, code, text = found
    return kind(code, f"{text}: {detail}")
