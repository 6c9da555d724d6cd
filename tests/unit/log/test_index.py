"""The index of what is not in memory: what was entered is found until it expires, however segments were merged, kept and loaded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.log import index as module
from streams.log.index import Entry, Index, Segment, merge, segment_of

SECOND = 1_000_000
KEYS = st.sampled_from([f"key-{number}" for number in range(12)])
ROUNDS = st.lists(st.lists(st.tuples(KEYS, st.integers(1, 50)), max_size=6), max_size=12)


def add(index: Index, entries: list[Entry], place: int, time_us: int = 0) -> None:
    """As the archive does it."""
    new = segment_of(entries)
    if len(new):
        count = index.mergeable(len(new))
        merged = merge([*index.segments[-count:], new], time_us) if count else new
        index.replace(count, Segment(merged.hashes, merged.offsets, merged.expiries_s, place))


@given(ROUNDS, st.integers(0, 60))
def test_the_newest_entry_that_counts_is_found_first(rounds: list[list[tuple[str, int]]], now_s: int) -> None:
    index, entered, offset = Index(), dict[str, list[tuple[int, int]]](), 0
    for place, entries in enumerate(rounds):
        made = []
        for key, expires_s in entries:
            offset += 1
            made.append(Entry(key, offset, expires_s * SECOND))
            entered.setdefault(key, []).append((offset, expires_s))
        add(index, made, place)
    for key, entries in entered.items():
        counting = [at for at, expires_s in reversed(entries) if expires_s > now_s]
        assert list(index.find(key, now_s * SECOND)) == counting
        assert index.may_have(key, now_s * SECOND) == bool(counting)
    assert not index.may_have("never", 0)


@given(ROUNDS)
def test_segments_come_back_as_they_were_written(rounds: list[list[tuple[str, int]]]) -> None:
    index, offset = Index(), 0
    for place, entries in enumerate(rounds):
        offset += 10
        add(index, [Entry(key, offset + number, expires_s * SECOND) for number, (key, expires_s) in enumerate(entries)], place)
    later = Index(pending=index.places())
    assert len(later) == len(index)
    assert not later.pending or later.may_have("anything", 0), "what is not loaded may have everything"
    raw = {segment.place: segment.to_bytes() for segment in index.segments}
    while later.pending:
        place, entries_ = later.pending[0]
        segment = Segment.from_bytes(raw[place], place)
        assert len(segment) == entries_
        later.loaded(segment)
    for key in {key for entries in rounds for key, _ in entries}:
        assert list(later.find(key, 0)) == list(index.find(key, 0))


def test_what_is_merged_while_older_segments_are_loaded_hides_and_drops_none_of_them() -> None:
    # given two segments that a checkpoint names, of which the newer one tells where the key lies now
    old, new = segment_of([Entry("key", 1, SECOND)]), segment_of([Entry("key", 2, SECOND)])
    index = Index(pending=[(10, 1), (11, 1)])
    index.loaded(Segment(old.hashes, old.offsets, old.expiries_s, 10))
    # when a checkpoint adds a segment before the second one is loaded
    count = index.mergeable(1)
    merged = merge([*index.segments[len(index.segments) - count :], segment_of([Entry("other", 3, SECOND)])], 0)
    index.loaded(Segment(new.hashes, new.offsets, new.expiries_s, 11))
    index.replace(count, Segment(merged.hashes, merged.offsets, merged.expiries_s, 12))
    # then all are there, the newest first
    assert list(index.find("key", 0)) == [2, 1]
    assert list(index.find("other", 0)) == [3]
    assert index.places() == [(10, 1), (11, 1), (12, 1)]


def test_there_are_few_segments_and_each_entry_is_merged_a_few_times() -> None:
    index, written = Index(), 0
    for place in range(512):
        new = [Entry(f"{place}-{number}", number, 10 * SECOND) for number in range(4)]
        count = index.mergeable(len(new))
        written += len(new) + sum(map(len, index.segments[len(index.segments) - count :]))
        add(index, new, place)
    assert len(index) == 2048
    assert len(index.segments) <= 12
    assert written <= 2048 * 12


def test_a_segment_does_not_grow_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEGMENT_ENTRIES_MAX", 10)
    index = Index()
    for place in range(20):
        add(index, [Entry(f"{place}-{number}", place, SECOND) for number in range(3)], place)
    assert max(map(len, index.segments)) <= 10


def test_what_expired_goes() -> None:
    index = Index()
    add(index, [Entry("a", 1, 1 * SECOND)], 0)
    add(index, [Entry(f"b{number}", number, 9 * SECOND) for number in range(5)], 1, time_us=2 * SECOND)
    assert len(index) == 5
    index.expire(10 * SECOND)
    assert index.segments == []


def test_half_a_segment_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot have 21 bytes"):
        Segment.from_bytes(b"x" * 21, 0)
