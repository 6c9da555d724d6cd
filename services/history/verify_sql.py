"""The SQL of a verification: digests of rows, sums of them by bucket, single offsets. Pure.

A row's digest is a 64-bit hash of its place and of every column that was inserted. What follows from those (`data` from
`data_text`, promoted columns) is not part of it. Both sides are hashed by ClickHouse's own functions over the same columns, whose types
are the same but for encodings (`LowCardinality`) that the functions do not see.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.history.container import CHECK, CHECK_FIELD, PLACE, PLACE_FIELD, Column
from services.history.tables import LOG_RECORDS, Table, all_tables
from services.history.verify_sums import BUCKET_OFFSETS, Range

#: A verification takes the time that it takes, but not the memory of others.
SETTINGS = (
    "SETTINGS max_execution_time = 0, max_memory_usage = 1073741824, max_rows_to_read = 0, max_result_rows = 0, "
    "max_bytes_before_external_group_by = 536870912"
)

#: Types that are hashed as they are; all others as text.
_PLAIN = frozenset({"String", "Bool", "Int32", "Int64", "Float64", "Float32"})


def digest(table: str) -> str:
    """The digest of a row, from columns named as in the table."""
    columns = [
        part
        for column, target in zip(all_tables()[table].columns, all_tables()[table].targets, strict=True)
        for part in _parts(column, target)
    ]
    whole = f"cityHash64(_offset, toUnixTimestamp64Milli(_timestamp), {', '.join(columns)})"
    # What a gap is dated with depends on the block in which it was found: there is nothing to date.
    return f"if(kind = 'gap', cityHash64(_offset, 'gap'), {whole})" if table == LOG_RECORDS else whole


def _parts(column: Column, target: str) -> list[str]:
    if column.type in _PLAIN:
        return [target]
    if column.type.startswith("DateTime64"):
        return [f"toUnixTimestamp64Micro({target})"]
    if column.type.startswith("Nullable("):
        # A hash of NULL is NULL, so what is not there is told by a number of its own.
        return [f"isNull({target})", f"ifNull(toString({target}), '')"]
    return [f"toString({target})"]


def bounds(table: str, suffix: str = "") -> str:
    """Topic, partition, first and last offset, rows: of everything in a table. `suffix`: here and below, of the tables' names."""
    return f"SELECT _topic, _partition, min(_offset), max(_offset), count() FROM {table}{suffix} GROUP BY _topic, _partition {SETTINGS}"


def sums(table: str, ranges: Sequence[Range], compared: Sequence[int], *, quick: bool, suffix: str = "", more: str = "") -> str:
    """Sums of a topic's rows in a table: partition, whether it is compared with the topic, bucket, rows, of offsets, of digests.

    `ranges` and `compared` by partition number: which offsets count, and from where on they are compared. `quick`: no digests. `more`
    ends the condition.
    """
    firsts, ends = [each.first for each in ranges], [each.end for each in ranges]
    by_partition = "arrayElement({}, _partition + 1)".format
    where = (
        f"_topic = {{topic:String}} AND _partition >= 0 AND _partition < {len(ranges)}"
        f" AND _offset >= {by_partition(list(firsts))} AND _offset < {by_partition(list(ends))}"
    )
    of_rows = "toUInt64(0)" if quick else f"sum({digest(table)})"
    return (
        f"SELECT _partition, _offset >= {by_partition(list(compared))} AS is_compared, intDiv(_offset, {BUCKET_OFFSETS}) AS bucket, "
        f"count(), sum(cityHash64(_offset)), {of_rows} "
        f"FROM {table}{suffix} WHERE {where}{more} GROUP BY _partition, is_compared, bucket {SETTINGS}"
    )


