"""`temporal_ordered`: records in a sequence.

The state is immutable and shares its parts (linked nodes), so that an `add` is undone by taking the state before it again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Any, NamedTuple

from streams import limits
from streams.correlation.rules import Rule
from streams.correlation.seen import Found, Seen
from streams.records import Json


class Chain(NamedTuple):
    """A begun sequence: its latest record, and the chain before it. Always the one with the latest possible begin."""

    number: int  #: of the latest record among the group's records
    seen: Seen
    before: Any  #: the chain of the steps before; None: this is the first
    begin_us: int  #: time of its first record

    def records(self) -> list[tuple[int, Seen]]:
        """Its records with their numbers, in order."""
        found: list[tuple[int, Seen]] = []
        chain: Chain | None = self
        while chain is not None:
            found.append((chain.number, chain.seen))
            chain = chain.before
        return found[::-1]


class _Entry(NamedTuple):
    """A record that may still be used, and the chains as they were before it."""

    number: int
    seen: Seen
    before: tuple[Chain | None, ...]


class _Undo(NamedTuple):
    """What undoes one `add`."""

    chains: tuple[Chain | None, ...]
    entries: list[_Entry] | None = None  #: the entries that it replaced, from the first on that differs
    all_entries: bool = False  #: whether those are all


class Ordered:
    """`temporal_ordered`. Chain i is the begun sequence of i + 1 steps with the latest begin, and with it the latest records.

    A record extends chains, the longest first, so that it stands for one step only; a barred record ends the chain that waits in
    its gap. No chain needs another look at older records, until a match with `reset` takes records away: then the records
    from its first on are walked again without them.
    """

    lasting = False

    __slots__ = ("_chains", "_entries", "_journal", "_number", "_reset", "_rule", "_timespan_us", "_watched", "dropped")

    def __init__(self, rule: Rule, *, journaled: bool) -> None:
        self._rule = rule
        self._timespan_us = rule.timespan_us
        self._reset = rule.after_match == "reset"
        self._chains: tuple[Chain | None, ...] = (None,) * len(rule.steps)  # the last one is never kept: it is a match
        self._entries: list[_Entry] = []  # with `reset` only
        self._watched: dict[int, Chain] = {}  # number of the first record → a match that waits for its deadline
        self._journal: deque[_Undo] | None = deque() if journaled else None
        self._number = 0
        self.dropped = 0

    # --- records ---

    def add(self, seen: Seen) -> Found | None:
        """See `Fold.add`."""
        self._number += 1
        undo = _Undo(self._chains)
        if self._rule.until is not None and self._rule.until in seen.names:
            undo = _Undo(self._chains, self._entries, True)
            self._chains, self._entries = (None,) * len(self._chains), []
            self._watched.clear()
        if not self._rule.barred_last.isdisjoint(seen.names):
            self._watched.clear()
        before = self._chains
        self._chains, match = self._walked(before, self._number, seen)
        if self._reset:
            self._entries.append(_Entry(self._number, seen, before))
        found = None
        if match is not None and self._rule.barred_last:
            first, _ = match.records()[0]
            self._watched[first] = match
        elif match is not None:
            found = _found(seen.id, match, seen.time_us)
            if self._reset:
                replaced = self._use_up(match)
                undo = undo if undo.all_entries else undo._replace(entries=replaced)
        if self._journal is None:
            self._tidy(seen.time_us)
        else:
            self._journal.append(undo)
        return found

    def _walked(self, chains: tuple[Chain | None, ...], number: int, seen: Seen) -> tuple[tuple[Chain | None, ...], Chain | None]:
        """The chains after a record, and the match that it completes."""
        steps, names = self._rule.steps, seen.names
        last = len(steps) - 1
        limit = seen.time_us - self._timespan_us
        after = list(chains)
        match = None
        for index in range(last, -1, -1):
            step = steps[index]
            if step.name in names:
                extended = chains[index - 1] if index else None
                if index == 0 or (extended is not None and extended.begin_us > limit):
                    chain = Chain(number, seen, extended, extended.begin_us if extended is not None else seen.time_us)
                    if index == last:
                        match = chain
                    else:
                        after[index] = chain
                    continue
            if index < last and after[index] is not None and not steps[index + 1].barred.isdisjoint(names):
                after[index] = None
        return tuple(after), match

    def _use_up(self, match: Chain) -> list[_Entry]:
        """Takes the match's records away and walks the rest from the first of them on; what lay there before."""
        used = {number for number, _ in match.records()}
        first = bisect_left(self._entries, min(used), key=lambda entry: entry.number)
        replaced = self._entries[first:]
        # The first one may be gone (limits): then the chains before it are not known, and nothing is begun.
        known = bool(replaced) and replaced[0].number == min(used)
        chains = replaced[0].before if known else (None,) * len(self._chains)
        del self._entries[first:]
        self._watched = {begin: each for begin, each in self._watched.items() if used.isdisjoint(dict(each.records()))}
        for entry in replaced:
            if entry.number not in used:
                self._entries.append(entry._replace(before=chains))
                chains, _ = self._walked(chains, entry.number, entry.seen)
        self._chains = chains
        return replaced

    def undo(self) -> None:
        """See `Fold.undo`."""
        assert self._journal is not None
        undo = self._journal.pop()
        self._number -= 1
        self._chains = undo.chains
        if undo.all_entries:
            assert undo.entries is not None
            self._entries = undo.entries
        elif undo.entries is not None:
            first = bisect_left(self._entries, undo.entries[0].number, key=lambda entry: entry.number)
            self._entries[first:] = undo.entries[:-1]
        elif self._reset:
            self._entries.pop()

    def keep(self) -> None:
        """See `Fold.keep`."""
        assert self._journal is not None
        self._journal.popleft()
        kept = len(self._entries) - len(self._journal)
        if kept > 0:
            self._tidy(self._entries[kept - 1].seen.time_us)

    def _tidy(self, time_us: int) -> None:
        """Lets go of entries that are too old, or too many, for a match at `time_us` or later."""
        entries = self._entries
        kept = len(entries) - len(self._journal or ())
        if kept < 64 or (kept & 63):
            return  # not worth the while at every record
        old = bisect_left(entries, time_us - self._timespan_us + 1, hi=kept, key=lambda entry: entry.seen.time_us)
        many = max(0, kept - limits.RULE_RECORDS_PER_GROUP_MAX)
        self.dropped += max(0, many - old)
        del entries[: max(old, many)]

    def forget(self, before_us: int) -> None:
        """See `Fold.forget`."""
        limit = before_us - self._timespan_us
        self._chains = tuple(None if chain is None or chain.begin_us <= limit else chain for chain in self._chains)
        del self._entries[: bisect_left(self._entries, limit + 1, key=lambda entry: entry.seen.time_us)]

    # --- time ---

    @property
    def deadline_us(self) -> int | None:
        """See `Fold.deadline_us`."""
        for chain in self._watched.values():  # the first one begun comes first
            return chain.begin_us + self._timespan_us
        return None

    def close(self, until_us: int) -> list[Found]:
        """See `Fold.close`."""
        found = []
        while (deadline_us := self.deadline_us) is not None and deadline_us <= until_us:
            number, match = next(iter(self._watched.items()))
            del self._watched[number]
            found.append(_found(f"deadline/{match.records()[0][1].id}", match, deadline_us))
            if self._reset:
                self._use_up(match)
        return found

    # --- state ---

    def standing(self) -> tuple[tuple[Seen, ...], float]:
        """See `Fold.standing`: of the sequences begun the one that has come furthest."""
        watched = [*self._watched.values()][-1:]
        begun = [chain for chain in self._chains if chain is not None][-1:]
        records = tuple(seen for chain in (watched or begun) for _, seen in chain.records())
        return records, len(records)

    def dump(self) -> Json:
        """See `Fold.dump`. Every record once; chains are lists of their numbers."""
        seen: dict[int, Seen] = {entry.number: entry.seen for entry in self._entries}
        lists = [self._chains, *(entry.before for entry in self._entries), tuple(self._watched.values())]
        for chain in (chain for chains in lists for chain in chains if chain is not None):
            seen.update(chain.records())

        def numbers(chains: tuple[Chain | None, ...]) -> Json:
            return [None if chain is None else [number for number, _ in chain.records()] for chain in chains]

        return {
            "seen": [[number, seen[number].dump()] for number in sorted(seen)],
            "chains": numbers(self._chains),
            "entries": [[entry.number, numbers(entry.before)] for entry in self._entries],
            "watched": numbers(tuple(self._watched.values())),
            "number": self._number,
        }

    def load(self, state: Json) -> None:
        """See `Fold.load`."""
        seen = {number: Seen.load(item) for number, item in state["seen"]}

        def chain_of(numbers: list[int] | None) -> Chain | None:
            chain: Chain | None = None
            for number in numbers or ():
                chain = Chain(number, seen[number], chain, chain.begin_us if chain is not None else seen[number].time_us)
            return chain

        self._number = state["number"]
        self._chains = tuple(chain_of(numbers) for numbers in state["chains"])
        self._entries = [_Entry(number, seen[number], tuple(map(chain_of, before))) for number, before in state["entries"]]
        for numbers in state["watched"]:
            chain = chain_of(numbers)
            assert chain is not None
            self._watched[numbers[0]] = chain


def _found(firing: str, match: Chain, end_us: int) -> Found:
    records = tuple(seen for _, seen in match.records())
    return Found(firing, match.begin_us, end_us, records, len(records), len(records))
