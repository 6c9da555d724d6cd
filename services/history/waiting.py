"""Records of a partition that were read and wait for their block: kept in pieces, as they came, so that little is done for each."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from services.history.rows import Raw

#: Bytes that a record costs beside its key and value: what Python keeps for it, and its headers.
RECORD_OVERHEAD_BYTES = 600


def size_of(record: Raw) -> int:
    """About how much memory a record takes, bytes."""
    return len(record.value or b"") + len(record.key or b"") + RECORD_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class _Piece:
    records: Sequence[Raw]  #: ascending, at least one
    bytes: int

    @property
    def gapless(self) -> bool:
        """Whether every offset between the first and the last has its record."""
        return self.records[-1].offset - self.records[0].offset == len(self.records) - 1


class Waiting:
    """In order of their offsets."""

    __slots__ = ("_pieces", "bytes", "count")

    def __init__(self) -> None:
        self._pieces: deque[_Piece] = deque()
        self.bytes = self.count = 0

    def add(self, records: Sequence[Raw]) -> None:
        """More of them, behind what is there."""
        if records:
            self._push(records, right=True)

    def take(self, first: int, end: int, bytes_max: int | None, *, until_gap: bool) -> tuple[list[Raw], int | None]:
        """Takes those of [first, end) out, at most about `bytes_max`, and drops earlier ones.

        Also the offset before which it stopped early: at the limit, or, `until_gap`, where offsets are missing; None if it did not.
        """
        taken: list[Raw] = []
        weight, following = 0, first
        while self._pieces and self._pieces[0].records[0].offset < end:
            piece = self._pop()
            records, begin = piece.records, piece.records[0].offset
            fits = bytes_max is None or weight + piece.bytes <= bytes_max
            if begin >= first and records[-1].offset < end and fits and (not until_gap or (piece.gapless and begin == following)):
                taken += records
                weight += piece.bytes
                following = records[-1].offset + 1
                continue
            for index, record in enumerate(records):
                if record.offset < first:
                    continue
                size = size_of(record)
                too_heavy = bytes_max is not None and weight + size > bytes_max
                behind_gap = until_gap and record.offset > following
                if record.offset >= end:
                    self._push(records[index:], right=False)
                    break
                if taken and (too_heavy or behind_gap):
                    self._push(records[index:], right=False)
                    return taken, following if until_gap else record.offset
                taken.append(record)
                weight += size
                following = record.offset + 1
        return taken, following if until_gap and taken else None

    def _push(self, records: Sequence[Raw], *, right: bool) -> None:
        piece = _Piece(records, sum([size_of(record) for record in records]))
        (self._pieces.append if right else self._pieces.appendleft)(piece)
        self.bytes += piece.bytes
        self.count += len(records)

    def _pop(self) -> _Piece:
        piece = self._pieces.popleft()
        self.bytes -= piece.bytes
        self.count -= len(piece.records)
        return piece
