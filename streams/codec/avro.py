"""The codec: records to Avro bytes in the Confluent wire format (`0x00`, 4-byte big-endian schema id, body) and back.

Two ways back: `decode` gives the frozen dataclass; `decode_raw` gives a plain dict with times as microseconds and `data` as
its JSON text, several times cheaper, for hot paths. A writer schema with more or fewer fields than ours is resolved to ours.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import types
import typing
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any

import fastavro
import orjson

from schemas import AVRO
from streams.errors import InvalidInput
from streams.records import RECORDS, Record, from_micros, iso, to_micros

MAGIC = b"\x00"
_HEADER = struct.Struct(">bI")

CONTENT_TYPE = b"application/avro"


@cache
def local_schemas() -> Mapping[str, dict[str, Any]]:
    """The schemas shipped with this version: record name → schema as in its file."""
    return {name: orjson.loads((AVRO / f"{name}.avsc").read_bytes()) for name in RECORDS}


def schema_text(schema: Mapping[str, Any]) -> str:
    """The schema as it is registered: compact JSON."""
    return orjson.dumps(schema).decode()


def _without_logical_types(schema: Any) -> Any:
    """The same schema with times as plain integers: cheaper, and never out of datetime's range."""
    if isinstance(schema, dict):
        return {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    if isinstance(schema, list):
        return [_without_logical_types(item) for item in schema]
    return schema


@cache
def _reader_schema(name: str) -> Any:
    return fastavro.parse_schema(_without_logical_types(local_schemas()[name]))


@dataclasses.dataclass(frozen=True, slots=True)
class SchemaIds:
    """What the registry knows: schema id → schema (as registered), and record name → id under which we write it."""

    schemas: Mapping[int, dict[str, Any]]
    record_ids: Mapping[str, int]

    @classmethod
    def local(cls) -> SchemaIds:
        """The shipped schemas numbered in order of their names, as a fresh registry numbers them. For tests without a registry."""
        schemas = dict(enumerate((local_schemas()[name] for name in sorted(RECORDS)), start=1))
        return cls(schemas=schemas, record_ids={schema["name"]: number for number, schema in schemas.items()})


def full_name(schema: Mapping[str, Any]) -> str:
    """`namespace.name` of a record schema."""
    namespace = schema.get("namespace", "")
    return f"{namespace}.{schema['name']}" if namespace else str(schema["name"])


class Codec:
    """Encodes and decodes records with the ids that a registry gave. Immutable but for `learn`."""

    def __init__(self, ids: SchemaIds) -> None:
        self._writers: dict[int, tuple[str, Any]] = {}
        self._ids_by_record: dict[str, int] = {}
        self.learn(ids)

    def learn(self, ids: SchemaIds) -> None:
        """Takes over what the registry knows now (schemas of newer writers)."""
        for number, schema in ids.schemas.items():
            if number not in self._writers:
                # A schema that is not ours (a user's own) keeps its name; its records are not decoded into ours.
                self._writers[number] = (str(schema["name"]), fastavro.parse_schema(_without_logical_types(schema)))
        self._ids_by_record.update(ids.record_ids)

    def knows(self, schema_id: int) -> bool:
        """Whether a schema id can be decoded."""
        return schema_id in self._writers

    def schema_id(self, record_name: str) -> int:
        """The registered id of a record of ours. Raises `InvalidInput` (`schema.unregistered`)."""
        try:
            return self._ids_by_record[record_name]
        except KeyError:
            raise InvalidInput(
                "schema.unregistered", f"The schema of {record_name} is not registered.", advice="Run `mplp topics apply`."
            ) from None

    def encode(self, record: Record) -> bytes:
        """The record's bytes. Raises `InvalidInput` (`record.invalid`) with the field's name as pointer."""
        name = type(record).__name__
        return self.encode_raw(name, _to_plain(record))

    def encode_raw(self, name: str, plain: Mapping[str, Any]) -> bytes:
        """The bytes of a record given as a plain dict: times in microseconds, `data` as JSON text."""
        out = io.BytesIO()
        out.write(_HEADER.pack(0, self.schema_id(name)))
        try:
            fastavro.schemaless_writer(out, _reader_schema(name), plain)
        except (ValueError, TypeError, AttributeError, OverflowError, KeyError, struct.error) as error:
            raise InvalidInput("record.invalid", f"This is no {name}: {error}") from error
        return out.getvalue()

    def decode_raw(self, value: bytes) -> tuple[str, dict[str, Any]]:
        """Record name and fields: times in microseconds, `data` as JSON text.

        Raises `InvalidInput`: `avro.framing` (not the wire format), `schema.unknown`, `avro.invalid`.
        """
        if len(value) < 5 or value[0] != 0:
            raise InvalidInput("avro.framing", "The value does not begin with a zero byte and a schema id.")
        _, number = _HEADER.unpack_from(value)
        found = self._writers.get(number)
        if found is None:
            raise InvalidInput("schema.unknown", f"Schema id {number} is not in the registry.")
        name, writer = found
        try:
            if name in RECORDS and self._ids_by_record.get(name) != number:
                decoded = fastavro.schemaless_reader(io.BytesIO(value[5:]), writer, _reader_schema(name))
            else:
                decoded = fastavro.schemaless_reader(io.BytesIO(value[5:]), writer, None)
        except Exception as error:
            raise InvalidInput("avro.invalid", f"The body is no {name}: {type(error).__name__}: {error}") from error
        return name, typing.cast(dict[str, Any], decoded)

    def decode(self, value: bytes) -> Record:
        """The record. Raises as `decode_raw`, and `record.invalid` if a time or `data` cannot be read."""
        name, plain = self.decode_raw(value)
        if name not in RECORDS:
            raise InvalidInput("schema.foreign", f"{name} is not one of our records.")
        return record_from_plain(name, plain)


def record_from_plain(name: str, plain: Mapping[str, Any]) -> Record:
    """The frozen dataclass of a record given as `decode_raw` gives it."""
    cls = RECORDS[name]
    converters = _converters(cls)
    try:
        return cls(**{key: converters[key](value) if key in converters and value is not None else value for key, value in plain.items()})
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput("record.invalid", f"The {name} cannot be read: {error}") from error


def headers_of(record: Record) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0 binary-mode headers of the record, and `mplp_epoch` of a log event."""
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", record.id.encode()),
        ("ce_type", record.type.encode()),
        ("ce_source", (record.source or "mplp").encode()),
        ("ce_subject", record.subject.encode()),
        ("ce_time", iso(record.time).encode()),
        ("content-type", CONTENT_TYPE),
    ]
    epoch = getattr(record, "epoch", None)
    if epoch is not None:
        headers.append(("mplp_epoch", str(epoch).encode()))
    return headers


def to_json(record: Record) -> dict[str, Any]:
    """The record as people and programs get it in JSON: times as RFC 3339 text, `data` parsed, bytes as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, datetime):
            return iso(value)
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return value

    return typing.cast(dict[str, Any], plain(record))


