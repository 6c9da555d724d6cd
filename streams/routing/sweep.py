"""One pass over a log for the keys that lack records: where it reads on, and for whom. Pure.

Each key says from where to where its records may lie (`add`), and asks no more when it has enough (`drop`). The pass moves forward only;
past stretches where nobody waits it jumps: `next` says where it is worth while to read. So what a key costs that comes every minute to fail
again is its own record, not what lies behind it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable


class Sweep:
    """See the module. `end`: nothing is read from there on; `share`: records of a key that there is room for."""

    __slots__ = ("_active", "_ahead", "_ends", "_wanted", "end", "place", "share")

    def __init__(self, end: int, share: int) -> None:
        self.end = end
        self.share = share
        self.place = 0  #: every key that is in it was shown whatever of its own lies before
        self._wanted: dict[bytes, tuple[int, int]] = {}  # key → first and last offset
        self._ahead: list[tuple[int, bytes]] = []  # heap of those that begin further on
        self._ends: list[tuple[int, bytes]] = []  # heap of those that are active
        self._active: set[bytes] = set()

    def add(self, key: bytes, first: int, last: int) -> bool:
        """The key's records lie from `first` to `last`. False: it is too late for it, the pass has gone by."""
        last = min(last, self.end - 1)
        if first < self.place or first > last:
            return False
        self._wanted[key] = first, last
        self._active.discard(key)
        heapq.heappush(self._ahead, (first, key))
        return True

    def drop(self, key: bytes) -> None:
        """The key wants nothing more of this pass."""
        self._wanted.pop(key, None)
        self._active.discard(key)

    def clear(self) -> None:
        """Nobody wants anything more of this pass."""
        self._wanted.clear()
        self._active.clear()

    def wants(self, offset: int, key: bytes) -> bool:
        """Whether the record at the offset is one that the key waits for; to be asked for each record that is read, in order.

        If so the pass stays there until it is asked for a later one.
        """
        self.place = offset
        self._reach()
        found = key in self._active
        if not found:
            self.place = offset + 1
        return found

    def swept(self, offset: int) -> None:
        """All that lies before the offset was shown."""
        self.place = max(self.place, offset)

    def next(self) -> int | None:
        """Where to read on; None: nobody waits for what is left. If that is further on, it is too late for what lies between."""
        self._reach()
        while self._ends and (self._ends[0][0] < self.place or self._is_over(self._ends[0])):
            last, key = heapq.heappop(self._ends)
            if not self._is_over((last, key)):
                self._active.discard(key)  # it was shown all that it has
        if self._active:
            return self.place if self.place < self.end else None
        while self._ahead and self._is_stale(self._ahead[0]):
            heapq.heappop(self._ahead)
        if not self._ahead:
            return None
        self.place = self._ahead[0][0]
        return self.place

    @property
    def keys(self) -> Iterable[bytes]:
        """Those that are in it: they were shown everything of theirs before `place`."""
        return self._wanted

    def _reach(self) -> None:
        while self._ahead and self._ahead[0][0] <= self.place:
            entry = heapq.heappop(self._ahead)
            if not self._is_stale(entry):
                key = entry[1]
                self._active.add(key)
                heapq.heappush(self._ends, (self._wanted[key][1], key))

    def _is_stale(self, ahead: tuple[int, bytes]) -> bool:
        return ahead[1] in self._active or self._wanted.get(ahead[1], (-1, -1))[0] != ahead[0]

    def _is_over(self, end: tuple[int, bytes]) -> bool:
        return end[1] not in self._active or self._wanted[end[1]][1] != end[0]
