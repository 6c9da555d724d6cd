"""Avro record bodies as one Avro object container, so that ClickHouse decodes them and Python does not. Pure.

Each body gets 16 bytes before it (offset and timestamp) and 8 bytes after it (the check, drawn anew for every insert). The
insert refuses the whole container if a check is not where the schema says it must be: a body that is longer or shorter
than its schema, or that imitates several records, can neither shift what follows nor pass for something else.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import orjson

PLACE = struct.Struct("<qq")  #: offset, timestamp in milliseconds
CHECK = struct.Struct("<q")
PLACE_FIELD = "place_"
CHECK_FIELD = "check_"
#: How a body begins whose id is a UUID as text: its length as Avro writes it, and where the text ends.
_UUID_LENGTH, _UUID_END = 36 << 1, 5 + 1 + 36
_SYNC = b"mplp/history/syn"
_PLACE_TYPE = {"type": "fixed", "name": "mplp_history_place", "size": PLACE.size}
_CHECK_TYPE = {"type": "fixed", "name": "mplp_history_check", "size": CHECK.size}

#: One row: offset, timestamp (ms), Avro body.
Row = tuple[int, int, bytes]


def varint(number: int) -> bytes:
    """`number` as Avro writes a long: zig-zag, seven bits a byte."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def body_id(value: bytes) -> bytes:
    """The first field of a record in the wire format, its id, without decoding the rest; empty if there is none.

    Every record of ours begins with `id`, a string: a length and its bytes, after the five bytes of the framing.
    """
    if len(value) >= _UUID_END and value[5] == _UUID_LENGTH:
        return value[6:_UUID_END]
    length = shift = 0
    for position in range(5, min(len(value), 10)):
        byte = value[position]
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            length >>= 1
            start = position + 1
            return value[start : start + length] if start + length <= len(value) else b""
        shift += 7
    return b""


def container(schema: Mapping[str, Any], rows: Sequence[Row], check: int) -> bytes:
    """The container file of `rows`, whose bodies were written with `schema`."""
    pack, tail = PLACE.pack, CHECK.pack(check)
    body = tail.join([pack(offset, timestamp) + value for offset, timestamp, value in rows]) + tail
    return b"".join((_header(orjson.dumps(schema)), varint(len(rows)), varint(len(body)), body, _SYNC))


@cache
def _header(schema_text: bytes) -> bytes:
    schema = orjson.loads(schema_text)
    placed = {
        **schema,
        "fields": [{"name": PLACE_FIELD, "type": _PLACE_TYPE}, *schema["fields"], {"name": CHECK_FIELD, "type": _CHECK_TYPE}],
    }
    metadata = {b"avro.schema": orjson.dumps(placed), b"avro.codec": b"null"}
    entries = b"".join(varint(len(name)) + name + varint(len(value)) + value for name, value in metadata.items())
    return b"Obj\x01" + varint(len(metadata)) + entries + varint(0) + _SYNC


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A field of a schema as ClickHouse reads it from the container."""

    name: str
    type: str


def columns_of(schema: Mapping[str, Any]) -> tuple[Column, ...]:
    """Names and ClickHouse types of a record schema's fields."""
    return tuple(Column(name=field["name"], type=_type_of(field["type"])) for field in schema["fields"])


_PRIMITIVES = {
    "string": "String", "bytes": "String", "int": "Int32", "long": "Int64", "double": "Float64", "float": "Float32", "boolean": "Bool",
}  # fmt: skip


def _type_of(schema: Any) -> str:
    match schema:
        case str():
            return _PRIMITIVES[schema]
        case ["null", inner]:
            return f"Nullable({_type_of(inner)})"
        case {"logicalType": "timestamp-micros"}:
            return "DateTime64(6, 'UTC')"
        case {"type": "enum"}:
            return "String"
        case {"type": "array", "items": items}:
            return f"Array({_type_of(items)})"
        case {"type": "map", "values": values}:
            return f"Map(String, {_type_of(values)})"
        case {"type": "record", "fields": fields}:
            return "Tuple(" + ", ".join(f"{field['name']} {_type_of(field['type'])}" for field in fields) + ")"
        case {"type": str(inner)}:
            return _type_of(inner)
    raise ValueError(f"No ClickHouse type for the Avro type {schema!r}.")