def _data_text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _to_plain(record: Record) -> dict[str, Any]:
    cls = type(record)
    plain: dict[str, Any] = {}
    writers = _plain_writers(cls)
    for name, write in writers.items():
        value = getattr(record, name)
        try:
            plain[name] = write(value) if write is not None and value is not None else value
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InvalidInput("record.invalid", f"{name} of {cls.__name__} cannot be written: {error}", pointer=f"/{name}") from error
    return plain


def _nested(value: Any) -> dict[str, Any]:
    return {
        name: (write(item) if write is not None and (item := getattr(value, name)) is not None else getattr(value, name))
        for name, write in _plain_writers(type(value)).items()
    }


@cache
def _plain_writers(cls: type) -> Mapping[str, Callable[[Any], Any] | None]:
    hints = typing.get_type_hints(cls)
    return {field.name: _writer_for(field.name, hints[field.name]) for field in dataclasses.fields(cls)}


def _writer_for(name: str, hint: Any) -> Callable[[Any], Any] | None:
    core = _core(hint)
    if name == "data":
        return _data_text
    if core is datetime:
        return to_micros
    if dataclasses.is_dataclass(core):
        return _nested
    if typing.get_origin(core) is tuple:
        item = typing.get_args(core)[0]
        return (lambda values: [_nested(value) for value in values]) if dataclasses.is_dataclass(item) else list
    origin = typing.get_origin(core)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return dict
    return None


@cache
def _converters(cls: type) -> Mapping[str, Callable[[Any], Any]]:
    hints = typing.get_type_hints(cls)
    found = {field.name: _reader_for(field.name, hints[field.name]) for field in dataclasses.fields(cls)}
    return {name: convert for name, convert in found.items() if convert is not None}


def _reader_for(name: str, hint: Any) -> Callable[[Any], Any] | None:
    core = _core(hint)
    if name == "data":
        return orjson.loads
    if core is datetime:
        return from_micros
    if dataclasses.is_dataclass(core):
        return _nested_reader(core)
    if typing.get_origin(core) is tuple:
        item = typing.get_args(core)[0]
        if dataclasses.is_dataclass(item):
            read = _nested_reader(item)
            return lambda values: tuple(read(value) for value in values)
        return tuple
    return None


def _nested_reader(cls: Any) -> Callable[[Any], Any]:
    converters = _converters(cls)
    return lambda plain: cls(
        **{key: converters[key](value) if key in converters and value is not None else value for key, value in plain.items()}
    )


def _core(hint: Any) -> Any:
    """The type without `| None`."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        parts = [part for part in typing.get_args(hint) if part is not type(None)]
        return parts[0] if len(parts) == 1 else hint
    return hint


__all__ = ["Codec", "SchemaIds", "full_name", "headers_of", "local_schemas", "record_from_plain", "schema_text", "to_json"]
