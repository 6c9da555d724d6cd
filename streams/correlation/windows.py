"""Counts and figures over windows: sliding, tumbling, session, and the rate of a window against those before it.

The records lie in one list in their order; the window is its end, from `_start` on, with a figure that follows it. An `add` can
be undone as long as it was not kept: its journal entry says where the window began, and what a new window or a match put aside.
So a record that arrives out of order costs as much as the records behind it, whatever the window holds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from streams import limits
from streams.correlation.figures import Figure, figure_for, quotient
from streams.correlation.rules import Rule
from streams.correlation.seen import SAMPLES_MAX, Found, Seen, thinned
from streams.records import Json

#: A payload of so many characters is not worth dropping.
_SMALL = 64
#: Records in front of the window that may lie there before the list is compacted.
_SLACK = 256


class _Entry(NamedTuple):
    """What undoes one `add`."""

    start: int  #: of the window before
    rolled: bool  #: whether the record opened a new window
    figure: Figure | None  #: the figure of the window before, if it opened a new one
    fired_start: int = -1  #: of the window when the match used it up
    fired_figure: Figure | None = None


class Window:
    """What the windows share. `timed` ones are judged when they close, the others at each record."""

    lasting = False

    __slots__ = (
        "_figure", "_gap_us", "_holds", "_journal", "_new", "_records", "_reset", "_start", "_timed", "_timespan_us", "dropped",
    )  # fmt: skip

    def __init__(self, rule: Rule, *, journaled: bool) -> None:
        self._holds = rule.condition.test()
        self._timespan_us = rule.timespan_us
        self._gap_us = rule.gap_us
        self._reset = rule.after_match == "reset"
        self._timed = rule.timed
        self._new = figure_for(rule)
        self._figure: Figure | None = None if self._new is None else self._new()
        self._records: list[Seen] = []
        self._start = 0
        self._journal: deque[_Entry] | None = deque() if journaled else None
        self.dropped = 0

    # --- records ---

    def add(self, seen: Seen) -> Found | None:
        """See `Fold.add`."""
        records, start, figure = self._records, self._start, self._figure
        count = len(records)
        rolled = start < count and self._over(records[start].time_us, records[-1].time_us, seen.time_us)
        if rolled:
            self._start = count
            self._figure = None if self._new is None else self._new()
        else:
            self._slide(seen.time_us)
        records.append(seen)
        if self._figure is not None:
            self._figure.add(seen.value)
        entry = None if self._journal is None else _Entry(start, rolled, figure if rolled else None)
        found = None if self._timed else self._fired()
        if found is not None and self._reset:
            if entry is not None:
                entry = entry._replace(fired_start=self._start, fired_figure=self._figure)
            self._clear()
        if entry is None:
            self._thin(len(records))
        else:
            assert self._journal is not None
            self._journal.append(entry)
        return found

    def extend(self, several: Sequence[Seen]) -> None:
        """`add` of records that lie in the present window, or open the next one together, where nothing is found at records."""
        records, figure = self._records, self._figure
        if figure is not None:
            for seen in several:
                figure.add(seen.value)
        if len(records) - self._start + len(several) <= SAMPLES_MAX:
            records.extend(several)
            self._thin(len(records))
            return
        for seen in several:
            records.append(seen)
            self._thin(len(records))

    def _over(self, first_us: int, last_us: int, time_us: int) -> bool:
        """Whether a record at `time_us` is in a new window."""
        return False

    def _slide(self, time_us: int) -> None:
        """Lets go of the records that a window ending at `time_us` does not reach."""

    def _fired(self) -> Found | None:
        records, start = self._records, self._start
        count = len(records) - start
        value = count if self._figure is None else self._figure.value
        if not self._holds(value):
            return None
        last = records[-1]
        return Found(last.id, records[start].time_us, last.time_us, self._kept(), count, value)

    def _kept(self) -> tuple[Seen, ...]:
        return tuple(self._records[max(self._start, len(self._records) - limits.RULE_RECORDS_PER_GROUP_MAX) :])

    def _clear(self) -> None:
        self._start = len(self._records)
        self._figure = None if self._new is None else self._new()

    def undo(self) -> None:
        """See `Fold.undo`."""
        assert self._journal is not None
        entry = self._journal.pop()
        if entry.fired_start >= 0:
            self._start, self._figure = entry.fired_start, entry.fired_figure
        seen = self._records.pop()
        if entry.rolled:
            self._figure = entry.figure
        elif self._figure is not None:
            self._figure.remove(seen.value)
            for index in range(entry.start, self._start):
                self._figure.add(self._records[index].value)
        self._start = entry.start

    def keep(self) -> None:
        """See `Fold.keep`."""
        assert self._journal is not None
        self._journal.popleft()
        self._thin(len(self._records) - len(self._journal))

    def _thin(self, kept: int) -> None:
        """Frees what no record that comes after the first `kept` ones needs."""
        records = self._records
        start = self._journal[0].start if self._journal else self._start
        sample, beyond = kept - 1 - SAMPLES_MAX, kept - 1 - limits.RULE_RECORDS_PER_GROUP_MAX
        if sample >= start and len(records[sample].data) > _SMALL:
            records[sample] = records[sample]._replace(data="{}")
        if beyond >= start and records[beyond].id:
            records[beyond] = thinned(records[beyond])
            self.dropped += 1
        if start > _SLACK and start > len(records) // 2:
            self._compact(start)

    def _compact(self, start: int) -> None:
        del self._records[:start]
        self._start -= start
        if self._journal:
            self._journal = deque(
                entry._replace(start=entry.start - start, fired_start=entry.fired_start - start if entry.fired_start >= 0 else -1)
                for entry in self._journal
            )

    # --- time ---

    @property
    def deadline_us(self) -> int | None:
        """See `Fold.deadline_us`."""
        return self._end_us() if self._timed and self._start < len(self._records) else None

    def _end_us(self) -> int:
        """When the present window closes."""
        raise AssertionError("a sliding window never closes")

    def _begin_us(self) -> int:
        return self._records[self._start].time_us

    def end_us(self, first_us: int) -> int:
        """When the window that is open closes at the earliest, or, if none is, the one that a record at `first_us` opens."""
        raise AssertionError("a sliding window never closes")

    def close(self, until_us: int) -> list[Found]:
        """See `Fold.close`."""
        deadline_us = self.deadline_us
        if deadline_us is None or deadline_us > until_us:
            return []
        begin_us, count = self._begin_us(), len(self._records) - self._start
        value = self._judged(begin_us, count)
        found = []
        if value is not None and self._holds(value):
            found.append(Found(f"window/{begin_us}", begin_us, deadline_us, self._kept(), count, value))
        self._clear()
        self._thin(len(self._records))
        return found

    def _judged(self, begin_us: int, count: int) -> float | None:
        """The figure of the window that closes; None: it is silent."""
        return count if self._figure is None else self._figure.value

    def forget(self, before_us: int) -> None:
        """See `Fold.forget`."""
        # Records in their order are folded before they are settled: the present window may begin after that time.
        if self._timed or self._start == len(self._records) or before_us <= self._records[self._start].time_us:
            return
        if self._over(self._records[self._start].time_us, self._records[-1].time_us, before_us):
            self._clear()
        else:
            self._slide(before_us)
        self._thin(len(self._records))

    # --- state ---

    def standing(self) -> tuple[tuple[Seen, ...], float]:
        """See `Fold.standing`."""
        count = len(self._records) - self._start
        return self._kept(), count if self._figure is None else self._figure.value

    def dump(self) -> Json:
        """See `Fold.dump`."""
        return {"records": [seen.dump() for seen in self._records[self._start :]]}

    def load(self, state: Json) -> None:
        """See `Fold.load`."""
        self._records = [Seen.load(item) for item in state["records"]]
        if self._figure is not None:
            for seen in self._records:
                self._figure.add(seen.value)


class Sliding(Window):
    """The records in (t − timespan, t] at the time t of each record."""

    __slots__ = ()

    def add(self, seen: Seen) -> Found | None:
        """See `Fold.add`. What the base does, with everything in one place: it is most of the engine's work."""
        records, start, figure, journal = self._records, self._start, self._figure, self._journal
        self._slide(seen.time_us)
        records.append(seen)
        if figure is None:
            found = self._fired() if self._holds(len(records) - self._start) else None
        else:
            figure.add(seen.value)
            found = self._fired() if self._holds(figure.value) else None
        if found is not None and self._reset:
            entry = _Entry(start, False, None, self._start, figure)
            self._clear()
        elif journal is not None:
            entry = _Entry(start, False, None)
        if journal is None:
            self._thin(len(records))
        else:
            journal.append(entry)
        return found

    def _slide(self, time_us: int) -> None:
        records, start, limit, figure = self._records, self._start, time_us - self._timespan_us, self._figure
        count = len(records)
        while start < count and records[start].time_us <= limit:
            if figure is not None:
                figure.remove(records[start].value)
            start += 1
        self._start = start


