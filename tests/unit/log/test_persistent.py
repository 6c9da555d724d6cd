"""Persistent collections against the plain ones: every version stays what it was, whatever is done with its descendants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.log.persistent import RECENT_MAX, PersistentMap, SortedSet

KEYS = st.integers(0, 300)
CHANGES = st.lists(st.tuples(st.sampled_from(["set", "set", "set", "remove"]), KEYS, st.integers()), max_size=400)
ENTRIES = st.tuples(st.integers(0, 40), st.text("ab", max_size=2))


def large(count: int) -> PersistentMap[int, int]:
    """A map that has outgrown its layer of recent changes."""
    found: PersistentMap[int, int] = PersistentMap()
    for key in range(count):
        found = found.set(key, -key)
    return found


@given(st.sampled_from([0, 10, 200, 280]), CHANGES)
def test_a_map_is_a_dict_of_which_every_version_stays(start: int, changes: list[tuple[str, int, int]]) -> None:
    live = large(start)
    model = {key: -key for key in range(start)}
    versions = [(live, dict(model))]
    for what, key, value in changes:
        if what == "set":
            live = live.set(key, value)
            model[key] = value
        else:
            live = live.remove(key)
            model.pop(key, None)
        versions.append((live, dict(model)))
    for version, expected in versions[:: max(1, len(versions) // 20)]:
        assert dict(version.items()) == expected
        assert len(version) == len(expected)
        assert set(version) == set(expected)
        assert version == PersistentMap(expected)
        for key in range(0, 301, 7):
            assert (key in version) == (key in expected)
            assert version.get(key, "none") == expected.get(key, "none")


def test_entries_stand_in_the_order_in_which_they_were_first_set() -> None:
    keys = [key * 7919 % 1009 for key in range(500)]
    found: PersistentMap[str, int] = PersistentMap()
    for key in keys:
        found = found.set(str(key), key)
    assert [int(key) for key in found] == keys
    assert list(found.set(str(keys[3]), 0)) == list(found)


def test_a_change_copies_few_entries_of_a_large_map() -> None:
    found = large(10_000)
    copied = []
    for key in range(500):
        found = found.set(key, 1)
        copied.append(len(found._recent))
    assert max(copied) <= 101
    assert len(found._base) == 10_000
    assert len(large(RECENT_MAX)._base) == 0, "a small one is a dict"


def test_a_missing_key_is_an_error() -> None:
    found = large(300).remove(5)
    for key in (5, 999):
        with pytest.raises(KeyError, match=str(key)):
            found[key]
    assert found.remove(5) is found


@given(st.lists(st.tuples(st.sampled_from(["add", "add", "remove"]), ENTRIES), max_size=600))
def test_a_sorted_set_is_a_set_in_order(changes: list[tuple[str, tuple[int, str]]]) -> None:
    live: SortedSet[tuple[int, str]] = SortedSet()
    model: set[tuple[int, str]] = set()
    versions = []
    for what, entry in changes:
        live = live.add(entry) if what == "add" else live.remove(entry)
        (model.add if what == "add" else model.discard)(entry)
        assert live.first == min(model, default=None)
        versions.append((live, frozenset(model)))
    for version, expected in versions[::25]:
        assert list(version) == sorted(expected)
        assert len(version) == len(expected)
        assert version == SortedSet(expected)
        assert list(reversed(version)) == sorted(expected, reverse=True)
        assert list(version.below((20,))) == sorted(entry for entry in expected if entry[0] < 20)


def test_a_large_sorted_set_is_kept_in_chunks() -> None:
    entries = [(number * 7919 % 5003, "x") for number in range(3000)]
    live: SortedSet[tuple[int, str]] = SortedSet()
    for entry in entries:
        live = live.add(entry)
    assert list(live) == sorted(entries)
    assert max(map(len, live._chunks)) <= 128
    assert list(live.below((2500,))) == sorted(entry for entry in entries if entry[0] < 2500)
    for entry in entries[:2990]:
        live = live.remove(entry)
    assert list(live) == sorted(entries[2990:])
