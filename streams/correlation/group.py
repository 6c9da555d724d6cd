"""One group of one rule: puts records into their order, and says what is found.

Theory of operation. The watermark splits the records in two: those before it are *settled* (nothing can come between them
any more), those from it on are *pending*. There are two kinds of groups.

A `SettledGroup` folds a record when it settles, and says once what is found. That is the whole of `output: final`, and of
everything that is found at instants (a window that closes, a deadline): an instant is only reached by the watermark. Where only the
close of a window can tell anything, settled records wait for it, as long as they are few, and are folded together.

An `EagerGroup` (`streams.correlation.eager`) folds a record when it arrives, and revises what it said when one comes in between.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

from streams.correlation.folds import Fold, Silence, new_fold
from streams.correlation.rules import ActiveRule
from streams.correlation.seen import BEFORE_ALL, Arrival, Draft, Found, Place, Seen
from streams.correlation.windows import Tumbling, Window
from streams.records import Json, derived_id

#: Ids remembered before those that are over are looked for.
_SWEEP = 64
#: Records that wait for the close of their window before the settled ones among them are folded.
_PATIENCE = 64


class Entry(NamedTuple):
    """A pending record. Entries sort in the order of records: by time, then by tie, which is never the same twice."""

    time_us: int
    tie: Any  #: the arrival (eager) or the id (final); where composites are read, with what orders them behind their record
    arrival: Arrival
    seen: Seen

    def dump(self) -> Json:
        """As JSON, for checkpoints."""
        return [self.arrival, self.seen.dump()]


_new_entry = tuple.__new__
#: The time of an entry.
_time_of = itemgetter(0)


def place_of(entry: Entry) -> Place:
    """The arrival and id of the source record that this is, or that fired this."""
    after = entry.seen.after
    return (entry.arrival, entry.seen.id) if after is None else after[:2]


class Base:
    """What both kinds share."""

    __slots__ = (
        "_active", "_chained", "_eager", "_ids", "_kept_us", "_key", "_last_us", "_pending", "_silence", "_sweep_at", "fold",
        "scheduled_us", "settled_us",
    )  # fmt: skip

    def __init__(self, active: ActiveRule, key: str, *, journaled: bool) -> None:
        rule = active.rule
        self._active = active
        self._key = key
        self._eager = rule.output == "eager"
        self._chained = bool(rule.upstream)
        self._kept_us = rule.kept_us
        self.fold = new_fold(rule, journaled=journaled)
        self._silence = Silence(rule.suppress_us)
        self._pending: list[Entry] = []
        self._ids: dict[str, int] = {}  # id → time, of records that are held: their time + timespan is not over
        self._sweep_at = _SWEEP
        self._last_us: int | None = None  # greatest time of a record
        self.settled_us = -(2**62)  #: the watermark of the last `settle`
        self.scheduled_us: int | None = None  #: when the engine will settle it next

    def holds(self, record_id: str, watermark_us: int) -> bool:
        """Whether a record of this id is held (until its time + timespan is over): a second one is a duplicate."""
        time_us = self._ids.get(record_id)
        return time_us is not None and time_us + self._kept_us > watermark_us

    def _hold(self, seen: Seen, watermark_us: int) -> None:
        ids, time_us = self._ids, seen.time_us
        ids[seen.id] = time_us
        if self._last_us is None or time_us > self._last_us:
            self._last_us = time_us
        if len(ids) >= self._sweep_at:
            self._sweep(watermark_us)

    def _sweep(self, watermark_us: int) -> None:
        limit = watermark_us - self._kept_us
        self._ids = {record_id: at for record_id, at in self._ids.items() if at > limit}
        self._sweep_at = max(_SWEEP, 2 * len(self._ids))

    def _entry(self, seen: Seen, arrival: Arrival) -> Entry:
        tie: Any
        if not self._chained:
            tie = arrival if self._eager else seen.id
        elif seen.after is None:
            tie = (arrival if self._eager else seen.id, 0, "")
        else:
            tie = (seen.after[0] if self._eager else seen.after[1], seen.after[2], seen.id)
        # Made for every record: without the detour over a constructor in Python.
        return _new_entry(Entry, (seen.time_us, tie, arrival, seen))

    def _find(self, seen: Seen) -> int | None:
        """Where a record lies among the pending ones."""
        index = bisect_left(self._pending, seen.time_us, key=lambda entry: entry.time_us)
        while index < len(self._pending) and self._pending[index].time_us == seen.time_us:
            if self._pending[index].seen.id == seen.id:
                return index
            index += 1
        return None

    def _over(self, watermark_us: int) -> bool:
        return not self.fold.lasting and (self._last_us is None or self._last_us + self._kept_us <= watermark_us)

    def _over_us(self) -> int | None:
        """The watermark at which the group may be over; None: only another record can tell."""
        ends = [] if self.fold.lasting or self._last_us is None else [self._last_us + self._kept_us]
        if self._silence.until_us is not None:
            ends.append(self._silence.until_us)
        return max(ends, default=None) if not self.fold.lasting else None

    def _draft(self, found: Found, place: Place) -> Draft:
        return Draft(self._active.id, self._key, self._id(found), found, place=place)

    def _id(self, found: Found) -> str:
        return derived_id("composite", self._active.id, self._active.version, self._key, found.firing)

    @property
    def silence(self) -> tuple[int | None, int]:
        """Until when matches are kept silent, and how many were."""
        return self._silence.state()

    def _dump_base(self) -> dict[str, Any]:
        return {"ids": self._ids, "sweep_at": self._sweep_at, "last_us": self._last_us, "silence": list(self._silence.state())}

    def _load_base(self, state: Json) -> None:
        self._ids, self._sweep_at, self._last_us = dict(state["ids"]), state["sweep_at"], state["last_us"]
        until_us, suppressed = state["silence"]
        self._silence.restore((until_us, suppressed))

    def _loaded(self, items: Json) -> list[Entry]:
        return [self._entry(Seen.load(item), tuple(arrival)) for arrival, item in items]


class Group(Protocol):
    """What the engine sees of a group."""

    scheduled_us: int | None
    settled_us: int

    @property
    def fold(self) -> Fold:
        """Its fold."""

    def holds(self, record_id: str, watermark_us: int) -> bool:
        """See `Base.holds`."""

    def add(self, seen: Seen, arrival: Arrival, watermark_us: int) -> list[Draft]:
        """A record that is neither late nor a duplicate, after `settle` with this watermark."""

    def remove(self, seen: Seen) -> list[Draft]:
        """A pending record (a composite that was revised) is gone; nothing, if it is not there."""

    def replace(self, before: Seen, after: Seen) -> list[Draft]:
        """A pending record (a composite that was revised) says something else."""

    def settle(self, watermark_us: int) -> list[Draft]:
        """The watermark has come this far."""

    def flush(self) -> list[Draft]:
        """What was put off is said, unless more of it keeps coming (`streams.correlation.eager`)."""

    @property
    def deferred(self) -> bool:
        """Whether something was put off."""

    def due_us(self) -> int | None:
        """The watermark at which `settle` has something to say or much to do, or the group can be forgotten; None: there is none."""

    def empty(self, watermark_us: int) -> bool:
        """Whether forgetting the group would change nothing."""

    def standing(self) -> tuple[tuple[Seen, ...], float]:
        """See `Fold.standing`, of what is folded."""

    @property
    def silence(self) -> tuple[int | None, int]:
        """See `Base.silence`."""

    @property
    def waiting(self) -> int:
        """Records that are folded later."""

    def dump(self) -> Json:
        """As JSON, for checkpoints. Findings are not in it: they follow from the records."""

    def load(self, state: Json) -> None:
        """Takes over what `dump` gave, into a new group."""


class SettledGroup(Base):
    """See the module."""

    __slots__ = ("_window",)

    deferred = False

    def __init__(self, active: ActiveRule, key: str) -> None:
        super().__init__(active, key, journaled=False)
        # Of a rule that reads no composites, which may be revised as long as they are pending.
        waits = active.rule.timed and not self._chained and isinstance(self.fold, Window)
        self._window = self.fold if waits and isinstance(self.fold, Window) else None

    def add(self, seen: Seen, arrival: Arrival, watermark_us: int) -> list[Draft]:
        """See `Group.add`."""
        self.put(seen, arrival, watermark_us)
        return []

    def put(self, seen: Seen, arrival: Arrival, watermark_us: int) -> bool:
        """As `add`; whether it may be due earlier now than before. Made for every match: with everything in one place."""
        time_us, record_id, ids, pending = seen[0], seen[1], self._ids, self._pending
        ids[record_id] = time_us
        if self._last_us is None or time_us > self._last_us:
            self._last_us = time_us
        if len(ids) >= self._sweep_at:
            self._sweep(watermark_us)
        if self._chained:
            entry = self._entry(seen, arrival)
        else:
            entry = _new_entry(Entry, (time_us, arrival if self._eager else record_id, arrival, seen))
        if not pending:
            pending.append(entry)
            return True
        if pending[-1] < entry:
            pending.append(entry)
        else:
            insort(pending, entry)
        return pending[0] is entry or (len(pending) == _PATIENCE + 1 and self._window is not None)

    def remove(self, seen: Seen) -> list[Draft]:
        """See `Group.remove`."""
        index = self._find(seen)
        if index is not None:
            del self._pending[index]
            self._ids.pop(seen.id, None)
        return []

    def replace(self, before: Seen, after: Seen) -> list[Draft]:
        """See `Group.replace`."""
        index = self._find(before)
        if index is not None:
            self._pending[index] = self._entry(after, self._pending[index].arrival)
        return []

    def settle(self, watermark_us: int) -> list[Draft]:
        """See `Group.settle`."""
        self.settled_us = watermark_us
        drafts, pending = list[Draft](), self._pending
        if pending and pending[0].time_us < watermark_us:
            count = bisect_left(pending, watermark_us, key=_time_of)
            if isinstance(self._window, Tumbling):
                self._fold_windows(self._window, count, drafts)
            else:
                self._fold_each(count, drafts)
            del pending[:count]
        self._close(watermark_us, drafts)
        self.fold.forget(watermark_us)
        return drafts

    def _fold_each(self, count: int, drafts: list[Draft]) -> None:
        fold = self.fold
        for entry in self._pending[:count]:
            self._close(entry.time_us, drafts)
            found = fold.add(entry.seen)
            if found is not None and (said := self._silence.said(found)) is not None:
                drafts.append(self._draft(said, place_of(entry)))

    def _fold_windows(self, window: Tumbling, count: int, drafts: list[Draft]) -> None:
        """As `_fold_each`, where nothing is found at a record and a window's end does not depend on its records."""
        pending, first = self._pending, 0
        while first < count:
            self._close(pending[first].time_us, drafts)
            end = bisect_left(pending, window.end_us(pending[first].time_us), first, count, key=_time_of)
            window.extend([entry.seen for entry in pending[first:end]])
            first = end

    def catch_up(self, watermark_us: int) -> None:
        """Folds what is settled, where that waits for the close of its window: for those who look at what was seen."""
        due_us = self.due_us()
        if self._window is not None and watermark_us > self.settled_us and due_us is not None and due_us > watermark_us:
            self.settle(watermark_us)

    def _close(self, until_us: int, drafts: list[Draft]) -> None:
        deadline_us = self.fold.deadline_us
        if deadline_us is not None and deadline_us <= until_us:
            for found in self.fold.close(until_us):
                if (said := self._silence.said(found)) is not None:
                    drafts.append(self._draft(said, BEFORE_ALL))

    def flush(self) -> list[Draft]:
        """See `Group.flush`."""
        return []

    def due_us(self) -> int | None:
        """See `Group.due_us`."""
        if self._window is not None and 0 < len(self._pending) <= _PATIENCE:
            return self._window.end_us(self._pending[0].time_us)
        pending_us = self._pending[0].time_us + 1 if self._pending else None
        deadline_us = self.fold.deadline_us
        if pending_us is None:
            return self._over_us() if deadline_us is None else deadline_us
        return pending_us if deadline_us is None else min(pending_us, deadline_us)

    def empty(self, watermark_us: int) -> bool:
        """See `Group.empty`."""
        return not self._pending and self._silence.over(watermark_us) and self._over(watermark_us)

    def standing(self) -> tuple[tuple[Seen, ...], float]:
        """See `Group.standing`."""
        return self.fold.standing()

    @property
    def waiting(self) -> int:
        """See `Group.waiting`."""
        return len(self._pending)

    def dump(self) -> Json:
        """See `Group.dump`."""
        return {**self._dump_base(), "fold": self.fold.dump(), "pending": [entry.dump() for entry in self._pending]}

    def load(self, state: Json) -> None:
        """See `Group.load`."""
        self._load_base(state)
        self.fold.load(state["fold"])
        self._pending = self._loaded(state["pending"])
