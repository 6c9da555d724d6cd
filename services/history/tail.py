"""A server's answer whose end may be an error: ClickHouse has begun to answer with 200 before it knows that it cannot go on."""

from __future__ import annotations

import re
from typing import Any

from clickhouse_connect.driver.exceptions import StreamFailureError

#: Bytes held back until it is known what follows: longer than an error that ClickHouse writes into an answer (16 KiB).
HELD_BYTES = 20 * 1024
_ERROR = re.compile(rb"(?:__exception__\r?\n(?:\w+\r?\n)?)?Code: (\d+)\. DB::Exception: .*", re.DOTALL)
_TAGGED = re.compile(rb"\r?\n__exception__\r?\n", re.DOTALL)


class Tail:
    """Reads a stream, and raises `StreamFailureError` where ClickHouse wrote an error behind what it had answered."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._held = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        """As `io.RawIOBase.read`: at most about `size` bytes, none at the end."""
        while not self._ended and len(self._held) <= HELD_BYTES:
            chunk = self._stream.read(size)
            self._ended = not chunk
            self._held += chunk
        if self._ended:
            self._check()
            taken, self._held = self._held, b""
            return taken
        taken, self._held = self._held[:-HELD_BYTES], self._held[-HELD_BYTES:]
        return taken

    def close(self) -> None:
        """Closes the stream below."""
        self._stream.close()

    def _check(self) -> None:
        """An error stands behind a tag; servers before 25.11 put it there without one, and no format of ours ends in a parenthesis."""
        tagged = _TAGGED.search(self._held)
        tail = self._held[tagged.start() :].lstrip(b"\r\n") if tagged else self._held[max(0, self._held.rfind(b"Code: ")) :]
        found = _ERROR.match(tail)
        if found and (tagged or (tail.rstrip().endswith(b")") and b"(version " in tail[-200:])):
            raise StreamFailureError(tail.decode(errors="replace"), code=int(found[1]))
