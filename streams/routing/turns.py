"""Which key is attempted next: what comes for the first time before what comes again, which gets its turn nevertheless. Pure.

So a key that was never in trouble does not stand behind thousands that were, and those come out also where there is always something new.
"""

from __future__ import annotations

from collections import deque

#: Of the attempts under way this part at most is for what comes again.
AGAIN_PART = 3 / 4
#: How many that come for the first time may go before one that comes again.
FRESH_IN_A_ROW = 4


class Turns:
    """See the module. Each key is in it once at most: ready, or under way."""

    def __init__(self) -> None:
        self.under_way = 0
        self._fresh: deque[bytes] = deque()
        self._again: deque[bytes] = deque()  # after failures, or from the log
        self._again_under_way: set[bytes] = set()
        self._in_a_row = 0

    def ready(self, key: bytes, *, again: bool) -> None:
        """The key can be attempted."""
        (self._again if again else self._fresh).append(key)

    def begin(self, most: int, fresh_most: int = 0) -> bytes | None:
        """The key whose turn it is, under way from now on; None: there is none, or so many are under way.

        `fresh_most`: how many may be, if that is more, for one that comes for the first time.
        """
        again = bool(self._again) and self.under_way < most and len(self._again_under_way) < max(1, most * AGAIN_PART)
        if self._fresh and self.under_way < max(most, fresh_most) and not (again and self._in_a_row >= FRESH_IN_A_ROW):
            key = self._fresh.popleft()
            self._in_a_row += 1
        elif again:
            key = self._again.popleft()
            self._in_a_row = 0
            self._again_under_way.add(key)
        else:
            return None
        self.under_way += 1
        return key

    def has_ready(self, *, again: bool) -> bool:
        """Whether a key is ready; without `again` only those count that come for the first time."""
        return bool(self._fresh or (again and self._again))

    def next(self) -> list[bytes]:
        """The keys whose turn is next, of each kind, if there are any."""
        return [queue[0] for queue in (self._fresh, self._again) if queue]

    def end(self, key: bytes) -> None:
        """The key is under way no more."""
        self.under_way -= 1
        self._again_under_way.discard(key)

    def clear(self) -> None:
        """No key is ready."""
        self._fresh.clear()
        self._again.clear()
