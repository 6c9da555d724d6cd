"""Avro bodies of our own records, written and read by functions composed once per schema (pure).

A library that walks the schema for each record costs several times what the bytes cost; a record's encoding lies on the path of every
decision, so it is worth this file. Tests hold it against fastavro, byte by byte. Records of other schema versions go through fastavro.

Two forms of a record: an *object* is its frozen dataclass; a *plain* one is a dict with times in microseconds and `data` as JSON text.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

from streams.codec.payload import payload_text
from streams.codec.primitives import READERS, WRITE_ERRORS, WRITERS, Read, Write, array, enum, mapping, optional, read_time
from streams.errors import InvalidInput
from streams.nesting import parsed
from streams.records import from_micros, to_micros

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
        self._places = {name: place for place, name in enumerate(self.names)}

    def write(self, record: Any, instead: Mapping[str, Any] | None = None) -> bytes:
        """Body of an object, with the fields `instead` of its own.

        Raises `InvalidInput` (`record.invalid`) with the field as pointer, or `TooLarge` for its `data`.
        """
        values: Sequence[Any] = self._values(record)
        if instead is not None:
            values = changed = [*values]
            for name, value in instead.items():
                changed[self._places[name]] = value
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
        return optional(*_compile(value, name, _without_none(hint)))
    kind = schema["type"] if isinstance(schema, dict) else schema
    if hint is not None and name == "data":
        return _converted(WRITERS[kind], READERS[kind], payload_text, parsed)
    if hint is datetime:
        return _converted(WRITERS[kind], read_time, to_micros, from_micros)
    if isinstance(schema, dict) and schema.get("logicalType") == "timestamp-micros":
        return WRITERS[kind], read_time
    match kind:
        case "enum":
            return enum(schema["symbols"])
        case "record":
            return _nested(CompiledRecord(schema, hint)) if hint is not None else _nested_plain(schema)
        case "array":
            item = None if hint is None else typing.get_args(hint)[0]
            write, read = _compile(schema["items"], "", item)
            return array(write, read, list if hint is None else tuple)
        case "map":
            return mapping(*_compile(schema["values"], "", None))
        case _:
            return WRITERS[kind], READERS[kind]


def _converted(write_value: Write, read_value: Read, lower: Callable[[Any], Any], lift: Callable[[Any], Any]) -> tuple[Write, Read]:
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
