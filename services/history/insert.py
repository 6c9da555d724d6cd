"""How a block's rows come into a table: one container, one statement, one token. Blocks; any thread with a connection of its own."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client

from services.history.blocks import INSERT_SECONDS_MAX
from services.history.container import CHECK, CHECK_FIELD, PLACE, PLACE_FIELD, Row, container
from services.history.copying import ALLOW_TIMES, INSERTED_AT, inserted_at, inserted_before
from services.history.tables import Table, all_tables
from services.history.verify_sums import Range

#: What an insert says that came too late.
EXPIRED = "expired"

#: Settings of every insert: exactly once by token; a payload that is odd JSON becomes an empty `data`, never an error; times stay texts.
INSERT_SETTINGS = ", ".join(
    (
        "async_insert = 0",
        "insert_deduplicate = 1",
        "deduplicate_blocks_in_dependent_materialized_views = 1",
        # One block of one thread: the token stands for the whole insert.
        "max_insert_threads = 1",
        "max_threads = 1",
        "max_block_size = 1048576",
        "max_insert_block_size = 1048576",
        "min_insert_block_size_rows = 1048576",
        "min_insert_block_size_bytes = 536870912",
        "max_partitions_per_insert_block = 1",
        "input_format_avro_allow_missing_fields = 0",
        "type_json_skip_duplicated_paths = 1",
        "input_format_try_infer_dates = 0",
        "input_format_try_infer_datetimes = 0",
        f"max_execution_time = {INSERT_SECONDS_MAX}",
        "max_memory_usage = 0",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Insert:
    """Rows of one month for one table. `topic` is the logical name, as queries see it."""

    table: str
    topic: str
    partition: int
    token: str
    rows: Sequence[Row]
    suffix: str = ""  #: follows the table's name
    deadline_ms: int | None = None  #: on the server's clock (Unix time); an insert that begins later refuses itself
    quorum: bool = False  #: acknowledged by a majority of the replicas
    times_of: tuple[str, Range] | None = None  #: a table, and offsets, that have some of the rows: they keep when they were inserted there


def insert(client: Client, one: Insert, *, embedded: bool) -> None:
    """Inserts; a repeat with the same token changes nothing. Raises `ClickHouseError`; then none of the rows is in."""
    check = secrets.randbits(63) - 2**62
    body = container(all_tables()[one.table].schema, one.rows, check)
    if not embedded:
        client.command(_statement(one, check, "input({structure}) FORMAT Avro"), data=body)
        return
    handle, path = tempfile.mkstemp(prefix="mplp-history-", suffix=".avro")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
        client.command(_statement(one, check, f"file({quoted(path)}, Avro, {{structure}})"))
    finally:
        Path(path).unlink(missing_ok=True)


def _statement(one: Insert, check: int, source: str) -> str:
    table = all_tables()[one.table]
    columns = ", ".join((*table.targets, "_topic", "_partition", "_offset", "_timestamp"))
    offset, timestamp = (f"reinterpretAsInt64(substring({PLACE_FIELD}, {start}, 8))" for start in (1, 9))
    place = f"{offset}, fromUnixTimestamp64Milli({timestamp}, 'UTC')"
    values = ", ".join((*(column.name for column in table.columns), quoted(one.topic), str(one.partition), place))
    origin, _, output = source.format(structure=quoted(_structure(table))).partition(" FORMAT ")
    settings = f"{INSERT_SETTINGS}, insert_deduplication_token = {quoted(one.token)}" + (", insert_quorum = 'auto'" if one.quorum else "")
    known = ""
    if one.times_of is not None:
        earlier, of = one.times_of
        here = f"_topic = {quoted(one.topic)} AND _partition = {one.partition} AND _offset >= {of.first} AND _offset < {of.end}"
        known = f"WITH {inserted_before(earlier, here, of)} AS known "
        columns += f", {INSERTED_AT}"
        values += f", {inserted_at('known', offset, of.first)}"
        settings += f", {ALLOW_TIMES}"
    late = "" if one.deadline_ms is None else f"NOT throwIf(toUnixTimestamp64Milli(now64(3)) > {one.deadline_ms}, '{EXPIRED}') AND "
    return (
        f"INSERT INTO {one.table}{one.suffix} ({columns}) SETTINGS {settings} {known}SELECT {values} FROM {origin} "
        f"WHERE {late}NOT throwIf(reinterpretAsInt64({CHECK_FIELD}) != {check}, 'misaligned')"
        + texts_are_utf8(table)
        + (f" FORMAT {output}" if output else "")
    )


def texts_are_utf8(table: Table) -> str:
    """What other readers cannot decode must not be a row: texts of records are UTF-8."""
    texts = [column.name for column in table.columns if column.type == "String" and column.name not in ("key", "value")]
    checks = " AND ".join(f"isValidUTF8({text})" for text in texts)
    return f" AND NOT throwIf(NOT ({checks}), 'not UTF-8')"


def _structure(table: Table) -> str:
    fields = [f"{column.name} {column.type}" for column in table.columns]
    return ", ".join((f"{PLACE_FIELD} FixedString({PLACE.size})", *fields, f"{CHECK_FIELD} FixedString({CHECK.size})"))


def quoted(text: str) -> str:
    """A text as SQL literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
