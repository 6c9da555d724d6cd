"""A group whose outcomes are said as records arrive, and revised when one comes in between.

Every pending record is folded already, and its fold step can be undone. A record that comes last in order is one more step. One
that comes in between undoes the steps behind its place, and takes them again with it; the difference to what was said is said: new
findings, higher revisions, retractions. That costs as much as there are records behind it. To bound that, a record far behind
(more than `REWALK` records) is put off until so many are put off together that each costs at most `REWALK` steps, or until no
more come (`flush`), or until it settles. What was said of settled records needs no memory: it stands.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple

from streams.correlation.group import Base, Entry, place_of
from streams.correlation.rules import ActiveRule
from streams.correlation.seen import BEFORE_ALL, Arrival, Draft, Found, Place, Seen
from streams.records import Json

#: Steps that a record may cost which arrives out of order.
REWALK = 32
#: Settled records in front of the pending ones before the list is compacted.
_SLACK = 256


class _Said(NamedTuple):
    """The last that was said under a composite's id."""

    revision: int
    window_end_us: int
    found: Found | None  #: None: it was retracted


class _Outcome(NamedTuple):
    """What a record completed: the silence before it, and the composite; no id: it was kept silent."""

    silence: tuple[int | None, int]
    composite_id: str | None


class EagerGroup(Base):
    """See the module. `_pending[_first:]` is pending, `_outcomes` lies beside it."""

    __slots__ = ("_deferred", "_first", "_flushed_at", "_outcomes", "_said", "_said_sweep_at")

    def __init__(self, active: ActiveRule, key: str) -> None:
        super().__init__(active, key, journaled=True)
        self._first = 0
        self._outcomes: list[_Outcome | None] = []
        self._deferred: list[Entry] = []
        self._flushed_at = 0  # records put off when `flush` was called last
        self._said: dict[str, _Said] = {}
        self._said_sweep_at = _SLACK

    # --- records ---

    def add(self, seen: Seen, arrival: Arrival, watermark_us: int) -> list[Draft]:
        """See `Group.add`."""
        self._hold(seen, watermark_us)
        entry, pending = self._entry(seen, arrival), self._pending
        if not pending or pending[-1] < entry:
            pending.append(entry)
            found = self._step(entry)
            return [] if found is None else self._say({}, [(found, entry)])
        place = bisect_left(pending, entry, lo=self._first)
        if len(pending) - place <= REWALK:
            return self._rewalk(place, [entry])
        insort(self._deferred, entry)
        behind = len(pending) - bisect_left(pending, self._deferred[0], lo=self._first)
        return self._catch_up() if len(self._deferred) * REWALK >= behind else []

    def _step(self, entry: Entry) -> Found | None:
        found = self.fold.add(entry.seen)
        if found is None:
            self._outcomes.append(None)
            return None
        silence = self._silence.state()
        said = self._silence.said(found)
        self._outcomes.append(_Outcome(silence, None if said is None else self._id(said)))
        return said

    def _rewalk(self, place: int, added: Iterable[Entry], *, without: int | None = None) -> list[Draft]:
        """Takes the steps from `place` on again, with the entries that were added, less the one at index `without`."""
        undone: set[str] = set()
        for outcome in reversed(self._outcomes[place:]):
            self.fold.undo()
            if outcome is not None:
                self._silence.restore(outcome.silence)
                if outcome.composite_id is not None:
                    undone.add(outcome.composite_id)
        again = self._pending[place:]
        if without is not None:
            del again[without - place]
        again.extend(added)
        again.sort()
        del self._pending[place:]
        del self._outcomes[place:]
        findings = []
        for entry in again:
            self._pending.append(entry)
            found = self._step(entry)
            if found is not None:
                findings.append((found, entry))
        return self._say(dict.fromkeys(sorted(undone)), findings)

    def _say(self, undone: dict[str, None], findings: list[tuple[Found, Entry]]) -> list[Draft]:
        """The drafts that lead from what was said under the ids undone to the findings."""
        found_ids = [self._id(found) for found, _ in findings]
        drafts = []
        for composite_id in undone.keys() - set(found_ids):
            said = self._said[composite_id]
            if said.found is not None:
                drafts.append(self._draft_of(composite_id, said.found, BEFORE_ALL, retracted=True))
        drafts.sort(key=lambda draft: (draft.found.window_end_us, draft.composite_id))
        for composite_id, (found, entry) in zip(found_ids, findings, strict=True):
            before = self._said.get(composite_id)
            if before is None or before.found is None or not before.found.says(found):
                drafts.append(self._draft_of(composite_id, found, place_of(entry)))
        return drafts

    def _draft_of(self, composite_id: str, found: Found, place: Place, *, retracted: bool = False) -> Draft:
        before = self._said.get(composite_id)
        revision = 0 if before is None else before.revision + 1
        self._said[composite_id] = _Said(revision, found.window_end_us, None if retracted else found)
        return Draft(
            self._active.id, self._key, composite_id, found, revision, retracted, place, None if before is None else before.found,
        )  # fmt: skip

    def remove(self, seen: Seen) -> list[Draft]:
        """See `Group.remove`."""
        drafts = self._catch_up()
        index = self._find(seen)
        if index is None or index < self._first:
            return drafts
        self._ids.pop(seen.id, None)
        return drafts + self._rewalk(index, [], without=index)

    def replace(self, before: Seen, after: Seen) -> list[Draft]:
        """See `Group.replace`."""
        drafts = self._catch_up()
        index = self._find(before)
        if index is None or index < self._first:
            return drafts
        return drafts + self._rewalk(index, [self._entry(after, self._pending[index].arrival)], without=index)

    @property
    def deferred(self) -> bool:
        """See `Group.deferred`."""
        return bool(self._deferred)

    def flush(self) -> list[Draft]:
        """See `Group.flush`. As long as more is put off it goes on waiting: that is what bounds the cost."""
        count, self._flushed_at = self._flushed_at, len(self._deferred)
        return self._catch_up() if count == len(self._deferred) else []

    def _catch_up(self) -> list[Draft]:
        """Takes the steps of everything that was put off."""
        if not self._deferred:
            return []
        deferred, self._deferred = self._deferred, []
        return self._rewalk(bisect_left(self._pending, deferred[0], lo=self._first), deferred)

    # --- time ---

    def settle(self, watermark_us: int) -> list[Draft]:
        """See `Group.settle`."""
        self.settled_us = watermark_us
        pending, first = self._pending, self._first
        drafts: list[Draft] = []
        if self._deferred and self._deferred[0].time_us < watermark_us:
            drafts = self._catch_up()
        count = len(pending)
        while first < count and pending[first].time_us < watermark_us:
            self.fold.keep()
            outcome = self._outcomes[first]
            if outcome is not None and outcome.composite_id is not None:
                self._said.pop(outcome.composite_id, None)
            first += 1
        if first == count:
            if first:
                pending.clear()
                self._outcomes.clear()
            self._first = 0
            self.fold.forget(watermark_us)
        elif first > _SLACK and first > count // 2:
            del pending[:first]
            del self._outcomes[:first]
            self._first = 0
        else:
            self._first = first
        if len(self._said) >= self._said_sweep_at:
            self._said = {cid: said for cid, said in self._said.items() if said.window_end_us >= watermark_us}
            self._said_sweep_at = max(_SLACK, 2 * len(self._said))
        return drafts

    def due_us(self) -> int | None:
        """See `Group.due_us`. Nothing is said when a record settles: it is enough to come by when the whole group may be over."""
        return self._deferred[0].time_us + 1 if self._deferred else self._over_us()

    def empty(self, watermark_us: int) -> bool:
        """See `Group.empty`."""
        return self._first == len(self._pending) and self._silence.over(watermark_us) and self._over(watermark_us)

    # --- state ---

    def standing(self) -> tuple[tuple[Seen, ...], float]:
        """See `Group.standing`."""
        return self.fold.standing()

    @property
    def waiting(self) -> int:
        """See `Group.waiting`."""
        return len(self._deferred)

    def dump(self) -> Json:
        """See `Group.dump`."""
        del self._pending[: self._first]
        del self._outcomes[: self._first]
        self._first = 0
        for outcome in reversed(self._outcomes):
            self.fold.undo()
            if outcome is not None:
                self._silence.restore(outcome.silence)
        state = {
            **self._dump_base(), "fold": self.fold.dump(), "pending": [entry.dump() for entry in self._pending],
            "deferred": [entry.dump() for entry in self._deferred], "flushed_at": self._flushed_at,
            "said": [[cid, said.revision, said.window_end_us, said.found is None] for cid, said in self._said.items()],
        }  # fmt: skip
        self._outcomes.clear()
        for entry in self._pending:
            self._step(entry)
        return state

    def load(self, state: Json) -> None:
        """See `Group.load`."""
        self._load_base(state)
        self.fold.load(state["fold"])
        self._pending = self._loaded(state["pending"])
        self._deferred = self._loaded(state["deferred"])
        self._flushed_at = state["flushed_at"]
        findings = [found for entry in self._pending if (found := self._step(entry)) is not None]
        standing = {self._id(found): found for found in findings}
        self._said = {
            cid: _Said(revision, end_us, None if retracted else standing.get(cid)) for cid, revision, end_us, retracted in state["said"]
        }
