"""What waits for a block is taken out as a plain list of records would be, however it came in."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from services.history.waiting import Waiting, size_of


@dataclass(frozen=True, slots=True)
class FakeRaw:
    offset: int
    value: bytes | None = b""
    key: bytes | None = None
    timestamp: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


def taken_plainly(
    records: list[FakeRaw], first: int, end: int, bytes_max: int | None, until_gap: bool
) -> tuple[list[FakeRaw], int | None, list[FakeRaw]]:
    """One record after the other: what is taken, where it stopped early, and what stays."""
    taken: list[FakeRaw] = []
    weight, following = 0, first
    for index, record in enumerate(records):
        if record.offset >= end:
            return taken, following if until_gap and taken else None, records[index:]
        if record.offset < first:
            continue
        heavy = bytes_max is not None and weight + size_of(record) > bytes_max
        if taken and (heavy or (until_gap and record.offset > following)):
            return taken, following if until_gap else record.offset, records[index:]
        taken.append(record)
        weight += size_of(record)
        following = record.offset + 1
    return taken, following if until_gap and taken else None, []


@given(
    st.lists(st.lists(st.tuples(st.sampled_from([1, 1, 1, 1, 2, 5]), st.integers(0, 900)), max_size=12), max_size=6),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 25), st.none() | st.integers(1, 12_000), st.booleans()), min_size=1, max_size=8),
)
def test_it_takes_what_a_plain_list_gives(pieces: list[list[tuple[int, int]]], takes: list[tuple[int, int, int | None, bool]]) -> None:
    waiting, plain, offset = Waiting(), list[FakeRaw](), -1
    for piece in pieces:
        records = []
        for step, size in piece:
            offset += step
            records.append(FakeRaw(offset, bytes(size)))
        waiting.add(records)
        plain += records
    first = 0
    for skipped, length, bytes_max, until_gap in takes:
        first += skipped
        expected, stopped, plain = taken_plainly(plain, first, first + length, bytes_max, until_gap)
        assert waiting.take(first, first + length, bytes_max, until_gap=until_gap) == (expected, stopped)
        assert (waiting.count, waiting.bytes) == (len(plain), sum(map(size_of, plain)))
        first = max([first, *(record.offset + 1 for record in expected)])
