"""Avro bodies of our own records, written and read by functions composed once per schema (pure).

A library that walks the schema for each record costs several times what the bytes cost; a record's encoding lies on the path of every
decision, so it is worth this file. Tests hold it against fastavro, byte by byte. Records of other schema versions go through fastavro.

Two forms of a record: an *object* is its frozen dataclass; a *plain* one is a dict with times in microseconds and `data` as JSON text.
"""

from __future__ import annotations

import math
import struct
import types
import typing
from collections.abc import Callable, Mapping
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeAlias

from streams.codec.payload import payload_of, payload_text
from streams.errors import InvalidInput
from streams.records import from_micros, to_micros

Write: TypeAlias = Callable[[Any], bytes]
Read: TypeAlias = Callable[[bytes, int], tuple[Any, int]]  # buffer, position → value, next position

_DOUBLE = struct.Struct("<d")
_SMALL = tuple(bytes((number,)) for number in range(128))
_NULL, _SOME = _SMALL[0], _SMALL[2]  # branch 0 and branch 1 of a union
#: What a wrong value raises in these functions; callers make `record.invalid` or `avro.invalid` of it.
WRITE_ERRORS = (ValueError, TypeError, AttributeError, OverflowError, KeyError, struct.error)
READ_ERRORS = (ValueError, TypeError, IndexError, OverflowError, struct.error)


def varint(number: int) -> bytes:
    """A long as Avro writes it: zigzag, seven bits a byte, lowest first."""
    number = number << 1 if number >= 0 else (-number << 1) - 1
    if number < 128:
        return _SMALL[number]
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_long(buffer: bytes, position: int) -> tuple[int, int]:
    byte = buffer[position]
    position += 1
    if byte < 128:
        return (byte >> 1) ^ -(byte & 1), position
    number, shift = byte & 127, 7
    while byte > 127:
        if shift > 63:
            raise ValueError("a number has more than 64 bits")
        byte = buffer[position]
        position += 1
        number |= (byte & 127) << shift
        shift += 7
    if number >> 64:
        raise ValueError("a number has more than 64 bits")
    return (number >> 1) ^ -(number & 1), position


def _read_length(buffer: bytes, position: int) -> tuple[int, int]:
    length, position = _read_long(buffer, position)
    if length < 0 or length > len(buffer) - position:
        raise ValueError("a length goes beyond the end")
    return length, position


def _integer_writer(bits: int) -> Write:
    low, high = -(1 << bits - 1), 1 << bits - 1

    def write(value: int) -> bytes:
        if type(value) is not int or not low <= value < high:
            raise ValueError(f"{value!r} is no whole number of {bits} bits")
        return varint(value)

    return write


def _read_int(buffer: bytes, position: int) -> tuple[int, int]:
    number, position = _read_long(buffer, position)
    if not -0x80000000 <= number <= 0x7FFFFFFF:
        raise ValueError("a number has more than 32 bits")
    return number, position


def _write_string(value: str) -> bytes:
    raw = value.encode()
    return varint(len(raw)) + raw


def _read_string(buffer: bytes, position: int) -> tuple[str, int]:
    length = buffer[position]
    position += 1
    if length < 128 and not length & 1:  # nearly all of them: fewer than 64 bytes
        end = position + (length >> 1)
    else:
        length, position = _read_length(buffer, position - 1)
        end = position + length
    if end > len(buffer):
        raise ValueError("a text goes beyond the end")
    return buffer[position:end].decode(), end


def _write_bytes(value: bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} is not bytes")
    return varint(len(value)) + value


def _read_bytes(buffer: bytes, position: int) -> tuple[bytes, int]:
    length, position = _read_length(buffer, position)
    return buffer[position : position + length], position + length


def _write_double(value: float) -> bytes:
    if type(value) is bool or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return _DOUBLE.pack(value)


def _read_double(buffer: bytes, position: int) -> tuple[float, int]:
    return _DOUBLE.unpack_from(buffer, position)[0], position + 8


def _write_boolean(value: bool) -> bytes:
    if type(value) is not bool:
        raise TypeError(f"{value!r} is neither true nor false")
    return _SMALL[value]


def _read_boolean(buffer: bytes, position: int) -> tuple[bool, int]:
    byte = buffer[position]
    if byte > 1:
        raise ValueError("a truth value is neither 0 nor 1")
    return byte == 1, position + 1


