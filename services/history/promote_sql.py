"""A path of a payload as a column of its own: what it is called, which type it has, and the SQL that makes it. Pure.

A promoted column is MATERIALIZED from `data_text`: it comes with every insert, `SELECT *` and inserts do not see it, ClickHouse makes it
anew when the payload is changed, and a rebuilt table has it. Its comment says the path; there is no other record of it.

A column has the value or NULL, never another value: a text is no number, 3.5 is no integer, although ClickHouse would make one of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from services.history.insert import quoted
from services.history.tables import TABLES
from streams.errors import InvalidInput, NotFound

#: Deepest path, and longest as text.
SEGMENTS_MAX = 16
PATH_CHARACTERS_MAX = 256
#: Promoted columns of one table; each makes every insert slower.
COLUMNS_MAX = 50
#: Rows that are looked at to find a type.
SAMPLE_ROWS = 1_000_000
#: Texts with at most so many values, each ten times on average, are kept as a dictionary.
DICTIONARY_MAX = 1000

COMMENT = "promoted from "
PREFIX = "data_"
INDEX = "promoted_"

_SEGMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)|`((?:[^`\\]|\\.)+)`|\"((?:[^\"\\]|\\.)+)\"")
_PLAIN = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A type that a column can have."""

    column: str  #: ClickHouse's type
    takes: tuple[str, ...]  #: JSON types that are values of it, as `JSONType` names them
    index: str = ""  #: skip index


