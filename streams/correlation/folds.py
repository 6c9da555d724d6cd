"""One fold per type of correlation and window: records go in, in their order, findings come out.

A fold is mutable and cheap to step; `copy`, `dump` and `load` serve revisions and checkpoints. It never sees late records,
duplicates or the order of arrival: `streams.correlation.group` feeds it. To add a type: implement `Fold`, name it in `new_fold`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Protocol

from streams import limits
from streams.correlation.rules import Rule
from streams.correlation.seen import SAMPLES_MAX, Found, Seen
from streams.records import Json


class Fold(Protocol):
    """The records of one group, folded in their order."""

    def add(self, seen: Seen) -> Found | None:
        """The next record; what it completes."""

    def forget(self, before_us: int) -> None:
        """No record before this time will come any more: what can no longer matter is dropped."""

    def holds(self, record_id: str) -> bool:
        """Whether a record of this id is kept."""

    @property
    def last_us(self) -> int | None:
        """Time of the newest record kept; None: there is none, it is as it was at the beginning."""

    def copy(self) -> Fold:
        """One that goes on independently."""

    def dump(self) -> Json:
        """As JSON, for checkpoints."""

    def load(self, state: Json) -> None:
        """Takes over what `dump` gave."""


class SlidingCount:
    """`event_count` in sliding windows: the number of records in (t − timespan, t] at the time t of each record."""

    __slots__ = ("_condition", "_ids", "_older", "_records", "_reset", "_timespan_us")

    def __init__(self, rule: Rule) -> None:
        self._condition = rule.condition
        self._timespan_us = rule.timespan_us
        self._reset = rule.after_match == "reset"
        self._older: deque[int] = deque()  # times of the records beyond the limit, which count but are no longer known by id
        self._records: deque[Seen] = deque()
        self._ids: set[str] = set()

    def add(self, seen: Seen) -> Found | None:
        """See `Fold.add`."""
        self.forget(seen.time_us)
        records = self._records
        records.append(seen)
        self._ids.add(seen.id)
        if len(records) > SAMPLES_MAX:
            records[-SAMPLES_MAX - 1] = records[-SAMPLES_MAX - 1]._replace(data="{}")
        if len(records) > limits.RULE_RECORDS_PER_GROUP_MAX:
            oldest = records.popleft()
            self._ids.discard(oldest.id)
            self._older.append(oldest.time_us)
        count = len(self._older) + len(records)
        if not self._condition.holds(count):
            return None
        start = self._older[0] if self._older else records[0].time_us
        found = Found(seen.id, start, seen.time_us, tuple(records), count, count)
        if self._reset:
            self._older.clear()
            records.clear()
            self._ids.clear()
        return found

    def forget(self, before_us: int) -> None:
        """See `Fold.forget`."""
        start = before_us - self._timespan_us
        older, records = self._older, self._records
        while older and older[0] <= start:
            older.popleft()
        while records and records[0].time_us <= start:
            self._ids.discard(records.popleft().id)

    def holds(self, record_id: str) -> bool:
        """See `Fold.holds`."""
        return record_id in self._ids

    @property
    def last_us(self) -> int | None:
        """See `Fold.last_us`."""
        return self._records[-1].time_us if self._records else None

    def copy(self) -> SlidingCount:
        """See `Fold.copy`."""
        twin = SlidingCount.__new__(SlidingCount)
        twin._condition, twin._timespan_us, twin._reset = self._condition, self._timespan_us, self._reset
        twin._older, twin._records, twin._ids = self._older.copy(), self._records.copy(), self._ids.copy()
        return twin

    def dump(self) -> Json:
        """See `Fold.dump`."""
        return {"older": list(self._older), "records": [seen.dump() for seen in self._records]}

    def load(self, state: Json) -> None:
        """See `Fold.load`."""
        self._older = deque(state["older"])
        self._records = deque(Seen.load(item) for item in state["records"])
        self._ids = {seen.id for seen in self._records}


def new_fold(rule: Rule) -> Fold:
    """The fold of the rule's type and window, at its beginning."""
    assert rule.type == "event_count", rule.type
    assert rule.window == "sliding", rule.window
    return SlidingCount(rule)


class Walk:
    """A fold with what `suppress` adds: after a finding is said, the group is silent for a while."""

    __slots__ = ("fold", "silent_until_us", "suppress_us", "suppressed")

    def __init__(self, rule: Rule) -> None:
        self.fold = new_fold(rule)
        self.suppress_us = rule.suppress_us
        self.silent_until_us: int | None = None
        self.suppressed = 0

    def add(self, seen: Seen) -> Found | None:
        """The next record; what is to be said."""
        found = self.fold.add(seen)
        if found is None or not self.suppress_us:
            return found
        if self.silent_until_us is not None and found.window_end_us < self.silent_until_us:
            self.suppressed += 1
            return None
        self.silent_until_us = found.window_end_us + self.suppress_us
        found, self.suppressed = replace(found, suppressed=self.suppressed), 0
        return found

    def forget(self, before_us: int) -> None:
        """Drops what cannot matter to records from this time on."""
        self.fold.forget(before_us)
        if self.silent_until_us is not None and self.silent_until_us <= before_us:
            self.silent_until_us = None

    @property
    def empty(self) -> bool:
        """Whether forgetting the group would change nothing."""
        return self.fold.last_us is None and self.silent_until_us is None and not self.suppressed

    def copy(self) -> Walk:
        """One that goes on independently."""
        twin = Walk.__new__(Walk)
        twin.fold, twin.suppress_us = self.fold.copy(), self.suppress_us
        twin.silent_until_us, twin.suppressed = self.silent_until_us, self.suppressed
        return twin

    def dump(self) -> Json:
        """As JSON, for checkpoints."""
        return {"fold": self.fold.dump(), "silent_until_us": self.silent_until_us, "suppressed": self.suppressed}

    def load(self, state: Json) -> None:
        """Takes over what `dump` gave."""
        self.fold.load(state["fold"])
        self.silent_until_us, self.suppressed = state["silent_until_us"], state["suppressed"]
