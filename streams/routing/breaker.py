"""A circuit breaker: how many attempts at a destination may be under way. Pure.

Closed: as many as the line allows. When `KEYS_MAX` keys have failed and none has succeeded between, it opens, and nothing is attempted for
a while; then one attempt is. If that fails, too, the next pause is twice as long. No attempt is counted that was not made, so what waits
for a destination that is away is not used up by waiting. Keys are counted, not failures: one that fails for ever says nothing of the
destination, and must not hold up the others; the pauses of its own policy protect the destination from it.
"""

from __future__ import annotations

#: Keys that fail, without a success between them, that open it.
KEYS_MAX = 50
#: First and longest pause, milliseconds.
PAUSE_MS = 1000
PAUSE_MS_MAX = 30_000


class Breaker:
    """See the module."""

    __slots__ = ("_failed", "_pause_ms", "open_until_ms")

    def __init__(self) -> None:
        self._failed: set[bytes] = set()
        self._pause_ms = 0
        self.open_until_ms: int | None = None  #: until then nothing is attempted, then one is; None: it is closed

    def most(self, now_ms: int, most: int) -> int:
        """How many attempts may be under way now, of at most `most`."""
        if self.open_until_ms is None:
            return most
        return 0 if now_ms < self.open_until_ms else 1

    def succeeded(self) -> bool:
        """Whether this has closed it."""
        was_open = self.open_until_ms is not None
        self._failed.clear()
        self._pause_ms, self.open_until_ms = 0, None
        return was_open

    def failed(self, now_ms: int, key: bytes) -> bool:
        """An attempt has failed that another may mend. Whether this has opened it."""
        if self.open_until_ms is None:
            self._failed.add(key)
            if len(self._failed) < KEYS_MAX:
                return False
        elif now_ms < self.open_until_ms:
            return False  # it was under way when another opened it
        opened = self.open_until_ms is None
        self._pause_ms = min(2 * self._pause_ms, PAUSE_MS_MAX) or PAUSE_MS
        self.open_until_ms = now_ms + self._pause_ms
        return opened
