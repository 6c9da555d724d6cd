"""The SQL of an erasure: which rows are a subject's, which rows quote those, and how their payloads go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.history.erase_rows import MARK, assignments, is_erased
from services.history.erasures import ERASED, Places
from services.history.insert import quoted
from services.history.tables import DEAD_LETTERS, LOG_RECORDS, all_tables

#: Settings of the connection: statements name rows by their offsets, and records by their ids.
SETTINGS: Mapping[str, int] = {
    "max_query_size": 64 * 1024 * 1024, "max_ast_elements": 10_000_000, "max_expanded_ast_elements": 10_000_000, "max_execution_time": 0,
}  # fmt: skip
#: Type of the event that tells of an erasure. Its payload says who wanted it, and is not the subject's.
TOLD = "history.erased"

_OF_EXECUTIONS = ("workflow_transitions", "workflow_commands", "module_messages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A row that an erasure reaches."""

    table: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    id: str
    execution_id: str  #: empty if it belongs to none
    erased: bool  #: it was before


def hit(row: Sequence[Any]) -> Hit:
    """A row of one of the queries below."""
    table, topic, partition, offset, timestamp_ms, id_, execution_id, erased = row
    return Hit(
        table=str(table), topic=str(topic), partition=int(partition), offset=int(offset), timestamp_ms=int(timestamp_ms), id=str(id_),
        execution_id=str(execution_id or ""), erased=bool(erased),
    )  # fmt: skip


def _select(table: str, where: str) -> str:
    execution = "ifNull(execution_id, '')" if table in _OF_EXECUTIONS else "''"
    return (
        f"SELECT '{table}', _topic, _partition, _offset, toUnixTimestamp64Milli(_timestamp), id, {execution}, {is_erased(table)} "
        f"FROM {table} WHERE {where}"
    )


def own(subject: str) -> list[str]:
    """The rows that are about a subject: by its name, or as what belongs to the execution of that name."""
    text = quoted(subject)
    queries = []
    for table in all_tables():
        if table == LOG_RECORDS:
            # Their columns say what could be read of them; whose they are stands in the header, if it was sent with one.
            where = f"arrayExists(header -> header.name = 'ce_subject' AND header.value = {text}, headers)"
        elif table in _OF_EXECUTIONS:
            where = f"(subject = {text} OR ifNull(execution_id, '') = {text})"
        else:
            where = f"subject = {text}"
        if table == "system_events":
            where += f" AND NOT (source = 'mplp/history' AND type IN ('{TOLD}', '{ERASED}'))"
        queries.append(_select(table, where))
    return queries


def quoting(ids: Sequence[str]) -> list[str]:
    """The rows that quote records: composites of them, deliveries of them, their dead letters, what lies in the log of them again."""
    listed = _listed(ids)
    return [
        _select("composite_events", f"hasAny(event_ids, [{listed}])"),
        _select("deliveries", f"event_id IN ({listed})"),
        _select(DEAD_LETTERS, f"id IN ({listed})"),
        _select(LOG_RECORDS, f"id IN ({listed})"),
    ]


def caused(ids: Sequence[str]) -> list[str]:
    """The rows of records that were caused by these."""
    listed = _listed(ids)
    tables = [table for table in all_tables() if table not in (DEAD_LETTERS, LOG_RECORDS)]
    return [_select(table, f"causation_id IN ({listed})") for table in tables]


def of_executions(execution_ids: Sequence[str]) -> list[str]:
    """All rows of some executions."""
    return [_select(table, f"ifNull(execution_id, '') IN ({_listed(execution_ids)})") for table in _OF_EXECUTIONS]


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(map(quoted, texts))


def at_places(places: Iterable[Places]) -> str:
    """The condition that a row lies at one of these places."""
    parts = [
        f"(_topic = {quoted(each.topic)} AND _partition = {each.partition} AND _offset IN ({', '.join(map(str, each.offsets))}))"
        for each in places
    ]
    return f"({' OR '.join(parts)})"


def left(table: str, name: str, where: str) -> str:
    """How many rows at some places still have their payload. `name`: the table's name now, if it is kept under another."""
    return f"SELECT count() FROM {name} WHERE {where} AND {_holds(table)}"


def erase(table: str, name: str, where: str) -> str:
    """Takes the payloads at some places away, for good: the parts that have them are written anew."""
    return f"ALTER TABLE {name} UPDATE {assignments(table)} WHERE {where} AND {_holds(table)} SETTINGS mutations_sync = 2"


def derive(name: str, column: str, expression: str, table: str, where: str) -> str:
    """Computes a column anew that was made of the payload, and is not kept in step by ClickHouse itself."""
    return f"ALTER TABLE {name} UPDATE {column} = {expression} WHERE {where} AND {is_erased(table)} SETTINGS mutations_sync = 2"


def derived_columns(name: str) -> str:
    """Columns that default to something of the payload: promoted ones. What is MATERIALIZED follows by itself."""
    return (
        "SELECT name, default_expression FROM system.columns WHERE database = currentDatabase() "
        f"AND table = {quoted(name)} AND default_kind = 'DEFAULT' AND position(default_expression, 'data') > 0 "
        "AND name NOT IN ('data', 'error_code')"
    )


def give_up(name: str) -> str:
    """Ends a mutation of ours that cannot be done: ClickHouse would try it for ever, and every later one would wait for it."""
    where = f"database = currentDatabase() AND table = {quoted(name)} AND NOT is_done AND position(command, '{MARK}') > 0"
    return f"KILL MUTATION WHERE {where}"


def copies() -> str:
    """Tables that a rebuild has kept: they hold the same payloads."""
    return "SELECT name FROM system.tables WHERE database = currentDatabase() AND position(name, '__before_') > 0"


def _holds(table: str) -> str:
    return f"NOT ({is_erased(table)})" + (" AND kind != 'gap'" if table == LOG_RECORDS else "")
