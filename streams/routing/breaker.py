"""A circuit breaker: how many attempts at a destination may be under way. Pure.

Closed: as many as the line allows. It opens when `KEYS_MAX` keys have failed, and none has succeeded since the first of them failed, at
least `LEAST_MS` ago: then it is not some keys, however many, but the destination. While it is open one attempt is made after each pause,
and the next pause is twice as long; but what comes for the first time is tried every `PAUSE_MS`: keys that fail for ever, be they
thousands, do not hold up one that would not. The first success closes it. No attempt is counted that was not made, so what waits for a
destination that is away is not used up by waiting.
"""

from __future__ import annotations

#: Keys that fail, without a success between them, that open it, and in how long at least, milliseconds.
KEYS_MAX = 50
LEAST_MS = 1000
#: First and longest pause, milliseconds.
PAUSE_MS = 1000
PAUSE_MS_MAX = 30_000


class Breaker:
    """See the module."""

    __slots__ = ("_failed", "_fresh_at_ms", "_pause_ms", "_since_ms", "open_since_ms", "open_until_ms")

    def __init__(self) -> None:
        self._failed: set[object] = set()
        self._since_ms = 0  # when the first of them has failed
        self._pause_ms = 0
        self._fresh_at_ms = 0
        self.open_until_ms: int | None = None  #: until then nothing is attempted again, then one is; None: it is closed
        self.open_since_ms = 0  #: while it is open

    def most(self, now_ms: int, most: int) -> tuple[int, int]:
        """How many attempts may be under way now, of at most `most`; and how many if one more comes for the first time."""
        if self.open_until_ms is None:
            return most, most
        return int(now_ms >= self.open_until_ms), int(now_ms >= self._fresh_at_ms)

    def began(self, now_ms: int) -> None:
        """An attempt at something that comes for the first time is under way while it is open: the next may be in `PAUSE_MS`."""
        self._fresh_at_ms = now_ms + PAUSE_MS

    def next_ms(self, now_ms: int) -> int | None:
        """The next moment at which an attempt may be made that may not be made now; None: there is none."""
        if self.open_until_ms is None:
            return None
        return min((at_ms for at_ms in (self._fresh_at_ms, self.open_until_ms) if at_ms > now_ms), default=None)

    def succeeded(self) -> bool:
        """Whether this has closed it."""
        was_open = self.open_until_ms is not None
        self._failed.clear()
        self._pause_ms, self.open_until_ms = 0, None
        return was_open

    def failed(self, now_ms: int, key: object) -> bool:
        """An attempt has failed in a way that speaks of the destination. Whether this has opened it."""
        opened = self.open_until_ms is None
        if opened and not self._fails_long(now_ms, key):
            return False
        if opened:
            self.open_since_ms = now_ms
        if opened or now_ms >= (self.open_until_ms or 0):  # else it was under way when another opened it, or came for the first time
            self._pause_ms = min(2 * self._pause_ms, PAUSE_MS_MAX) or PAUSE_MS
            self.open_until_ms = now_ms + self._pause_ms
        if opened or now_ms >= self._fresh_at_ms:
            self._fresh_at_ms = now_ms + PAUSE_MS
        return opened

    def _fails_long(self, now_ms: int, key: object) -> bool:
        if not self._failed:
            self._since_ms = now_ms
        if len(self._failed) < KEYS_MAX:
            self._failed.add(key)
        return len(self._failed) >= KEYS_MAX and now_ms - self._since_ms >= LEAST_MS
