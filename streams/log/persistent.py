"""Persistent collections: a change gives a new one that shares almost everything with the old, which stays as it was.

The state of an execution may have tens of thousands of steps, and every event makes a new state: copying a `dict` for each would
make the cost of an event grow with all that has happened before. Their order follows from what was done with them and never from
the hashes of texts, which differ from process to process.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, cast, overload

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")
T = TypeVar("T", bound=tuple[Any, ...])

#: Entries that are copied on each change of a map; at least as many as the square root of its size.
RECENT_MAX = 64
#: Entries of a chunk of a sorted set; a longer one is cut in two.
CHUNK_MAX = 128

_make: Any = object.__new__
_GONE: Any = object()
_MISSING: Any = object()


class PersistentMap(Mapping[K, V]):
    """A map of two layers: a large one that versions share, and the recent changes, which each version has for itself.

    When the recent changes outnumber the square root of the size they are merged into a new large layer, so a change costs
    O(√n) copied pointers at worst, and what a small `dict` costs where there are few entries.
    """

    __slots__ = ("_base", "_recent", "_size")

    def __init__(self, entries: Mapping[K, V] | Iterable[tuple[K, V]] = ()) -> None:
        self._base: dict[K, V] = {}
        self._recent: dict[K, V] = dict(entries)
        self._size = len(self._recent)

    def set(self, key: K, value: V) -> PersistentMap[K, V]:
        """With `key` set to `value`."""
        recent = self._recent
        if not self._base and len(recent) < RECENT_MAX:  # a small map is a dict
            new: PersistentMap[K, V] = _make(PersistentMap)
            new._base = self._base
            new._recent = after = {**recent, key: value}
            new._size = len(after)
            return new
        grown = recent[key] is _GONE if key in recent else key not in self._base
        return self._with({**recent, key: value}, self._size + grown)

    def remove(self, key: K) -> PersistentMap[K, V]:
        """Without `key`; the same map if it is not there."""
        if key not in self:
            return self
        recent = self._recent.copy()
        if key in self._base:
            recent[key] = _GONE
        else:
            del recent[key]
        return self._with(recent, self._size - 1)

    def _with(self, recent: dict[K, V], size: int) -> PersistentMap[K, V]:
        new: PersistentMap[K, V] = _make(PersistentMap)
        if len(recent) > RECENT_MAX and len(recent) * len(recent) > size:
            new._base, new._recent = _merged(self._base, recent), {}
        else:
            new._base, new._recent = self._base, recent
        new._size = size
        return new

    def __getitem__(self, key: K) -> V:
        value = self._recent.get(key, _MISSING)
        if value is _MISSING:
            return self._base[key]
        if value is _GONE:
            raise KeyError(key)
        return cast(V, value)

    @overload
    def get(self, key: K, /) -> V | None: ...

    @overload
    def get(self, key: K, default: V | D, /) -> V | D: ...

    def get(self, key: K, default: Any = None, /) -> Any:
        """As `dict.get`."""
        value = self._recent.get(key, _MISSING)
        if value is _MISSING:
            return self._base.get(key, default)
        return default if value is _GONE else value

    def __contains__(self, key: object) -> bool:
        value = self._recent.get(cast(K, key), _MISSING)
        return key in self._base if value is _MISSING else value is not _GONE

    def __iter__(self) -> Iterator[K]:
        return iter(self._merge())

    def __len__(self) -> int:
        return self._size

    def items(self) -> ItemsView[K, V]:
        """All entries, those set first before others."""
        return self._merge().items()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PersistentMap):
            return self._merge() == other._merge()
        return self._merge() == other if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PersistentMap({self._merge()!r})"

    def _merge(self) -> dict[K, V]:
        return _merged(self._base, self._recent) if self._base else self._recent


def _merged(base: dict[K, V], recent: dict[K, V]) -> dict[K, V]:
    merged = {**base, **recent}
    for key in [key for key, value in recent.items() if value is _GONE]:
        del merged[key]
    return merged


class SortedSet(Generic[T]):
    """A set of tuples in order: the least is at hand at once, a change costs O(√n) copied pointers at worst."""

    __slots__ = ("_chunks",)

    def __init__(self, entries: Iterable[T] = ()) -> None:
        ordered = sorted(entries)
        self._chunks: tuple[tuple[T, ...], ...] = tuple(
            tuple(ordered[at : at + CHUNK_MAX // 2]) for at in range(0, len(ordered), CHUNK_MAX // 2)
        )

    @property
    def first(self) -> T | None:
        """The least entry; None: there is none."""
        return self._chunks[0][0] if self._chunks else None

    def add(self, entry: T) -> SortedSet[T]:
        """With `entry`; the same set if it is there."""
        if not self._chunks:
            return self._with(((entry,),))
        at = 0 if len(self._chunks) == 1 else self._place(entry)
        chunk = self._chunks[at]
        place = bisect_left(chunk, entry)
        if place < len(chunk) and chunk[place] == entry:
            return self
        grown = (*chunk[:place], entry, *chunk[place:])
        if len(grown) <= CHUNK_MAX and len(self._chunks) == 1:
            return self._with((grown,))
        parts = (grown,) if len(grown) <= CHUNK_MAX else (grown[: CHUNK_MAX // 2], grown[CHUNK_MAX // 2 :])
        return self._with((*self._chunks[:at], *parts, *self._chunks[at + 1 :]))

    def remove(self, entry: T) -> SortedSet[T]:
        """Without `entry`; the same set if it is not there."""
        if not self._chunks:
            return self
        at = 0 if len(self._chunks) == 1 else self._place(entry)
        chunk = self._chunks[at]
        place = bisect_left(chunk, entry)
        if place == len(chunk) or chunk[place] != entry:
            return self
        rest = (*chunk[:place], *chunk[place + 1 :])
        if len(self._chunks) == 1:
            return self._with((rest,) if rest else ())
        return self._with((*self._chunks[:at], *((rest,) if rest else ()), *self._chunks[at + 1 :]))

    def below(self, bound: tuple[Any, ...]) -> SortedSet[T]:
        """Only the entries that are less than `bound`."""
        kept = [chunk for chunk in self._chunks if chunk[0] < bound]
        if kept:
            last = kept.pop()
            kept.append(last[: bisect_left(last, bound)])
        return self._with(tuple(kept))

    def __reversed__(self) -> Iterator[T]:
        for chunk in reversed(self._chunks):
            yield from reversed(chunk)

    def _place(self, entry: T) -> int:
        """Index of the chunk in which an entry stands or would stand."""
        return max(0, bisect_right(self._chunks, entry, key=lambda chunk: chunk[0]) - 1)

    def _with(self, chunks: tuple[tuple[T, ...], ...]) -> SortedSet[T]:
        new: SortedSet[T] = _make(SortedSet)
        new._chunks = chunks
        return new

    def __iter__(self) -> Iterator[T]:
        for chunk in self._chunks:
            yield from chunk

    def __len__(self) -> int:
        return sum(map(len, self._chunks))

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, SortedSet) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"SortedSet({list(self)!r})"
