"""Avro's types, each as a pair of functions: value → bytes, and buffer with position → value with next position (pure).

Stricter than Avro needs: truth values are no numbers, numbers are finite, lengths and counts never go beyond the buffer.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Write: TypeAlias = Callable[[Any], bytes]
Read: TypeAlias = Callable[[bytes, int], tuple[Any, int]]  # buffer, position → value, next position

#: Short texts as they were written last: a record repeats types, sources and the ids of its story, and so do those after it.
_written: dict[str, bytes] = {}
_WRITTEN_MAX, _WRITTEN_BYTES_MAX = 8192, 64

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


def read_long(buffer: bytes, position: int) -> tuple[int, int]:
    """A long as `varint` writes it."""
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


def read_time(buffer: bytes, position: int) -> tuple[int, int]:
    """As `read_long`, quicker for what takes eight bytes: microseconds of the years 1979 to 3111."""
    number = int.from_bytes(buffer[position : position + 8], "little")
    if number & 0x8080808080808080 != 0x0080808080808080 or number < 1 << 56:
        return read_long(buffer, position)
    # Groups of seven bits move together: first in pairs, then in fours, then all eight.
    number = (number & 0x007F007F007F007F) | (number & 0x7F007F007F007F00) >> 1
    number = (number & 0x00003FFF00003FFF) | (number & 0x3FFF00003FFF0000) >> 2
    number = (number & 0x0FFFFFFF) | (number & 0x0FFFFFFF00000000) >> 4
    return (number >> 1) ^ -(number & 1), position + 8


def read_length(buffer: bytes, position: int) -> tuple[int, int]:
    """The length of a text or of bytes, which end within the buffer."""
    length, position = read_long(buffer, position)
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
    number, position = read_long(buffer, position)
    if not -0x80000000 <= number <= 0x7FFFFFFF:
        raise ValueError("a number has more than 32 bits")
    return number, position


def _write_string(value: str) -> bytes:
    found = _written.get(value)
    if found is not None:
        return found
    raw = value.encode()
    size = len(raw)
    written = (_SMALL[size << 1] if size < 64 else varint(size)) + raw
    if size <= _WRITTEN_BYTES_MAX:
        if len(_written) >= _WRITTEN_MAX:
            _written.clear()
        _written[value] = written
    return written


def _write_texts(values: Any) -> bytes:
    """An array of texts that are not written again soon: ids of records."""
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{type(values).__name__} is no list")
    if not values:
        return _NULL
    parts = [varint(len(values))]
    for value in values:
        raw = value.encode()
        size = len(raw)
        parts += (_SMALL[size << 1] if size < 64 else varint(size), raw)
    return b"".join((*parts, _NULL))


def _read_string(buffer: bytes, position: int) -> tuple[str, int]:
    length = buffer[position]
    position += 1
    if length < 128 and not length & 1:  # nearly all of them: fewer than 64 bytes
        end = position + (length >> 1)
    else:
        length, position = read_length(buffer, position - 1)
        end = position + length
    if end > len(buffer):
        raise ValueError("a text goes beyond the end")
    return buffer[position:end].decode(), end


def _write_bytes(value: bytes) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value).__name__} is not bytes")
    return varint(len(value)) + value


def _read_bytes(buffer: bytes, position: int) -> tuple[bytes, int]:
    length, position = read_length(buffer, position)
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


WRITERS: Mapping[str, Write] = {
    "string": _write_string,
    "bytes": _write_bytes,
    "int": _integer_writer(32),
    "long": _integer_writer(64),
    "double": _write_double,
    "boolean": _write_boolean,
}
READERS: Mapping[str, Read] = {
    "string": _read_string,
    "bytes": _read_bytes,
    "int": _read_int,
    "long": read_long,
    "double": _read_double,
    "boolean": _read_boolean,
}


def enum(symbols: list[str]) -> tuple[Write, Read]:
    """One of `symbols`, as its number."""
    codes = {symbol: varint(number) for number, symbol in enumerate(symbols)}

    def write(value: str) -> bytes:
        try:
            return codes[value]
        except KeyError:
            raise ValueError(f"{value!r} is none of {', '.join(symbols)}") from None

    def read(buffer: bytes, position: int) -> tuple[str, int]:
        number, position = read_long(buffer, position)
        if number < 0:
            raise ValueError("a symbol's number is negative")
        return symbols[number], position

    return write, read


def optional(write_value: Write, read_value: Read) -> tuple[Write, Read]:
    """A union of null and a value."""

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
    count, position = read_long(buffer, position)
    if count < 0:
        _, position = read_long(buffer, position)
        count = -count
    if count > len(buffer) - position:  # every item of ours takes a byte at least
        raise ValueError("an array goes beyond the end")
    return count, position


def array(write_item: Write, read_item: Read, collect: Callable[[list[Any]], Any]) -> tuple[Write, Read]:
    """Items in their order; reading gives what `collect` makes of the list."""

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

    return _write_texts if write_item is _write_string else write, read


def mapping(write_value: Write, read_value: Read) -> tuple[Write, Read]:
    """Text keys to values, in the dict's order."""

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