class Tumbling(Window):
    """The records in [k·timespan, (k+1)·timespan) since the epoch."""

    __slots__ = ()

    def _over(self, first_us: int, last_us: int, time_us: int) -> bool:
        return first_us // self._timespan_us != time_us // self._timespan_us

    def _begin_us(self) -> int:
        first_us = self._records[self._start].time_us
        return first_us - first_us % self._timespan_us

    def _end_us(self) -> int:
        return self._begin_us() + self._timespan_us

    def end_us(self, first_us: int) -> int:
        """See `Window.end_us`."""
        if self._start < len(self._records):
            first_us = self._records[self._start].time_us
        return first_us - first_us % self._timespan_us + self._timespan_us


class Session(Window):
    """From the first record to the last + gap, at most to the first + timespan if there is one; that instant not included."""

    __slots__ = ()

    def _ends_us(self, first_us: int, last_us: int) -> int:
        end_us = last_us + self._gap_us
        return min(end_us, first_us + self._timespan_us) if self._timespan_us else end_us

    def _over(self, first_us: int, last_us: int, time_us: int) -> bool:
        return time_us >= self._ends_us(first_us, last_us)

    def _end_us(self) -> int:
        return self._ends_us(self._records[self._start].time_us, self._records[-1].time_us)

    def end_us(self, first_us: int) -> int:
        """See `Window.end_us`."""
        return self._end_us() if self._start < len(self._records) else self._ends_us(first_us, first_us)


