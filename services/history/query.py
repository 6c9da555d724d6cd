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

from services.history import functions, guard, inline, query_errors, statements
from services.history.answers import Column
from services.history.engine import error_code, is_unavailable, unavailable
from services.history.tables import PARAMETERISED_VIEWS, readable
from streams import limits
from streams.errors import BackboneError, Denied, InvalidInput, TooLarge
from streams.settings import Settings

#: Rows that `QueryResult.batches` gives at once.
BATCH_ROWS = 1000
_NAME = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryLimits:
    """What one query may cost."""

    seconds: int = limits.QUERY_SECONDS_MAX
    rows: int = limits.QUERY_ROWS_MAX
    result_bytes: int = limits.QUERY_RESULT_BYTES_MAX
    memory_bytes: int = limits.QUERY_MEMORY_BYTES_MAX
    rows_read: int = limits.QUERY_ROWS_READ_MAX

    @classmethod
    def of(cls, settings: Settings) -> QueryLimits:
        """Those of an installation."""
        return cls(
            seconds=settings.query_seconds,
            rows=settings.query_rows,
            result_bytes=settings.query_result_bytes,
            memory_bytes=settings.query_memory_bytes,
            rows_read=settings.query_rows_read,
        )

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
            "read_overflow_mode": "throw",
            "max_ast_elements": 20_000,
            "max_expanded_ast_elements": 200_000,
            "max_recursive_cte_evaluation_depth": 1000,
            "function_range_max_elements_in_block": 50_000_000,
            "max_hyperscan_regexp_length": 1000,
            "max_hyperscan_regexp_total_length": 10_000,
            # What does not fit into memory goes on on disk: millions of groups take longer, they do not fail.
            "max_bytes_before_external_group_by": self.memory_bytes // 3,
            "max_bytes_before_external_sort": self.memory_bytes // 3,
            "max_temporary_data_on_disk_size_for_query": 4 * self.memory_bytes,
            "date_time_output_format": "iso",
            "output_format_json_quote_64bit_integers": 0,
            "output_format_json_quote_decimals": 1,
            "output_format_json_named_tuples_as_objects": 1,
            "output_format_json_validate_utf8": 1,
            "output_format_parquet_compression_method": "zstd",
            "allow_introspection_functions": 0,
            # By default a projection is only asked where a million rows would be read: a lookup would cost the more, the larger the table.
            "min_table_rows_to_use_projection_index": 0,
            # What one side of a join has found says which granules of the other are read.
            "enable_join_runtime_filters": 1,
            "enable_join_runtime_filters_index_analysis": 1,
            "use_skip_indexes_on_data_read": 1,
            "join_runtime_filter_min_probe_rows": 0,
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

    body: str  #: what is selected from
    parameters: Mapping[str, Any]  #: values of exactly those that the text has
    marker: str  #: a comment in the text by which it can be found and ended
    tables: frozenset[str] = frozenset()  #: tables and views that it names
    selects: bool = True  #: it is a SELECT, and runs inside of another; EXPLAIN and DESCRIBE cannot

    def sql(self, select: str = "*") -> str:
        """The text that runs."""
        return f"SELECT {select} FROM (\n{self.body}\n) /* {self.marker} */" if self.selects else f"{self.body} /* {self.marker} */"

    def describe(self) -> str:
        """The text that asks for the columns of the answer."""
        return f"DESCRIBE TABLE (SELECT * FROM (\n{self.body}\n)) /* {self.marker} */"


@dataclass(frozen=True, slots=True, kw_only=True)
class Functions:
    """Functions of the engine, lower case."""

    allowed: frozenset[str]
    known: frozenset[str]
    bodies: Mapping[str, str]  #: of the views that are written out (`inline`)


def marker_of(query_id: str) -> str:
    """The comment of a query with an id."""
    return f"mplp-query-{query_id}"


def prepare(
    parser: Client, sql: str, parameters: Mapping[str, Any], *, database: str, functions: Functions, query_id: str | None = None
) -> Prepared:
    """Checks a query. `parser` only parses: the text is a value to it. Raises `Denied` and `InvalidInput` (`sql.…`)."""
    marker = marker_of(query_id or uuid.uuid4().hex)
    if len(sql) > guard.SQL_CHARACTERS_MAX:
        raise TooLarge("sql.too-long", f"A query has at most {guard.SQL_CHARACTERS_MAX} characters.")
    if "\x00" in sql:
        raise InvalidInput("sql.syntax", "A query may not contain a null byte.")
    for name in parameters:
        if not _NAME.match(name):
            raise InvalidInput("sql.parameter", f"{name!r} is no name of a parameter.")
    own = statements.described(sql, database)
    if own is not None:
        return Prepared(body=own, parameters={}, marker=marker)
    inner = statements.inner_of_describe(sql)
    tree, formatted = _parsed(parser, sql if inner is None else inner)
    allowed = guard.Allowed(
        database=database,
        tables=frozenset(readable()),
        views=frozenset(PARAMETERISED_VIEWS),
        functions=functions.allowed,
        known=functions.known,
    )
    kind = tree.get("type") if isinstance(tree, Mapping) else None
    if kind == "ShowTablesQuery" and inner is None:
        return Prepared(body=statements.tables_listed(tree, database), parameters={}, marker=marker)
    explains = kind == "ExplainQuery" and inner is None
    found = guard.check(statements.explained(tree) if explains else tree, allowed)
    if found.tables & functions.bodies.keys():
        formatted = inline.written_out(formatted, functions.bodies, database)
    return Prepared(
        body=formatted if inner is None else f"DESCRIBE TABLE (\n{formatted}\n)",
        parameters=_values(parameters, found.parameters),
        marker=marker,
        tables=frozenset(found.tables),
        selects=not explains and inner is None,
    )


