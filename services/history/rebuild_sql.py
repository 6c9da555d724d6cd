"""The SQL of a rebuild: tables beside the tables, what is copied into them, and the swap. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from services.history.copying import ALLOW_TIMES, listed
from services.history.insert import INSERT_SETTINGS, quoted
from services.history.verify_sums import Range

#: Ends the name of a table while it is made anew; after the swap the old one has it until it is dropped.
SUFFIX = "__rebuild"
#: Says which tables are being swapped: whoever finds it finishes the swap.
JOURNAL = "rebuild_swap"

Place = tuple[str, int]  #: topic (logical name), partition


def create(table: str) -> str:
    """A table as another one is now, with its indexes, promoted columns and lifetimes; empty."""
    return f"CREATE TABLE {table}{SUFFIX} AS {table}"


def drop(table: str) -> str:
    """A table goes, and its files with it."""
    return f"DROP TABLE IF EXISTS {table} SYNC"


def exchange(table: str) -> str:
    """A table and the one made anew change their names, at once."""
    return f"EXCHANGE TABLES {table} AND {table}{SUFFIX}"


def kept_name(table: str, at: datetime) -> str:
    """The name under which an old table is kept."""
    return f"{table}__before_{at:%Y%m%dT%H%M%S}"


def create_journal() -> str:
    """The journal; it outlives whoever swaps."""
    return (
        f"CREATE TABLE IF NOT EXISTS {JOURNAL} (table String, new_uuid UUID, at DateTime DEFAULT now()) ENGINE = MergeTree ORDER BY table"
    )


def note_swap(uuids: Mapping[str, str]) -> str:
    """Notes which table (by its lasting identity) is to get which name: all of them or none."""
    values = ", ".join(f"({quoted(table)}, {quoted(uuid)})" for table, uuid in sorted(uuids.items()))
    return f"INSERT INTO {JOURNAL} (table, new_uuid) VALUES {values}"


def uuids(names: Sequence[str]) -> str:
    """Names and identities of some tables."""
    listed = ", ".join(map(quoted, names))
    return f"SELECT name, toString(uuid) FROM system.tables WHERE database = currentDatabase() AND name IN ({listed})"


def shape(table: str) -> str:
    """Everything that a table's definition says, but its name."""
    return (
        "SELECT name, type, default_kind, default_expression, compression_codec FROM system.columns "
        f"WHERE database = currentDatabase() AND table = {quoted(table)} ORDER BY position"
    )


def noted(*, seconds: int) -> str:
    """Which tables are to get which names, noted at least so many seconds ago."""
    return f"SELECT table, toString(new_uuid) FROM {JOURNAL} WHERE at <= now() - {seconds}"


def leftovers() -> str:
    """Tables of a rebuild that did not end."""
    return f"SELECT name FROM system.tables WHERE database = currentDatabase() AND endsWith(name, {quoted(SUFFIX)})"


def written_within(seconds: int) -> str:
    """How many tables and parts of a rebuild were made within so many seconds."""
    mine = f"database = currentDatabase() AND endsWith({{}}, {quoted(SUFFIX)}) AND {{}} > now() - {seconds}"
    tables = mine.format("name", "metadata_modification_time")
    return (
        f"SELECT (SELECT count() FROM system.tables WHERE {tables}) + "
        f"(SELECT count() FROM system.parts WHERE {mine.format('table', 'modification_time')})"
    )


def drop_nothing(database: str, table: str) -> str:
    """Retention drops no rows of a table, until told otherwise or until the engine starts anew."""
    return f"SYSTEM STOP TTL MERGES {database}.{table}"


def drop_again(database: str, table: str) -> str:
    """Retention goes on."""
    return f"SYSTEM START TTL MERGES {database}.{table}"


def copy(table: str, topic: str, ranges: Mapping[int, Range], columns: Sequence[str], more: str = "") -> str | None:
    """Rows of a topic in the old table into the new one, by partition. None: there is nothing to copy. `more`: ends the condition."""
    some = [
        f"(_partition = {number} AND _offset < {of.end} AND _offset >= {of.first})" for number, of in sorted(ranges.items()) if of.offsets
    ]
    if not some:
        return None
    where = f"_topic = {quoted(topic)} AND ({' OR '.join(some)}){more}"
    names = listed(columns)
    return f"INSERT INTO {table}{SUFFIX} ({names}) SELECT {names} FROM {table} WHERE {where} SETTINGS max_execution_time = 0, {ALLOW_TIMES}"


def months_of(table: str, place: Place, of: Range) -> str:
    """The month partitions in which a table has rows of some offsets."""
    return f"SELECT DISTINCT toYYYYMM(_timestamp) FROM {table} WHERE {_where(place, of)}"


def copy_block(
    source: str, target: str, place: Place, of: Range, *, month: int, token: str, columns: Sequence[str], offsets: Sequence[int] = ()
) -> str:
    """Rows of a block (with `offsets`: of those) of one month that the target has not, by a token: a repeat changes nothing."""
    return (
        f"INSERT INTO {target} ({listed(columns)}) SELECT {listed(columns)} FROM {_missing(source, target, place, of, month, offsets)} "
        f"SETTINGS {INSERT_SETTINGS}, {ALLOW_TIMES}, insert_deduplication_token = {quoted(token)}"
    )


def missing(source: str, target: str, place: Place, of: Range, *, month: int, offsets: Sequence[int] = ()) -> str:
    """How many rows `copy_block` would copy, were there no tokens."""
    return f"SELECT count() FROM {_missing(source, target, place, of, month, offsets)}"


def _missing(source: str, target: str, place: Place, of: Range, month: int, offsets: Sequence[int]) -> str:
    some = f" AND _offset IN ({', '.join(map(str, offsets))})" if offsets else ""
    here = f"{_where(place, of)}{some}"
    return f"{source} WHERE {here} AND toYYYYMM(_timestamp) = {month} AND _offset NOT IN (SELECT _offset FROM {target} WHERE {here})"


def _where(place: Place, of: Range) -> str:
    return f"_topic = {quoted(place[0])} AND _partition = {place[1]} AND _offset >= {of.first} AND _offset < {of.end}"
