"""How far a partition of requests is done when requests end in any order: what may be committed. Pure."""

from __future__ import annotations

from collections import deque


class Progress:
    """Offsets of one partition that are begun, and which of them have ended.

    Committed is only up to the lowest request that has not ended, so a request is never lost; after a crash those behind it
    come again.
    """

    __slots__ = ("_begun", "_committed", "_ended", "_next")

    def __init__(self) -> None:
        self._begun: deque[int] = deque()
        self._ended: set[int] = set()
        self._next: int | None = None  #: offset after the last one begun
        self._committed: int | None = None

    def begin(self, offset: int) -> None:
        """A request was taken; offsets only grow."""
        self._begun.append(offset)
        self._next = offset + 1

    def end(self, offset: int) -> None:
        """A request was answered, or needs no answer."""
        self._ended.add(offset)
        while self._begun and self._begun[0] in self._ended:
            self._ended.discard(self._begun.popleft())

    @property
    def position(self) -> int | None:
        """The offset to go on with after a crash: the lowest that has not ended; None before the first request."""
        return self._begun[0] if self._begun else self._next

    def to_commit(self) -> int | None:
        """The position, if it moved since `committed` was told."""
        position = self.position
        return None if position == self._committed else position

    def committed(self, position: int) -> None:
        """The broker has this position."""
        self._committed = position


#: Where a request lies: how far its partition is, and its offset.
Place = tuple[Progress, int]
