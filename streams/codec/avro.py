"""The codec: records to Avro bytes in the Confluent wire format (`0x00`, 4-byte big-endian schema id, body) and back.

Two ways back: `decode` gives the frozen dataclass; `decode_raw` gives a plain dict with times as microseconds and `data` as
its JSON text, several times cheaper, for hot paths. A writer schema with more or fewer fields than ours is resolved to ours.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import typing
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

import fastavro
import orjson

from schemas import AVRO
from streams.codec.compiled import CompiledRecord, Unreadable
from streams.codec.partial import Places, begins_with_envelope, places
from streams.codec.primitives import READ_ERRORS
from streams.errors import InvalidInput
from streams.records import RECORDS, Record, iso
from streams.topics import EPOCH_HEADER

_FRAME = struct.Struct(">bI")

CONTENT_TYPE = b"application/avro"
#: What comes behind the envelope of most events: a severity, and nothing of a log. Few different ones, so they are remembered.
_REST_BYTES_MAX, _RESTS_MAX = 8, 256


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

    schemas: Mapping[int, Any]
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
        self._writers: dict[int, _WriterSchema] = {}
        self._by_frame: dict[bytes, _WriterSchema] = {}  # first bytes of a record → the schema that they name
        self._ids_by_record: dict[str, int] = {}
        self._frames: dict[str, bytes] = {}
        self._own: dict[int, CompiledRecord] = {}
        self.learn(ids)

    def learn(self, ids: SchemaIds) -> None:
        """Takes over what the registry knows now (schemas of newer writers)."""
        for number, schema in ids.schemas.items():
            if number not in self._writers:
                self._writers[number] = _WriterSchema(schema)
        for name, number in ids.record_ids.items():
            self._ids_by_record[name] = number
            self._frames[name] = _FRAME.pack(0, number)
            self._own[number] = compiled(name)

    def knows(self, schema_id: int) -> bool:
        """Whether a schema id can be decoded."""
        return schema_id in self._writers

    def schema_id(self, record_name: str) -> int:
        """The registered id of a record of ours. Raises `InvalidInput` (`schema.unregistered`)."""
        try:
            return self._ids_by_record[record_name]
        except KeyError:
            raise _unregistered(record_name) from None

    def encode(self, record: Record, instead: Mapping[str, Any] | None = None) -> bytes:
        """The record's bytes; with fields `instead` of its own, which is cheaper than a copy that has them.

        Raises `InvalidInput` (`record.invalid`, `payload.too-deep`) with the field's name as pointer, `TooLarge` (`payload.too-large`).
        """
        name = type(record).__name__
        frame = self._frames.get(name)
        if frame is None:
            raise _unregistered(name)
        return frame + compiled(name).write(record, instead)

    def encode_raw(self, name: str, plain: Mapping[str, Any]) -> bytes:
        """The bytes of a record given as a plain dict: times in microseconds, `data` as JSON text. Raises as `encode`."""
        frame = self._frames.get(name)
        if frame is None:
            raise _unregistered(name)
        return frame + compiled(name).write_plain(plain)

    def decode_raw(self, value: bytes | None) -> tuple[str, dict[str, Any]]:
        """Record name and fields: times in microseconds, `data` as JSON text.

        Raises `InvalidInput`: `avro.framing` (not the wire format), `schema.unknown`, `avro.invalid`.
        """
        number, writer, value = self._writer_of(value)
        name = writer.name
        own = self._own.get(number)
        if own is None:
            return name, writer.read(value)
        try:
            plain, end = own.read_plain(value, _FRAME.size)
        except READ_ERRORS as error:
            raise _no_such(name, error) from error
        _check_end(name, value, end)
        return name, plain

    def envelope(self, value: bytes | None) -> Places | None:
        """Where the first fields of a record lie, which all records of ours share; None: it is one of another kind.

        Raises as `decode_raw`; but what comes behind the envelope is only looked at if it is short.
        """
        writer = None if value is None else self._by_frame.get(value[: _FRAME.size])
        if writer is None or value is None:
            _, writer, value = self._writer_of(value)
            self._by_frame[value[: _FRAME.size]] = writer
        if not writer.enveloped:
            return None
        try:
            found = places(value, _FRAME.size)
        except READ_ERRORS as error:
            raise _no_such(writer.name, error) from error
        rest = value[found[-1] :]
        if rest not in writer.rests and len(rest) <= _REST_BYTES_MAX:
            self.decode_raw(value)
            if len(writer.rests) < _RESTS_MAX:
                writer.rests.add(rest)
        return found

    def decode(self, value: bytes | None) -> Record:
        """The record.

        Raises as `decode_raw`, `schema.foreign` for a schema that is not ours, `record.invalid` if a time or `data` cannot be read.
        """
        number, writer, value = self._writer_of(value)
        name = writer.name
        own = self._own.get(number)
        if own is None:
            if name not in RECORDS:
                raise InvalidInput("schema.foreign", f"{name} is not one of our records.")
            return record_from_plain(name, writer.read(value))
        try:
            record, end = own.read(value, _FRAME.size)
        except Unreadable as error:
            raise InvalidInput("record.invalid", f"The {name} cannot be read: {error}") from error
        except READ_ERRORS as error:
            raise _no_such(name, error) from error
        _check_end(name, value, end)
        return typing.cast(Record, record)

    def _writer_of(self, value: bytes | None) -> tuple[int, _WriterSchema, bytes]:
        """Schema id, writer schema and bytes of an encoded record."""
        if value is None or len(value) < _FRAME.size or value[0] != 0:
            raise InvalidInput("avro.framing", "The value does not begin with a zero byte and a schema id.")
        _, number = _FRAME.unpack_from(value)
        found = self._writers.get(number)
        if found is None:
            raise InvalidInput("schema.unknown", f"Schema id {number} is not in the registry.")
        return number, found, value


class _WriterSchema:
    """A schema that records may be written with: ours, another version of ours (resolved to ours), or a user's own.

    It is parsed when the first record needs it: a schema that this version cannot read must not keep it from starting.
    """

    __slots__ = ("_parsed", "_schema", "enveloped", "name", "rests")

    def __init__(self, schema: Any) -> None:
        full = full_name(schema) if isinstance(schema, dict) and "name" in schema else "value"
        short = full.removeprefix("mplp.")
        self.name = short if short in RECORDS and short != full else full
        self.enveloped = begins_with_envelope(schema)
        self.rests: set[bytes] = set()  #: short ends of records that were decoded whole, and were sound
        self._schema = schema
        self._parsed: Any = None

    def read(self, value: bytes) -> dict[str, Any]:
        """The record as a plain dict, with our fields if it is one of ours. Raises `InvalidInput`."""
        body = io.BytesIO(value)
        body.seek(_FRAME.size)
        try:
            if self._parsed is None:
                self._parsed = fastavro.parse_schema(_without_logical_types(self._schema))
            decoded = fastavro.schemaless_reader(body, self._parsed, _reader_schema(self.name) if self.name in RECORDS else None)
        except Exception as error:
            raise _no_such(self.name, error) from error
        _check_end(self.name, value, body.tell())
        if not isinstance(decoded, dict):
            raise InvalidInput("schema.foreign", f"The schema {self.name} is no record.")
        return decoded


def _check_end(name: str, value: bytes, end: int) -> None:
    if end != len(value):
        raise InvalidInput("avro.invalid", f"The body is no {name}: {len(value) - end} bytes follow it.")


def _no_such(name: str, error: Exception) -> InvalidInput:
    return InvalidInput("avro.invalid", f"The body is no {name}: {type(error).__name__}: {error}")


def _unregistered(name: str) -> InvalidInput:
    return InvalidInput("schema.unregistered", f"The schema of {name} is not registered.", advice="Run `mplp topics apply`.")


def record_from_plain(name: str, plain: Mapping[str, Any]) -> Record:
    """The frozen dataclass of a record given as `decode_raw` gives it. Raises `InvalidInput` (`record.invalid`, `avro.invalid`)."""
    own = compiled(name)
    try:
        record, _ = own.read(own.write_plain(plain), 0)
    except Unreadable as error:
        raise InvalidInput("record.invalid", f"The {name} cannot be read: {error}") from error
    except READ_ERRORS as error:
        raise _no_such(name, error) from error
    return typing.cast(Record, record)


@cache
def compiled(name: str) -> CompiledRecord:
    """The composed functions of a record of ours."""
    return CompiledRecord(local_schemas()[name], RECORDS[name])


def headers_of(record: Record, epoch: int | None = None) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0 binary-mode headers of the record, and `mplp_epoch` of a log event; `epoch`: of one that does not know its own.

    `ce_subject` is left out if it is empty, as CloudEvents wants it. Raises `InvalidInput` (`record.invalid`) for text that is no Unicode.
    """
    try:
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", record.id.encode()),
            ("ce_type", record.type.encode()),
            ("ce_source", (record.source or "mplp").encode()),
            ("ce_time", iso(record.time).encode()),
            ("content-type", CONTENT_TYPE),
        ]
        if record.subject:
            headers.append(("ce_subject", record.subject.encode()))
    except (ValueError, AttributeError, TypeError, OverflowError) as error:
        raise InvalidInput("record.invalid", f"The {type(record).__name__} has no headers: {error}") from error
    if epoch is None:
        epoch = getattr(record, "epoch", None)
    if epoch is not None:
        headers.append((EPOCH_HEADER, str(epoch).encode()))
    return headers


_PLAIN = frozenset({str, int, float, bool, type(None)})


def to_json(record: Record) -> dict[str, Any]:
    """The record as people and programs get it in JSON: times as RFC 3339 text, `data` parsed, bytes as text."""

    def plain(value: Any) -> Any:
        if type(value) in _PLAIN:  # most values; the checks below cost ten times as much
            return value
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


__all__ = ["Codec", "SchemaIds", "full_name", "headers_of", "local_schemas", "record_from_plain", "schema_text", "to_json"]
