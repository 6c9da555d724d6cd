"""Where something lies that is not kept in memory: an index from keys to offsets, 20 bytes an entry. Pure.

An index is a list of *segments*, the newest last. A segment is immutable: the sorted hashes (64 bits) of its keys, the offset
of each, and until when each counts. Whoever finds a place reads what lies there and checks that it is what was looked for, so
that two keys of one hash do no harm. Each checkpoint adds a segment; segments of like size are merged, so that there are
few of them and every entry is written again a few times only. A segment that a checkpoint names is loaded when it is first
needed, so that a takeover does not read what ended long ago.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

#: Entries up to which segments are merged: 5 MiB, and merging them takes a quarter of a second of a thread.
SEGMENT_ENTRIES_MAX = 256 * 1024
_SECOND_US = 1_000_000
_LATEST_S = 2**32 - 1


def hash_of(key: str) -> int:
    """64 bits of a key, the same in every process."""
    return int.from_bytes(blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest(), "little")


@dataclass(frozen=True, slots=True)
class Entry:
    """A key, where what it stands for lies, and until when that counts (microseconds since the epoch)."""

    key: str
    offset: int
    expires_us: int


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Immutable part of an index. `place`: its own offset in the topic of parked states; −1: it is not written yet."""

    hashes: array[int]
    offsets: array[int]
    expiries_s: array[int]
    place: int = -1

    def __len__(self) -> int:
        return len(self.hashes)

    def find(self, hashed: int, time_us: int) -> Iterator[int]:
        """Offsets under a hash that still count at `time_us`, the newest first."""
        at = bisect_left(self.hashes, hashed)
        while at < len(self.hashes) and self.hashes[at] == hashed:
            if self.expiries_s[at] * _SECOND_US > time_us:
                yield self.offsets[at]
            at += 1

    def to_bytes(self) -> bytes:
        """The segment as it is kept: the three columns, one after the other, little-endian."""
        return b"".join(_little(column).tobytes() for column in (self.hashes, self.offsets, self.expiries_s))

    @classmethod
    def from_bytes(cls, raw: bytes, place: int) -> Segment:
        """What `to_bytes` wrote."""
        count, rest = divmod(len(raw), 20)
        if rest:
            raise ValueError(f"A segment of an index cannot have {len(raw)} bytes.")
        columns = array("Q"), array("Q"), array("I")
        for column, start, end in zip(columns, (0, 8 * count, 16 * count), (8 * count, 16 * count, 20 * count), strict=True):
            column.frombytes(raw[start:end])
        hashes, offsets, expiries_s = (_little(column) for column in columns)
        return cls(hashes, offsets, expiries_s, place)


def _little(column: array[int]) -> array[int]:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column


def segment_of(entries: Iterable[Entry]) -> Segment:
    """A new segment; of two entries with the same key the later one is the newer."""
    rows = [(hash_of(entry.key), entry.offset, min(_LATEST_S, -(-entry.expires_us // _SECOND_US))) for entry in entries]
    return _made(rows)


def merge(segments: Sequence[Segment], time_us: int) -> Segment:
    """One segment of several (oldest first), without what does not count any more at `time_us`."""
    rows = [
        row
        for segment in segments
        for row in zip(segment.hashes, segment.offsets, segment.expiries_s, strict=True)
        if row[2] * _SECOND_US > time_us
    ]
    return _made(rows)


def _made(rows: list[tuple[int, int, int]]) -> Segment:
    # What is found later lies further back in its topic: the highest offset is the newest.
    rows.sort(key=lambda row: (row[0], -row[1]))
    return Segment(array("Q", (row[0] for row in rows)), array("Q", (row[1] for row in rows)), array("I", (row[2] for row in rows)))


@dataclass(slots=True)
class Index:
    """Segments, the oldest first; `pending` are those that a checkpoint names and nobody needed yet: (place, entries)."""

    segments: list[Segment] = field(default_factory=list)
    pending: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.segments)) + sum(count for _, count in self.pending)

    def find(self, key: str, time_us: int) -> Iterator[int]:
        """Offsets under which `key` may lie, the newest first; complete only when nothing is `pending`."""
        hashed = hash_of(key)
        for segment in reversed(self.segments):
            yield from segment.find(hashed, time_us)

    def may_have(self, key: str, time_us: int) -> bool:
        """Whether something may lie under `key`. A pending segment may have everything."""
        return bool(self.pending) or next(self.find(key, time_us), None) is not None

    def loaded(self, segment: Segment) -> None:
        """Takes a pending segment in. They are loaded oldest first; what was added meanwhile is newer."""
        place, _ = self.pending.pop(0)
        assert segment.place == place
        older = sum(1 for other in self.segments if 0 <= other.place < place)
        self.segments.insert(older, segment)

    def mergeable(self, added: int) -> int:
        """How many of the last segments a new one of `added` entries should be merged with.

        Only such as are newer than all that is pending: what is loaded while they are merged comes before them.
        """
        total = added
        count = 0
        oldest = self.pending[-1][0] if self.pending else -1
        for segment in reversed(self.segments):
            if segment.place < oldest or len(segment) > 2 * total or total + len(segment) > SEGMENT_ENTRIES_MAX:
                break
            total += len(segment)
            count += 1
        return count

    def replace(self, count: int, segment: Segment) -> None:
        """Puts `segment` in the place of the last `count` ones."""
        del self.segments[len(self.segments) - count :]
        if len(segment):
            self.segments.append(segment)

    def expire(self, time_us: int) -> None:
        """Drops segments of which nothing counts any more."""
        self.segments = [segment for segment in self.segments if max(segment.expiries_s) * _SECOND_US > time_us]

    def places(self) -> list[tuple[int, int]]:
        """What a checkpoint names: place and entries of each segment, the oldest first."""
        return sorted([*self.pending, *((segment.place, len(segment)) for segment in self.segments)])
