"""Reads no more of an encoded record than is needed: where its first fields lie, which all records of ours share (pure).

Most records concern no rule, and those that do are rarely asked for more than their envelope and payload. Finding the places costs a
third of decoding a record; what is at a place is decoded when somebody asks for it (`streams.matching.encoded`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from streams.codec.primitives import read_length, read_time

#: The first fields of all records of ours.
ENVELOPE = ("id", "type", "source", "subject", "time", "tenant", "correlation_id", "causation_id", "data")
_TYPES = ("string", "string", "string", "string", "long", "string", "string", ["null", "string"], "string")

#: Places of the envelope: begin and end of each text, and the time; see `places`.
Places: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int]


def begins_with_envelope(schema: Any) -> bool:
    """Whether the records of a schema begin with the envelope, so that `places` can read them."""
    fields = schema.get("fields", ()) if isinstance(schema, Mapping) and schema.get("type") == "record" else ()
    return tuple((field["name"], _plain(field["type"])) for field in fields[: len(ENVELOPE)]) == tuple(zip(ENVELOPE, _TYPES, strict=True))


def _plain(schema: Any) -> Any:
    return schema["type"] if isinstance(schema, Mapping) and "logicalType" in schema else schema


def places(buffer: bytes, position: int) -> Places:
    """Where the envelope that begins at `position` has its texts: (begin, end) of id, type, source, subject; the time, microseconds;
    (begin, end) of tenant, correlation id, causation id (0, 0: null) and data. What follows begins where data ends.

    Raises one of `READ_ERRORS`. The same nine times, written out: a loop would cost as much as what it does.
    """
    size, position = buffer[position], position + 1
    if size & 129:  # negative, or of more than one byte
        size, position = read_length(buffer, position - 1)
    else:
        size >>= 1
    id_at, type_at = position, position + size
    size, position = buffer[type_at], type_at + 1
    if size & 129:
        size, position = read_length(buffer, position - 1)
    else:
        size >>= 1
    id_end, type_at = type_at, position
    source_at = position + size
    size, position = buffer[source_at], source_at + 1
    if size & 129:
        size, position = read_length(buffer, position - 1)
    else:
        size >>= 1
    type_end, source_at = source_at, position
    subject_at = position + size
    size, position = buffer[subject_at], subject_at + 1
    if size & 129:
        size, position = read_length(buffer, position - 1)
    else:
        size >>= 1
    source_end, subject_at = subject_at, position
    subject_end = position + size
    time_us, position = read_time(buffer, subject_end)
    size, position = buffer[position], position + 1
    if size & 129:
        size, position = read_length(buffer, position - 1)
    else:
        size >>= 1
    tenant_at, correlation_at = position, position + size
    size, position = buffer[correlation_at], correlation_at + 1
    if size & 129:
        size, position = read_length(buffer, position - 1)
    else:
        size >>= 1
    tenant_end, correlation_at = correlation_at, position
    correlation_end = position + size
    branch, position = buffer[correlation_end], correlation_end + 1
    causation_at = causation_end = 0
    if branch == 2:
        size, causation_at = read_length(buffer, position)
        position = causation_end = causation_at + size
    elif branch:
        raise ValueError("a union has no such branch")
    size, data_at = buffer[position], position + 1
    if size & 129:
        size, data_at = read_length(buffer, position)
    else:
        size >>= 1
    data_end = data_at + size
    if data_end > len(buffer):
        raise ValueError("a text goes beyond the end")
    return (
        id_at, id_end, type_at, type_end, source_at, source_end, subject_at, subject_end, time_us, tenant_at, tenant_end,
        correlation_at, correlation_end, causation_at, causation_end, data_at, data_end,
    )  # fmt: skip