class RateChange(Tumbling):
    """The count of a window divided by the mean of the `baseline` windows before it, empty ones included.

    What a match used up still counts in later baselines: they are the past, and not evidence.
    """

    lasting = True  # the first window of the group is never forgotten

    __slots__ = ("_baseline", "_first", "_history")

    def __init__(self, rule: Rule, *, journaled: bool) -> None:
        super().__init__(rule, journaled=journaled)
        self._baseline = rule.condition.baseline or 1
        self._first: int | None = None  # number of the group's first window
        self._history: deque[tuple[int, int]] = deque()  # (number, records) of the windows before that were not empty

    def _judged(self, begin_us: int, count: int) -> float | None:
        number = begin_us // self._timespan_us
        history = self._history
        while history and history[0][0] < number - self._baseline:
            history.popleft()
        before = sum(records for _, records in history)
        if self._first is None:
            self._first = number
        enough = number - self._baseline >= self._first
        history.append((number, count))
        return quotient(count * self._baseline, before) if enough and before else None

    def dump(self) -> Json:
        """See `Fold.dump`."""
        return {**super().dump(), "first": self._first, "history": [list(item) for item in self._history]}

    def load(self, state: Json) -> None:
        """See `Fold.load`."""
        super().load(state)
        self._first = state["first"]
        self._history = deque((number, count) for number, count in state["history"])


def window_for(rule: Rule, *, journaled: bool) -> Window:
    """The fold of a type over windows."""
    if rule.type == "rate_change":
        return RateChange(rule, journaled=journaled)
    kinds: dict[str, Any] = {"sliding": Sliding, "tumbling": Tumbling, "session": Session}
    window: Window = kinds[rule.window](rule, journaled=journaled)
    return window