def _parsed(parser: Client, sql: str) -> tuple[Any, str]:
    """The text as ClickHouse would write it, and the tree of that: what is run is what was checked, also if it is written wrong."""
    try:
        answer = parser.raw_query(
            "WITH formatQuery({q:String}) AS written SELECT parseQueryToJSON(written), written",
            parameters={"q": sql}, fmt="JSONCompactEachRow",
        )  # fmt: skip
    except ClickHouseError as error:
        if error_code(error) == 62:
            raise query_errors.syntax(str(error), sql) from error
        if error_code(error) not in query_errors.CODES and not is_unavailable(error):
            # It is a statement, since it was parsed, but one whose tree cannot be shown: no SELECT is among those.
            raise Denied("sql.read-only", "Only SELECT can be asked.", advice=guard.ADVICE) from error
        raise translated(error) from error
    tree_text, formatted = orjson.loads(answer)
    try:
        return orjson.loads(tree_text), formatted
    except orjson.JSONDecodeError as error:
        raise InvalidInput("sql.too-deep", "The query nests too deep.") from error


def _values(parameters: Mapping[str, Any], wanted: set[str]) -> dict[str, Any]:
    """The values of the parameters that the text has, and no others.

    The driver must never be given a value that the text has no `{name:Type}` for: it would then write values into the text by itself, for
    Python's `%(name)s`, and nothing of what it writes has been checked.
    """
    missing = sorted(wanted - parameters.keys())
    if missing:
        given = f"Given are: {', '.join(sorted(parameters))}." if parameters else f"Give one with {missing[0]}=value."
        raise InvalidInput("sql.parameter", f"The parameter {missing[0]} has no value.", pointer=f"/parameters/{missing[0]}", advice=given)
    values = {name: _bindable(name, value) for name, value in parameters.items()}
    return {name: value for name, value in values.items() if name in wanted}


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
    lines = asked(client, prepared, prepared.sql(), settings, "JSONCompactEachRowWithNamesAndTypes").splitlines()
    if len(lines) < 2:
        return QueryResult((), (), ())
    return QueryResult(tuple(orjson.loads(lines[0])), tuple(orjson.loads(lines[1])), lines[2:])


def run_columns(client: Client, prepared: Prepared, settings: Mapping[str, Any] | None) -> bytes:
    """As `run`: the whole answer as JSON text, an object with an array for each column."""
    return asked(client, prepared, prepared.sql(), settings, "JSONColumns")


def columns_of(client: Client, prepared: Prepared, settings: Mapping[str, Any] | None) -> list[Column]:
    """Names and types of the answer's columns, without running the query."""
    lines = asked(client, prepared, prepared.describe(), settings, "JSONCompactEachRow").splitlines()
    return [Column(*orjson.loads(line)[:2]) for line in lines]


def asked(client: Client, prepared: Prepared, sql: str, settings: Mapping[str, Any] | None, format: str) -> bytes:
    """The engine's whole answer in one of its formats."""
    try:
        return client.raw_query(
            sql, parameters=dict(prepared.parameters) or None, settings=dict(settings) if settings else None, fmt=format
        )  # fmt: skip
    except ClickHouseError as error:
        raise translated(error) from error


def functions_of(client: Client) -> Functions:
    """The functions that a query may use, from the engine's own list, and the views that are written out, as they are in the database."""
    bodies = "SELECT name, as_select FROM system.tables WHERE database = currentDatabase() AND name IN {names:Array(String)}"
    rows = client.query("SELECT name, categories, alias_to FROM system.functions WHERE origin = 'System'").result_rows
    return Functions(
        allowed=functions.allowed((str(name), categories, alias) for name, categories, alias in rows),
        known=frozenset(str(name).lower() for name, _, _ in rows),
        bodies={str(name): str(body) for name, body in client.query(bodies, parameters={"names": list(inline.VIEWS)}).result_rows},
    )


def translated(error: ClickHouseError) -> BackboneError:
    """ClickHouse's error as one of ours, without what our wrapping added."""
    if is_unavailable(error):
        return unavailable(error)
    return query_errors.translated(error_code(error), str(error))
