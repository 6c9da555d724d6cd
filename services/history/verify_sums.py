"""Sums by which topics and tables are compared: per partition and bucket of offsets, how many rows and the sum of their digests. Pure.

A sum does not depend on the order in which rows come, and two sums of parts can be added: so both sides are walked in the order
that is cheapest for them, once, and what is kept is a few numbers per bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

#: Offsets of one bucket. Where two sums differ, this many offsets are looked at one by one.
BUCKET_OFFSETS = 10_000
_MASK = 2**64 - 1


@dataclass(slots=True)
class Sum:
    """Of some rows."""

    count: int = 0
    digest: int = 0  #: sum of the rows' digests modulo 2⁶⁴

    def add(self, count: int, digest: int) -> None:
        """More rows."""
        self.count += count
        self.digest = (self.digest + digest) & _MASK


@dataclass(slots=True)
class Sums:
    """Sums of one partition by (bucket, table)."""

    by_bucket: dict[tuple[int, str], Sum] = field(default_factory=dict)

    def add(self, bucket: int, table: str, count: int, digest: int) -> None:
        """More rows of a table in a bucket."""
        if count:
            self.by_bucket.setdefault((bucket, table), Sum()).add(count, digest)

    def together(self) -> dict[int, Sum]:
        """By bucket, over all tables."""
        found: dict[int, Sum] = {}
        for (bucket, _), one in self.by_bucket.items():
            found.setdefault(bucket, Sum()).add(one.count, one.digest)
        return found

    def rows(self, *tables: str) -> int:
        """How many rows of some tables (none: of all)."""
        return sum(one.count for (_, table), one in self.by_bucket.items() if not tables or table in tables)


def differing(left: Sums, right: Sums) -> list[int]:
    """The buckets in which the sums of any table differ, ascending."""
    keys = left.by_bucket.keys() | right.by_bucket.keys()
    return sorted({key[0] for key in keys if left.by_bucket.get(key) != right.by_bucket.get(key)})


def differing_offsets(found: Mapping[int, Sum], expected: Mapping[int, Sum]) -> list[int]:
    """The buckets in which not exactly the expected offsets are, each once; ascending."""
    return sorted(bucket for bucket in found.keys() | expected.keys() if found.get(bucket) != expected.get(bucket))


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Offsets [first, end)."""

    first: int
    end: int

    @property
    def offsets(self) -> int:
        """How many."""
        return max(0, self.end - self.first)

    def within(self, other: Range) -> Range:
        """What both have; possibly empty."""
        return Range(first=max(self.first, other.first), end=max(max(self.first, other.first), min(self.end, other.end)))


def bucket_of(offset: int) -> int:
    """The bucket of an offset."""
    return offset // BUCKET_OFFSETS


def range_of(bucket: int) -> Range:
    """The offsets of a bucket."""
    return Range(first=bucket * BUCKET_OFFSETS, end=(bucket + 1) * BUCKET_OFFSETS)


def ranges(offsets: Iterable[int]) -> Iterator[Range]:
    """Offsets (ascending, each once) as ranges of neighbours."""
    first = end = None
    for offset in offsets:
        if first is None or end is None:
            first, end = offset, offset + 1
        elif offset == end:
            end += 1
        else:
            yield Range(first=first, end=end)
            first, end = offset, offset + 1
    if first is not None and end is not None:
        yield Range(first=first, end=end)