_WRITERS: Mapping[str, Write] = {
    "string": _write_string,
    "bytes": _write_bytes,
    "int": _integer_writer(32),
    "long": _integer_writer(64),
    "double": _write_double,
    "boolean": _write_boolean,
}
_READERS: Mapping[str, Read] = {
    "string": _read_string,
    "bytes": _read_bytes,
    "int": _read_int,
    "long": _read_long,
    "double": _read_double,
    "boolean": _read_boolean,
}


def _enum(symbols: list[str]) -> tuple[Write, Read]:
    codes = {symbol: varint(number) for number, symbol in enumerate(symbols)}

    def write(value: str) -> bytes:
        try:
            return codes[value]
        except KeyError:
            raise ValueError(f"{value!r} is none of {', '.join(symbols)}") from None

    def read(buffer: bytes, position: int) -> tuple[str, int]:
        number, position = _read_long(buffer, position)
        if number < 0:
            raise ValueError("a symbol's number is negative")
        return symbols[number], position

    return write, read


def _optional(write_value: Write, read_value: Read) -> tuple[Write, Read]:
    def write(value: Any) -> bytes:
        return _NULL if value is None else _SOME + write_value(value)

    def read(buffer: bytes, position: int) -> tuple[Any, int]:
        branch = buffer[position]
        if branch == 0:
            return None, position + 1
        if branch != 2:
            raise ValueError("a union has no such branch")
        return read_value(buffer, position + 1)

    return write, read


def _block(buffer: bytes, position: int) -> tuple[int, int]:
    """Items of the next block of an array or map; 0 at its end. A negative count is followed by the block's size."""
    count, position = _read_long(buffer, position)
    if count < 0:
        _, position = _read_long(buffer, position)
        count = -count
    if count > len(buffer) - position:  # every item of ours takes a byte at least
        raise ValueError("an array goes beyond the end")
    return count, position


def _array(write_item: Write, read_item: Read, collect: Callable[[list[Any]], Any]) -> tuple[Write, Read]:
    def write(values: Any) -> bytes:
        if not isinstance(values, (list, tuple)):
            raise TypeError(f"{type(values).__name__} is no list")
        return b"".join((varint(len(values)), *map(write_item, values), _NULL)) if values else _NULL

    def read(buffer: bytes, position: int) -> tuple[Any, int]:
        items: list[Any] = []
        count, position = _block(buffer, position)
        while count:
            for _ in range(count):
                item, position = read_item(buffer, position)
                items.append(item)
            count, position = _block(buffer, position)
        return collect(items), position

    return write, read