def first_since(tables: Sequence[str], since_ms: int, suffix: str = "") -> str:
    """First offset, and count, of a topic's rows of a partition that are so young."""
    where = f"_topic = {{topic:String}} AND _partition = {{partition:Int32}} AND _timestamp >= fromUnixTimestamp64Milli({since_ms}, 'UTC')"
    parts = " UNION ALL ".join(f"SELECT min(_offset) AS first, count() AS n FROM {table}{suffix} WHERE {where}" for table in tables)
    return f"SELECT minIf(first, n > 0), sum(n) FROM ({parts}) {SETTINGS}"


def expected_offsets(of: Range) -> str:
    """Bucket, count and sum of digests of all offsets of a range, each once."""
    return (
        f"SELECT intDiv(number, {BUCKET_OFFSETS}) AS bucket, count(), sum(cityHash64(toInt64(number))) "
        f"FROM numbers({of.first}, {of.offsets}) GROUP BY bucket {SETTINGS}"
    )


def places(tables: Sequence[str], of: Range, suffix: str = "") -> str:
    """Every row of a topic's partition in a range: offset, table, digest, and of `log_records` kind, id and a hash of the bytes."""
    where = f"_topic = {{topic:String}} AND _partition = {{partition:Int32}} AND _offset >= {of.first} AND _offset < {of.end}"

    def one(table: str) -> str:
        noted = "kind, id, lower(hex(MD5(ifNull(value, ''))))" if table == LOG_RECORDS else "'', id, ''"
        return f"SELECT _offset, '{table}', {digest(table)}, {noted} FROM {table}{suffix} WHERE {where}"

    return " UNION ALL ".join(map(one, tables)) + f" {SETTINGS}"


def earlier(tables: Sequence[str], before: Mapping[str, int], suffix: str = "") -> str:
    """Which of some ids have a row in a topic's partition, and at which first offset. `before`: id → offset of the repeat."""
    end = max(before.values(), default=0)
    where = f"_topic = {{topic:String}} AND _partition = {{partition:Int32}} AND _offset < {end} AND id IN {{ids:Array(String)}}"
    parts = " UNION ALL ".join(f"SELECT id, _offset FROM {table}{suffix} WHERE {where}" for table in tables)
    return f"SELECT id, min(_offset) FROM ({parts}) GROUP BY id {SETTINGS}"


def container_sums(table: Table, path: str, check: int, conditions: str) -> str:
    """As `sums`, of the rows in a container file: bucket, rows, sum of digests. `conditions`: what refuses a container."""
    return (
        f"SELECT intDiv(_offset, {BUCKET_OFFSETS}) AS bucket, count(), sum({digest(table.name)}) "
        f"FROM ({_container(table, path, check, conditions)}) GROUP BY bucket {SETTINGS}"
    )


def container_digests(table: Table, path: str, check: int, conditions: str) -> str:
    """Offset and digest of every row in a container file."""
    return f"SELECT _offset, {digest(table.name)} FROM ({_container(table, path, check, conditions)}) {SETTINGS}"


def _container(table: Table, path: str, check: int, conditions: str) -> str:
    offset, timestamp = (f"reinterpretAsInt64(substring({PLACE_FIELD}, {start}, 8))" for start in (1, 9))
    named = [f"{column.name} AS {target}" for column, target in zip(table.columns, table.targets, strict=True)]
    return (
        f"SELECT {offset} AS _offset, fromUnixTimestamp64Milli({timestamp}, 'UTC') AS _timestamp, {', '.join(named)} "
        f"FROM file('{path}', Avro, {structure(table)}) "
        f"WHERE NOT throwIf(reinterpretAsInt64({CHECK_FIELD}) != {check}, 'misaligned'){conditions}"
    )


def structure(table: Table) -> str:
    """The columns of a container file, as a literal."""
    fields = [f"{column.name} {column.type}" for column in table.columns]
    text = ", ".join((f"{PLACE_FIELD} FixedString({PLACE.size})", *fields, f"{CHECK_FIELD} FixedString({CHECK.size})"))
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
