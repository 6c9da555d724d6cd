"""What is left of a row whose payload was erased, in SQL and in Python: both must give the same row. Pure.

A row keeps where it lies, what it is (id, type, source, subject, times, states) and what it belongs to. What it tells goes: the payload,
texts that quote one (explanations, insights, error messages, the values of a composite's group key), and of dead letters and unread
records the bytes.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from typing import Any

import fastavro

from services.history.container import Row
from services.history.rows import encode
from services.history.tables import DEAD_LETTERS, LOG_RECORDS, all_tables

#: Stands in place of a payload that was erased.
MARK = "mplp_erased"
ERASED_DATA = f'{{"{MARK}":true}}'

_MESSAGE_ERROR = (
    "if(isNull(error), error, CAST(tuple(ifNull(error.code, ''), '', ifNull(error.retryable, false)), "
    "'Nullable(Tuple(code String, message String, retryable Bool))'))"
)
#: What a table's columns become, in ClickHouse's words; none of them is part of a key. `data` follows `data_text`.
ASSIGNMENTS: Mapping[str, Mapping[str, str]] = {
    "workflow_transitions": {},
    "workflow_commands": {},
    "system_events": {},
    "module_messages": {"error": _MESSAGE_ERROR},
    "composite_events": {"group_key": "map()", "insights": "[]", "explanation": "''"},
    "deliveries": {"error": "if(isNull(error), error, '')"},
    DEAD_LETTERS: {"key": "NULL", "value": "NULL", "headers": "[]", "message": f"'{MARK}'", "stacktrace": "''"},
    LOG_RECORDS: {"key": "NULL", "value": "NULL", "headers": "[]", "error": f"'{MARK}'"},
}


def erasure_of(data: Any) -> str | None:
    """What stands in place of an erased payload; None: it was not erased."""
    return MARK if isinstance(data, Mapping) and dict(data) == {MARK: True} else None


def is_erased(table: str) -> str:
    """The condition that a row's payload was erased."""
    match table:
        case "dead_letters":
            return f"message = '{MARK}'"
        case "log_records":
            return f"error = '{MARK}'"
        case _:
            return f"data_text = '{ERASED_DATA}'"


def assignments(table: str) -> str:
    """What an `ALTER TABLE … UPDATE` sets."""
    parts = dict(ASSIGNMENTS[table])
    if table not in (DEAD_LETTERS, LOG_RECORDS):
        parts = {"data_text": f"'{ERASED_DATA}'", "data": f"'{ERASED_DATA}'", **parts}
    return ", ".join(f"{column} = {value}" for column, value in parts.items())


def erased(table: str, row: Row) -> Row:
    """A row as it is inserted, without what it tells. A body that is none stays: ClickHouse refuses it, and it comes as `log_records`."""
    offset, timestamp, body = row
    source = io.BytesIO(body)
    try:
        plain = fastavro.schemaless_reader(source, _schema(table), None)
    except Exception:  # noqa: BLE001  whatever fastavro raises: the bytes are no record, which is found out where bodies are checked
        return row
    if source.tell() != len(body) or not isinstance(plain, dict):
        return row
    return offset, timestamp, _written(table, _without(table, plain))


def _without(table: str, plain: dict[str, Any]) -> dict[str, Any]:
    match table:
        case "dead_letters":
            return {**plain, "key": None, "value": None, "headers": [], "message": MARK, "stacktrace": ""}
        case "log_records":
            # Nothing is left of an offset without a record, so there is nothing to take.
            return plain if plain["kind"] == "gap" else {**plain, "key": None, "value": None, "headers": [], "error": MARK}
        case "composite_events":
            return {**plain, "data": ERASED_DATA, "group_key": {}, "insights": [], "explanation": ""}
        case "module_messages":
            error = plain["error"]
            return {**plain, "data": ERASED_DATA, "error": None if error is None else {**error, "message": ""}}
        case "deliveries":
            return {**plain, "data": ERASED_DATA, "error": None if plain["error"] is None else ""}
        case _:
            return {**plain, "data": ERASED_DATA}


def _written(table: str, plain: dict[str, Any]) -> bytes:
    if table in (DEAD_LETTERS, LOG_RECORDS):
        return encode(table, plain)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, _schema(table), plain)
    return out.getvalue()


@cache
def _schema(table: str) -> Any:
    """The table's schema with times as plain integers: never out of datetime's range."""
    return fastavro.parse_schema(_plain(all_tables()[table].schema))


def _plain(schema: Any) -> Any:
    match schema:
        case dict() | Mapping():
            return {name: _plain(value) for name, value in schema.items() if name != "logicalType"}
        case list() | tuple():
            return [_plain(value) for value in schema]
        case _:
            return schema