def _map(write_value: Write, read_value: Read) -> tuple[Write, Read]:
    def write(values: Mapping[str, Any]) -> bytes:
        parts = [_write_string(key) + write_value(value) for key, value in values.items()]
        return b"".join((varint(len(parts)), *parts, _NULL)) if parts else _NULL

    def read(buffer: bytes, position: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        count, position = _block(buffer, position)
        while count:
            for _ in range(count):
                key, position = _read_string(buffer, position)
                found[key], position = read_value(buffer, position)
            count, position = _block(buffer, position)
        return found, position

    return write, read


_MISSING = object()


class CompiledRecord:
    """Writes and reads the Avro body of one record schema, as objects of `cls` and as plain dicts."""

    def __init__(self, schema: Mapping[str, Any], cls: type) -> None:
        self.cls = cls
        self.names = tuple(field["name"] for field in schema["fields"])
        self._known = frozenset(self.names)
        self._defaults = [field.get("default", _MISSING) for field in schema["fields"]]
        hints = typing.get_type_hints(cls)
        objects = [_compile(field["type"], field["name"], hints[field["name"]]) for field in schema["fields"]]
        plain = [_compile(field["type"], field["name"], None) for field in schema["fields"]]
        self._write = tuple(write for write, _ in objects)
        self._read = tuple(read for _, read in objects)
        self._write_plain = tuple(write for write, _ in plain)
        self._read_plain = tuple(read for _, read in plain)
        self._values = attrgetter(*self.names)

    def write(self, record: Any) -> bytes:
        """Body of an object. Raises `InvalidInput` (`record.invalid`) with the field as pointer, or `TooLarge` for its `data`."""
        values = self._values(record)
        try:
            return b"".join([write(value) for write, value in zip(self._write, values, strict=True)])
        except WRITE_ERRORS:
            raise self._wrong_field(self._write, values) from None

    def write_plain(self, plain: Mapping[str, Any]) -> bytes:
        """Body of a plain record; a missing field takes its default. Raises as `write`."""
        if not plain.keys() <= self._known:
            unknown = sorted(map(str, plain.keys() - self._known))[0]
            raise InvalidInput("record.invalid", f"{self.cls.__name__} has no field {unknown}.", pointer=f"/{unknown}")
        values = [plain.get(name, default) for name, default in zip(self.names, self._defaults, strict=True)]
        try:
            return b"".join([write(value) for write, value in zip(self._write_plain, values, strict=True)])
        except WRITE_ERRORS:
            raise self._wrong_field(self._write_plain, values) from None

    def read(self, buffer: bytes, position: int) -> tuple[Any, int]:
        """The object whose body begins at `position`, and where it ends. Raises one of `READ_ERRORS`."""
        values = []
        for read in self._read:
            value, position = read(buffer, position)
            values.append(value)
        return self.cls(**dict(zip(self.names, values, strict=True))), position

    def read_plain(self, buffer: bytes, position: int) -> tuple[dict[str, Any], int]:
        """As `read`, as a plain dict."""
        values = []
        for read in self._read_plain:
            value, position = read(buffer, position)
            values.append(value)
        return dict(zip(self.names, values, strict=True)), position

    def _wrong_field(self, writers: tuple[Write, ...], values: Any) -> InvalidInput:
        """The error for the first field that cannot be written: found by a second walk, so that the good case pays nothing."""
        for name, write, value in zip(self.names, writers, values, strict=True):
            try:
                if value is _MISSING:
                    raise ValueError("it is missing")
                write(value)
            except WRITE_ERRORS as error:
                return InvalidInput("record.invalid", f"{name} of {self.cls.__name__} cannot be written: {error}", pointer=f"/{name}")
        return InvalidInput("record.invalid", f"The {self.cls.__name__} cannot be written.")


def _compile(schema: Any, name: str, hint: Any) -> tuple[Write, Read]:
    """Writer and reader of a value. `hint` is its Python type for objects, None for plain values."""
    if isinstance(schema, list):
        null, value = schema
        assert null == "null", "unions of ours are optional values"
        return _optional(*_compile(value, name, _without_none(hint)))
    kind = schema["type"] if isinstance(schema, dict) else schema
    if hint is not None and name == "data":
        return _converted(kind, payload_text, payload_of)
    if hint is datetime:
        return _converted(kind, to_micros, from_micros)
    match kind:
        case "enum":
            return _enum(schema["symbols"])
        case "record":
            return _nested(CompiledRecord(schema, hint)) if hint is not None else _nested_plain(schema)
        case "array":
            item = None if hint is None else typing.get_args(hint)[0]
            write, read = _compile(schema["items"], "", item)
            return _array(write, read, list if hint is None else tuple)
        case "map":
            return _map(*_compile(schema["values"], "", None))
        case _:
            return _WRITERS[kind], _READERS[kind]


def _converted(kind: str, lower: Callable[[Any], Any], lift: Callable[[Any], Any]) -> tuple[Write, Read]:
    write_value, read_value = _WRITERS[kind], _READERS[kind]

    def read(buffer: bytes, position: int) -> tuple[Any, int]:
        value, position = read_value(buffer, position)
        try:
            return lift(value), position
        except (ValueError, OverflowError) as error:
            raise Unreadable(str(error)) from error

    return lambda value: write_value(lower(value)), read


class Unreadable(Exception):
    """The bytes are sound Avro, but a time or a payload in them is none."""


def _nested(compiled: CompiledRecord) -> tuple[Write, Read]:
    return compiled.write, compiled.read


def _nested_plain(schema: Mapping[str, Any]) -> tuple[Write, Read]:
    names = [field["name"] for field in schema["fields"]]
    parts = [_compile(field["type"], field["name"], None) for field in schema["fields"]]
    writers, readers = [write for write, _ in parts], [read for _, read in parts]

    def write(value: Mapping[str, Any]) -> bytes:
        return b"".join([write(value[name]) for name, write in zip(names, writers, strict=True)])

    def read(buffer: bytes, position: int) -> tuple[dict[str, Any], int]:
        found = {}
        for name, read_value in zip(names, readers, strict=True):
            found[name], position = read_value(buffer, position)
        return found, position

    return write, read


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint
