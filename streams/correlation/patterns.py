"""Patterns of different records without an order: `temporal` (all occurred) and `absence` (one did not).

The state of `temporal` is immutable and shares its parts (linked nodes), so that an `add` is undone by taking the state before
it again.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from streams import limits
from streams.correlation.rules import Rule
from streams.correlation.seen import Found, Seen
from streams.records import Json

#: Records pushed before the stacks are looked through for what is over.
_TRIM = 1024


class _Stack(NamedTuple):
    """Records of one name, the latest on top. `number` is the place among the group's records."""

    number: int
    seen: Seen
    below: Any  #: the stack under it, None at the bottom


class Together:
    """`temporal`: every name occurred within `timespan`; it uses the latest record of each."""

    lasting = False

    __slots__ = ("_journal", "_names", "_number", "_reset", "_timespan_us", "_tops", "_trim_at", "dropped")

    def __init__(self, rule: Rule, *, journaled: bool) -> None:
        self._names = rule.names
        self._timespan_us = rule.timespan_us
        self._reset = rule.after_match == "reset"
        self._tops: tuple[_Stack | None, ...] = (None,) * len(rule.names)
        self._journal: deque[tuple[_Stack | None, ...]] | None = deque() if journaled else None
        self._number = 0
        self._trim_at = _TRIM
        self.dropped = 0

    def add(self, seen: Seen) -> Found | None:
        """See `Fold.add`."""
        if self._journal is not None:
            self._journal.append(self._tops)
        self._number += 1
        # Without `reset` only the latest record of a name ever matters.
        tops = [
            _Stack(self._number, seen, top if self._reset else None) if name in seen.names else top
            for name, top in zip(self._names, self._tops, strict=True)
        ]
        self._tops = tuple(tops)
        limit = seen.time_us - self._timespan_us
        if self._number >= self._trim_at:
            self._trim(limit)
        used: dict[int, Seen] = {}
        for top in self._tops:
            if top is None or top.seen.time_us <= limit:
                return None
            used[top.number] = top.seen
        records = tuple(used[number] for number in sorted(used))
        if self._reset:
            self._tops = tuple(_without(top, used) for top in self._tops)
        return Found(seen.id, records[0].time_us, seen.time_us, records, len(records), len(records))

    def undo(self) -> None:
        """See `Fold.undo`."""
        assert self._journal is not None
        self._tops = self._journal.pop()
        self._number -= 1

    def keep(self) -> None:
        """See `Fold.keep`."""
        assert self._journal is not None
        self._journal.popleft()

    def forget(self, before_us: int) -> None:
        """See `Fold.forget`."""
        limit = before_us - self._timespan_us
        self._tops = tuple(None if top is None or top.seen.time_us <= limit else top for top in self._tops)

    def _trim(self, limit: int) -> None:
        """Rebuilds the stacks without what is too old to matter."""
        kept = [_live(top, limit) for top in self._tops]
        most = max(1, limits.RULE_RECORDS_PER_GROUP_MAX // len(kept))
        self.dropped += sum(max(0, len(stack) - most) for stack in kept)
        self._tops = tuple(_stacked(stack[:most]) for stack in kept)
        self._trim_at = self._number + max(_TRIM, sum(min(len(stack), most) for stack in kept))

    deadline_us: int | None = None

    def close(self, until_us: int) -> list[Found]:
        """See `Fold.close`."""
        return []

    def standing(self) -> tuple[tuple[Seen, ...], float]:
        """See `Fold.standing`."""
        tops = {top.number: top.seen for top in self._tops if top is not None}
        return tuple(tops[number] for number in sorted(tops)), len(tops)

    def dump(self) -> Json:
        """See `Fold.dump`."""
        found: dict[int, tuple[Seen, list[int]]] = {}
        for index, top in enumerate(self._tops):
            while top is not None:
                found.setdefault(top.number, (top.seen, []))[1].append(index)
                top = top.below
        return {"records": [[found[number][0].dump(), found[number][1]] for number in sorted(found)], "room": self._trim_at - self._number}

    def load(self, state: Json) -> None:
        """See `Fold.load`."""
        tops: list[_Stack | None] = list(self._tops)
        for item, names in state["records"]:
            self._number += 1
            seen = Seen.load(item)
            for index in names:
                tops[index] = _Stack(self._number, seen, tops[index])
        self._tops = tuple(tops)
        self._trim_at = self._number + state["room"]


def _live(top: _Stack | None, limit: int) -> list[_Stack]:
    found = []
    while top is not None and top.seen.time_us > limit:
        found.append(top)
        top = top.below
    return found


def _stacked(nodes: list[_Stack]) -> _Stack | None:
    below = None
    for node in reversed(nodes):
        below = node._replace(below=below)
    return below


def _without(top: _Stack | None, used: dict[int, Seen]) -> _Stack | None:
    """The stack without the records used; only what lies above the deepest of them is made anew."""
    first = min(used)
    above = []
    while top is not None and top.number >= first:
        if top.number not in used:
            above.append(top)
        top = top.below
    for node in reversed(above):
        top = node._replace(below=top)
    return top


class Absence:
    """`absence`: an `a` that no `b` (or, alone, no further `a`) follows within `timespan`. Speaks at deadlines only."""

    lasting = False

    __slots__ = ("_answer", "_open", "_opening", "_timespan_us", "dropped")

    def __init__(self, rule: Rule) -> None:
        self._opening = rule.names[0]
        self._answer = rule.names[-1]
        self._timespan_us = rule.timespan_us
        self._open: deque[Seen] = deque()
        self.dropped = 0

    def add(self, seen: Seen) -> Found | None:
        """See `Fold.add`."""
        if self._answer in seen.names:
            self._open.clear()
        if self._opening in seen.names:
            self._open.append(seen)
            if len(self._open) > limits.RULE_RECORDS_PER_GROUP_MAX:
                self._open.popleft()
                self.dropped += 1
        return None

    def undo(self) -> None:
        """Never: deadlines are not revised."""
        raise AssertionError("absence has no journal")

    keep = undo

    @property
    def deadline_us(self) -> int | None:
        """See `Fold.deadline_us`."""
        return self._open[0].time_us + self._timespan_us if self._open else None

    def close(self, until_us: int) -> list[Found]:
        """See `Fold.close`."""
        found = []
        while self._open and (deadline_us := self._open[0].time_us + self._timespan_us) <= until_us:
            seen = self._open.popleft()
            found.append(Found(f"deadline/{seen.id}", seen.time_us, deadline_us, (seen,), 1, 1))
        return found

    def forget(self, before_us: int) -> None:
        """See `Fold.forget`: what is open is closed by its deadline."""

    def standing(self) -> tuple[tuple[Seen, ...], float]:
        """See `Fold.standing`."""
        return tuple(self._open), len(self._open)

    def dump(self) -> Json:
        """See `Fold.dump`."""
        return {"open": [seen.dump() for seen in self._open]}

    def load(self, state: Json) -> None:
        """See `Fold.load`."""
        self._open = deque(Seen.load(item) for item in state["open"])
