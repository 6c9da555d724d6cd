"""How a block's rows come into a table: one container, one statement, one token. Blocks; any thread with a connection of its own."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from clickhouse_connect.driver.client import Client

from services.history.container import CHECK, CHECK_FIELD, PLACE, PLACE_FIELD, Row, container
from services.history.tables import Table, all_tables

#: Settings of every insert: exactly once by token; a payload that is odd JSON becomes an empty `data`, never an error; times stay texts.
_SETTINGS = ", ".join(
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
        "max_execution_time = 0",
        "max_memory_usage = 0",
    )
)


def insert(client: Client, table: str, rows: Sequence[Row], *, topic: str, partition: int, token: str, embedded: bool) -> None:
    """Inserts rows of one month; a repeat with the same token changes nothing. Raises `ClickHouseError`; then none of them is in.

    `topic` is the logical name, as queries see it.
    """
    check = secrets.randbits(63) - 2**62
    body = container(all_tables()[table].schema, rows, check)
    if not embedded:
        client.command(_statement(table, topic, partition, token, check, "input({structure}) FORMAT Avro"), data=body)
        return
    handle, path = tempfile.mkstemp(prefix="mplp-history-", suffix=".avro")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
        client.command(_statement(table, topic, partition, token, check, f"file({quoted(path)}, Avro, {{structure}})"))
    finally:
        Path(path).unlink(missing_ok=True)


def _statement(name: str, topic: str, partition: int, token: str, check: int, source: str) -> str:
    table = all_tables()[name]
    columns = ", ".join((*table.targets, "_topic", "_partition", "_offset", "_timestamp"))
    offset, timestamp = (f"reinterpretAsInt64(substring({PLACE_FIELD}, {start}, 8))" for start in (1, 9))
    place = f"{offset}, fromUnixTimestamp64Milli({timestamp}, 'UTC')"
    values = ", ".join((*(column.name for column in table.columns), quoted(topic), str(partition), place))
    origin, _, output = source.format(structure=quoted(_structure(table))).partition(" FORMAT ")
    return (
        f"INSERT INTO {name} ({columns}) SETTINGS {_SETTINGS}, insert_deduplication_token = {quoted(token)} SELECT {values} FROM {origin} "
        f"WHERE NOT throwIf(reinterpretAsInt64({CHECK_FIELD}) != {check}, 'misaligned')"
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