#: By the name that people give.
KINDS: Mapping[str, Kind] = {
    "Float64": Kind(column="Nullable(Float64)", takes=("Int64", "UInt64", "Double"), index="minmax"),
    "Int64": Kind(column="Nullable(Int64)", takes=("Int64",), index="minmax"),
    "UInt64": Kind(column="Nullable(UInt64)", takes=("Int64", "UInt64"), index="minmax"),
    "Bool": Kind(column="Nullable(Bool)", takes=("Bool",)),
    "String": Kind(column="Nullable(String)", takes=("String", "Int64", "UInt64", "Double", "Bool"), index="bloom_filter(0.01)"),
    "LowCardinality(String)": Kind(
        column="LowCardinality(Nullable(String))", takes=("String", "Int64", "UInt64", "Double", "Bool"), index="bloom_filter(0.01)"
    ),
    "DateTime64": Kind(column="Nullable(DateTime64(6, 'UTC'))", takes=("String",), index="minmax"),
    "Array(String)": Kind(column="Array(String)", takes=("Array",), index="bloom_filter(0.01)"),
    "Array(Int64)": Kind(column="Array(Int64)", takes=("Array",), index="bloom_filter(0.01)"),
    "Array(Float64)": Kind(column="Array(Float64)", takes=("Array",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A promoted column as it is in a table."""

    table: str
    name: str
    path: tuple[str, ...]
    type: str  #: one of `KINDS`


def parse_path(text: str) -> tuple[str, ...]:
    """`data.order.total` as segments; odd names stand in backquotes or double quotes. Raises `InvalidInput` (`promote.path`)."""
    if len(text) > PATH_CHARACTERS_MAX:
        raise _bad(f"A path has at most {PATH_CHARACTERS_MAX} characters.")
    if "[" in _SEGMENT.sub("", text):
        raise _bad(
            f"{text} goes into an array, which has many values in one row.",
            "Promote an array of plain values whole: --type 'Array(String)'. "
            "Of an array of objects ask JSONExtractArrayRaw(data_text, 'items').",
        )
    segments: list[str] = []
    position = 0
    while match := _SEGMENT.match(text, position):
        odd = match[2] or match[3]
        segments.append(match[1] or re.sub(r"\\(.)", r"\1", odd))
        position = match.end()
        if position == len(text):
            break
        if text[position] != ".":
            raise _bad(f"{text} cannot be read at {text[position:]!r}.")
        position += 1
    if position != len(text) or not segments or text.endswith("."):
        raise _bad(f"{text!r} is no path.")
    if segments[0] != "data" or len(segments) < 2:
        raise _bad(f"{text} does not begin with `data.`: only what payloads have can be promoted.")
    if len(segments) > SEGMENTS_MAX + 1:
        raise _bad(f"A path has at most {SEGMENTS_MAX} parts.")
    if any(ord(character) < 32 or 0xD800 <= ord(character) < 0xE000 for segment in segments for character in segment):
        raise _bad("A path has no control characters.")
    return tuple(segments[1:])


def _bad(message: str, advice: str = "Such as data.amount, data.order.total, data.`unit price`.") -> InvalidInput:
    return InvalidInput("promote.path", message, pointer="/path", advice=advice)


def path_text(path: Sequence[str]) -> str:
    """The path as `parse_path` reads it."""
    escaped = (segment.replace("\\", "\\\\").replace("`", "\\`") for segment in path)
    return ".".join(["data", *(plain if _PLAIN.match(plain) else f"`{plain}`" for plain in escaped)])


def check_table(table: str) -> str:
    """Raises `NotFound` (`promote.table`) unless the table has payloads."""
    if table not in TABLES.values():
        raise NotFound("promote.table", f"There is no table {table} with payloads.", advice=f"There are: {', '.join(TABLES.values())}.")
    return table


def kind_of(text: str) -> str:
    """The name in `KINDS` of a type as people write it. Raises `InvalidInput` (`promote.type`)."""
    plain = re.sub(r"\s+", "", text)
    if match := re.fullmatch(r"(?i)nullable\((.*)\)", plain):
        plain = match[1]
    plain = re.sub(r"(?i)\Adatetime64\(.*\)\Z|\Adatetime\Z", "DateTime64", plain)
    found = {name.lower(): name for name in KINDS}.get(plain.lower().replace("nullable(string)", "string"))
    if found is None:
        raise InvalidInput("promote.type", f"A column cannot be {text}.", pointer="/type", advice=f"There are: {', '.join(KINDS)}.")
    return found


def name_of(path: Sequence[str], taken: Collection[str]) -> str:
    """What a column of the path is called: `data_order_total`; with a number if that name is taken."""
    plain = PREFIX + re.sub(r"[^A-Za-z0-9_]", "_", "_".join(path))
    name, number = plain, 2
    while name in taken:
        name, number = f"{plain}_{number}", number + 1
    return name


def infer(path: Sequence[str], kinds: Mapping[str, int], elements: Collection[str], texts: int) -> str:
    """The type that stored values have.

    `kinds`: how many values of each JSON type, `elements`: the JSON types in the arrays, `texts`: how many different texts. Raises
    `InvalidInput` (`promote.no-values`, `promote.object`, `promote.mixed`).
    """
    found = {kind for kind, count in kinds.items() if count and kind != "Null"}
    where = path_text(path)
    match sorted(found):
        case []:
            raise InvalidInput("promote.no-values", f"No stored payload has {where}.", pointer="/type", advice="Say the --type.")
        case ["Bool"]:
            return "Bool"
        case ["Int64"]:
            return "Int64"
        case ["UInt64"] | ["Int64", "UInt64"]:
            return "UInt64"
        case ["String"]:
            return "LowCardinality(String)" if texts <= DICTIONARY_MAX and texts * 10 <= kinds["String"] else "String"
        case ["Array"]:
            return _infer_array(where, set(elements) - {"Null"})
    if "Object" in found:
        raise InvalidInput("promote.object", f"{where} is an object: what is in it can be promoted.", pointer="/path")
    if found <= {"Int64", "UInt64", "Double"}:
        return "Float64"
    said = ", ".join(f"{kind} ({kinds[kind]:,})" for kind in sorted(found))
    raise InvalidInput(
        "promote.mixed", f"{where} has values of several types: {said}.", pointer="/type",
        advice="Say the --type; values of another are NULL. String takes every plain value.",
    )  # fmt: skip


def _infer_array(where: str, elements: set[str]) -> str:
    if elements <= {"String"}:
        return "Array(String)"
    if elements <= {"Int64"}:
        return "Array(Int64)"
    if elements <= {"Int64", "UInt64", "Double"}:
        return "Array(Float64)"
    raise InvalidInput(
        "promote.object", f"{where} is an array of {', '.join(sorted(elements))}, which no column holds.", pointer="/path",
        advice="Ask JSONExtractArrayRaw(data_text, …) for it.",
    )  # fmt: skip


# -- SQL


def identifier(name: str) -> str:
    """A name as SQL identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def _keys(path: Sequence[str]) -> str:
    return "data_text, " + ", ".join(map(quoted, path))


def expression(column: Column) -> str:
    """What makes the column's value. It never raises, whatever a payload holds."""
    kind, keys = KINDS[column.type], _keys(column.path)
    if column.type == "DateTime64":
        return f"if(JSONType({keys}) = 'String', parseDateTime64BestEffortOrNull(JSONExtractString({keys}), 6, 'UTC'), NULL)"
    value = f"JSONExtract({keys}, {quoted(kind.column)})"
    takes = ", ".join(map(quoted, kind.takes))
    return value if kind.takes == ("Array",) else f"if(JSONType({keys}) IN ({takes}), {value}, NULL)"


def add(column: Column) -> str:
    """Adds the column and its index."""
    kind, name = KINDS[column.type], identifier(column.name)
    parts = [
        f"ADD COLUMN IF NOT EXISTS {name} {kind.column} MATERIALIZED {expression(column)} "
        f"COMMENT {quoted(COMMENT + path_text(column.path))} CODEC(ZSTD(1))"
    ]
    if kind.index:
        parts.append(f"ADD INDEX IF NOT EXISTS {identifier(INDEX + column.name)} {name} TYPE {kind.index}")
    return f"ALTER TABLE {column.table} {', '.join(parts)}"


def materialise(column: Column) -> str:
    """Makes it for the rows that are there, in the background."""
    parts = [f"MATERIALIZE COLUMN {identifier(column.name)}"]
    if KINDS[column.type].index:
        parts.append(f"MATERIALIZE INDEX {identifier(INDEX + column.name)}")
    return f"ALTER TABLE {column.table} {', '.join(parts)}"


def remove(column: Column) -> str:
    """Takes the column and its index away."""
    index, name = identifier(INDEX + column.name), identifier(column.name)
    return f"ALTER TABLE {column.table} DROP INDEX IF EXISTS {index}, DROP COLUMN IF EXISTS {name}"


def columns() -> str:
    """Table, name, type, comment and compressed bytes of all columns of tables with payloads."""
    tables = ", ".join(map(quoted, TABLES.values()))
    return (
        "SELECT table, name, type, comment, data_compressed_bytes FROM system.columns "
        f"WHERE database = currentDatabase() AND table IN ({tables}) ORDER BY table, position"
    )


def parts(table: str, column: str) -> str:
    """Rows of a table, and those of parts that have the column."""
    return (
        "SELECT sumIf(rows, column = '_offset'), sumIf(rows, column != '_offset') FROM system.parts_columns WHERE active "
        f"AND database = currentDatabase() AND table = {quoted(table)} AND column IN ('_offset', {quoted(column)})"
    )


def mutations(table: str, column: str) -> str:
    """Mutations of a column that are not done, and why they fail if they do."""
    return (
        "SELECT mutation_id, latest_fail_reason FROM system.mutations WHERE database = currentDatabase() AND NOT is_done "
        f"AND table = {quoted(table)} AND position(command, {quoted(column)}) > 0"
    )


def sample(table: str, path: Sequence[str]) -> str:
    """JSON types of the path's values, with how many there are, JSON types in arrays, different texts, and names in objects."""
    keys = _keys(path)
    return (
        f"SELECT toString(JSONType({keys})) AS kind, count(), "
        f"groupUniqArrayArray(if(kind = 'Array', arrayMap(x -> toString(JSONType(x)), JSONExtractArrayRaw({keys})), [])), "
        f"uniq(JSONExtractString({keys})), groupUniqArrayArray(8)(if(kind = 'Object', JSONExtractKeys({keys}), [])) "
        f"FROM (SELECT data_text FROM {table} WHERE JSONHas({keys}) LIMIT {SAMPLE_ROWS}) GROUP BY kind"
    )


def count(column: Column) -> str:
    """Rows; those that have a value; those whose payload has one of another type."""
    name, keys = identifier(column.name), _keys(column.path)
    empty = f"empty({name})" if column.type.startswith("Array") else f"isNull({name})"
    of_other = f"JSONType({keys}) != 'Null' AND NOT (JSONType({keys}) = 'Array' AND JSONLength({keys}) = 0)"
    return f"SELECT count(), countIf(NOT {empty}), countIf({empty} AND {of_other}) FROM {column.table}"


def promoted(table: str, name: str, type_: str, comment: str) -> Column | None:
    """The column, if it is a promoted one."""
    if not comment.startswith(COMMENT):
        return None
    kind = next((kind for kind, known in KINDS.items() if known.column == type_), None)
    if kind is None:
        return None
    return Column(table=table, name=name, path=parse_path(comment.removeprefix(COMMENT)), type=kind)
