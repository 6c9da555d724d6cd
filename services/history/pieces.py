"""Cuts what is read of a partition into pieces of bounded size. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from services.history.blocks import BLOCK_BYTES_MAX, BLOCK_OFFSETS_MAX
from services.history.rows import Raw
from services.history.verify_sums import Range
from services.history.waiting import size_of

R = TypeVar("R", bound=Raw)


class Cutter(Generic[R]):
    """Takes records in order of their offsets; gives pieces (where each ends, its records) that together have every offset of a range."""

    def __init__(self, of: Range, ends: Sequence[int] = ()) -> None:
        """`ends` (ascending): where a piece has to end, if they lie in the range."""
        self._end = of.end
        self._ends = [end for end in ends if of.first < end < of.end]
        self._first = of.first
        self._records: list[R] = []
        self._bytes = 0

    def take(self, record: R) -> Iterator[tuple[int, list[R]]]:
        """The pieces that end before this record; it is in a later one. Records outside of the range are left out."""
        if not self._first <= record.offset < self._end:
            return
        while record.offset >= self._limit():
            yield self._cut(self._limit())
        size = size_of(record)
        if self._records and self._bytes + size > BLOCK_BYTES_MAX:
            yield self._cut(record.offset)
        self._records.append(record)
        self._bytes += size

    def rest(self) -> Iterator[tuple[int, list[R]]]:
        """The pieces up to the end of the range."""
        while self._first < self._end:
            yield self._cut(self._limit())

    def _limit(self) -> int:
        return min(self._ends[0] if self._ends else self._end, self._first + BLOCK_OFFSETS_MAX, self._end)

    def _cut(self, end: int) -> tuple[int, list[R]]:
        records, self._records, self._bytes, self._first = self._records, [], 0, end
        while self._ends and self._ends[0] <= end:
            self._ends.pop(0)
        return end, records
