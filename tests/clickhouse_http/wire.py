"""Bodies as they travel: compression, forms, and the status that ClickHouse gives to an error. Pure."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Mapping
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Protocol

try:
    import lz4.frame as lz4_frame
except ImportError:  # it has no wheel for every version of Python
    lz4_frame = None
try:
    from backports import zstd
except ImportError:
    from compression import zstd  # type: ignore[no-redef,import-not-found]

#: As in ClickHouse's `exceptionCodeToHTTPStatus`; others are 500.
_STATUSES: Mapping[int, int] = {
    194: 401, 192: 403, 193: 403, 516: 403, 497: 403,
    6: 400, 26: 400, 27: 400, 36: 400, 38: 400, 41: 400, 42: 400, 43: 400, 53: 400, 62: 400, 70: 400, 72: 400, 452: 400, 456: 400, 457: 400,
    46: 404, 47: 404, 50: 404, 56: 404, 60: 404, 81: 404, 115: 404,
    164: 403, 48: 501, 159: 408, 209: 408, 210: 503, 241: 500,
}  # fmt: skip
_CODE = re.compile(r"Code: (\d+)\.")


def code_of(message: str) -> int:
    """ClickHouse's number in the text of an error; 1002 (unknown exception) if there is none."""
    found = _CODE.search(message)
    return int(found[1]) if found else 1002


def status_of(code: int) -> int:
    """HTTP status of an error."""
    return _STATUSES.get(code, 500)


def decompressed(body: bytes, encoding: str) -> bytes:
    """A request's body. Raises `ValueError` for an encoding that is unknown."""
    match encoding:
        case "" | "identity":
            return body
        case "gzip":
            return gzip.decompress(body)
        case "deflate":
            return zlib.decompress(body)
        case "lz4" if lz4_frame is not None:
            return bytes(lz4_frame.decompress(body))
        case "zstd":
            return bytes(zstd.decompress(body))
    raise ValueError(f"Unknown compression method: {encoding}")


class Compressor(Protocol):
    def add(self, data: bytes) -> bytes: ...

    def end(self) -> bytes: ...


class _Identity:
    def add(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._inner = zlib.compressobj(wbits=wbits)

    def add(self, data: bytes) -> bytes:
        return self._inner.compress(data) + self._inner.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._inner.flush()


class _Lz4:
    def __init__(self) -> None:
        self._inner = lz4_frame.LZ4FrameCompressor(auto_flush=True)
        self._header = self._inner.begin()

    def add(self, data: bytes) -> bytes:
        header, self._header = self._header, b""
        return bytes(header + self._inner.compress(data))

    def end(self) -> bytes:
        header, self._header = self._header, b""
        return bytes(header + self._inner.flush())


class _Zstd:
    def __init__(self) -> None:
        self._inner: Any = zstd.ZstdCompressor()

    def add(self, data: bytes) -> bytes:
        return bytes(self._inner.compress(data, self._inner.FLUSH_BLOCK))

    def end(self) -> bytes:
        return bytes(self._inner.flush())


_COMPRESSORS: Mapping[str, Callable[[], Compressor]] = {
    **({"lz4": _Lz4} if lz4_frame is not None else {}),
    "zstd": _Zstd,
    "gzip": lambda: _Zlib(31),
    "deflate": lambda: _Zlib(15),
}


def compressor(accepted: str) -> tuple[str, Compressor]:
    """The first of ours that a client accepts, with its name; the name is empty if there is none."""
    names = {part.split(";")[0].strip() for part in accepted.split(",")}
    for name, make in _COMPRESSORS.items():
        if name in names:
            return name, make()
    return "", _Identity()


def form_fields(body: bytes, content_type: str) -> dict[str, bytes]:
    """The fields of a multipart form. Raises `ValueError` for files: external tables are not supported."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body)
    fields: dict[str, bytes] = {}
    for part in message.iter_parts():  # type: ignore[attr-defined]
        if part.get_filename():
            raise ValueError("External tables are not supported.")
        fields[str(part.get_param("name", header="content-disposition"))] = part.get_payload(decode=True)
    return fields


def tagged_exception(message: str, tag: str) -> bytes:
    """An error in the middle of a body, as ClickHouse writes it since 25.11."""
    text = message.encode()
    return b"\r\n__exception__\r\n%s\r\n%s\n%d %s\r\n__exception__\r\n" % (tag.encode(), text, len(text) + 1, tag.encode())
