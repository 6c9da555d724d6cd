"""The folds of `anomaly`: a group's values go through its detector, one by one or as the figure of each window.

Which values: without `timespan` the number in `field` of each record; with it, per tumbling window, the mean of `field`, or without
`field` the count. Counts go on when nothing comes: an empty window is a 0, and can be an anomaly as well as a burst.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict

from streams import limits
from streams.correlation.anomaly import Detector
from streams.correlation.figures import Mean
from streams.correlation.rules import Rule
from streams.correlation.seen import SAMPLES_MAX, Found, Judged, Seen, thinned
from streams.records import Json

#: Empty windows in a row that count as 0. A group that is silent for longer rests until its next record, and learns nothing meanwhile.
SILENT_WINDOWS_MAX = 100


class Scored:
    """Judges the value of each record.

    A detector cannot take a value back. With a journal there are two: `_settled` knows the records that were kept, `_live` all.
    After an `undo` the second is made anew from the first, and the records between them.
    """

    lasting = True  # what it has learned is never over

    __slots__ = ("_journal", "_last", "_live", "_settled", "_threshold", "dropped")

    def __init__(self, rule: Rule, *, journaled: bool) -> None:
        self._threshold = rule.condition.threshold or 0.0
        self._settled = Detector()
        self._live: Detector | None = None  # None: as `_settled`, with the journal still to be added
        self._journal: deque[Seen] | None = deque() if journaled else None
        self._last: tuple[Seen, Judged | None, float] | None = None  # the newest record, what it was held against, and its score
        self.dropped = 0

    def add(self, seen: Seen) -> Found | None:
        """See `Fold.add`."""
        judged = self._judge(seen)
        self._last = (seen, judged, judged.score)
        if not judged.score > self._threshold:
            return None
        return Found(seen.id, seen.time_us, seen.time_us, (seen,), 1, judged.score, judged=judged)

    def _judge(self, seen: Seen) -> Judged:
        if self._journal is None:
            return self._settled.observe(seen.time_us, seen.value)
        if self._live is None:
            self._live = self._settled.copy()
            for before in self._journal:
                self._live.observe(before.time_us, before.value)
        self._journal.append(seen)
        return self._live.observe(seen.time_us, seen.value)

    def undo(self) -> None:
        """See `Fold.undo`."""
        assert self._journal is not None
        self._journal.pop()
        self._live = self._last = None

    def keep(self) -> None:
        """See `Fold.keep`."""
        assert self._journal is not None
        seen = self._journal.popleft()
        if self._live is not None and not self._journal:
            self._settled, self._live = self._live, None  # it knows no other records: nothing is observed twice
        else:
            self._settled.observe(seen.time_us, seen.value)

    @property
    def deadline_us(self) -> int | None:
        """See `Fold.deadline_us`."""
        return None

    def close(self, until_us: int) -> list[Found]:
        """See `Fold.close`."""
        return []

    def forget(self, before_us: int) -> None:
        """See `Fold.forget`."""

    def standing(self) -> tuple[tuple[Seen, ...], float]:
        """See `Fold.standing`: the newest record, and its score."""
        return ((), 0.0) if self._last is None else ((self._last[0],), self._last[2])

    @property
    def judged(self) -> Judged | None:
        """What the newest record was held against."""
        return None if self._last is None else self._last[1]

    def dump(self) -> Json:
        """See `Fold.dump`."""
        last = None if self._last is None else [self._last[0].dump(), self._last[2]]
        return {"detector": self._settled.dump(), "last": last, "judged": _dumped(self.judged)}

    def load(self, state: Json) -> None:
        """See `Fold.load`."""
        self._settled = Detector.load(state["detector"])
        last = state["last"]
        self._last = None if last is None else (Seen.load(last[0]), _loaded(state.get("judged")), last[1])


class ScoredWindows:
    """Judges the count or mean of each tumbling window when it closes."""

    lasting = True

    __slots__ = (
        "_detector", "_empty", "_mean", "_means", "_records", "_scored", "_threshold", "_timespan_us", "_window", "dropped", "judged",
    )  # fmt: skip

    def __init__(self, rule: Rule) -> None:
        self._threshold = rule.condition.threshold or 0.0
        self._timespan_us = rule.timespan_us
        self._means = rule.condition.field is not None
        self._detector = Detector()
        self._mean = Mean()
        self._records: list[Seen] = []  # of the present window
        self._window: int | None = None  # its number since the epoch; None: the group rests
        self._empty = 0  # windows in a row, before this one
        self._scored = 0.0  # the score of the last window that closed
        self.judged: Judged | None = None  #: what that was held against
        self.dropped = 0

    def add(self, seen: Seen) -> Found | None:
        """See `Fold.add`. The windows before are closed already."""
        if self._window is None:
            self._window, self._empty = seen.time_us // self._timespan_us, 0
        self._records.append(seen)
        if self._means:
            self._mean.add(seen.value)
        newest = len(self._records) - 1
        sample, beyond = newest - SAMPLES_MAX, newest - limits.RULE_RECORDS_PER_GROUP_MAX
        if sample >= 0:
            self._records[sample] = self._records[sample]._replace(data="{}")
        if beyond >= 0:
            self._records[beyond] = thinned(self._records[beyond])
            self.dropped += 1
        return None

    def undo(self) -> None:
        """See `Fold.undo`."""
        raise AssertionError("what speaks at instants is never asked to undo")

    def keep(self) -> None:
        """See `Fold.keep`."""
        raise AssertionError("what speaks at instants is never asked to undo")

    @property
    def deadline_us(self) -> int | None:
        """See `Fold.deadline_us`."""
        return None if self._window is None else (self._window + 1) * self._timespan_us

    def close(self, until_us: int) -> list[Found]:
        """See `Fold.close`."""
        found = []
        while self._window is not None and (self._window + 1) * self._timespan_us <= until_us:
            said = self._close(self._window * self._timespan_us)
            if said is not None:
                found.append(said)
        return found

    def _close(self, begin_us: int) -> Found | None:
        assert self._window is not None
        records, self._records = self._records, []
        self._empty = 0 if records else self._empty + 1
        rests = self._means or self._empty >= SILENT_WINDOWS_MAX
        self._window = None if rests else self._window + 1
        value: float = len(records)
        if self._means:
            value, self._mean = self._mean.value, Mean()
        judged = self.judged = self._detector.observe(begin_us, value)
        self._scored = judged.score
        if not judged.score > self._threshold:
            return None
        named = tuple(records[-limits.RULE_RECORDS_PER_GROUP_MAX :])
        end_us = begin_us + self._timespan_us
        return Found(f"window/{begin_us}", begin_us, end_us, named, len(records), judged.score, judged=judged)

    def forget(self, before_us: int) -> None:
        """See `Fold.forget`."""

    def standing(self) -> tuple[tuple[Seen, ...], float]:
        """See `Fold.standing`: the records of the present window, and the score of the one before."""
        return tuple(self._records[-limits.RULE_RECORDS_PER_GROUP_MAX :]), self._scored

    def dump(self) -> Json:
        """See `Fold.dump`."""
        return {
            "detector": self._detector.dump(), "records": [seen.dump() for seen in self._records], "window": self._window,
            "empty": self._empty, "scored": self._scored, "judged": _dumped(self.judged),
        }  # fmt: skip

    def load(self, state: Json) -> None:
        """See `Fold.load`."""
        self._detector = Detector.load(state["detector"])
        self._records = [Seen.load(item) for item in state["records"]]
        if self._means:
            for seen in self._records:
                self._mean.add(seen.value)
        self._window, self._empty, self._scored = state["window"], state["empty"], state["scored"]
        self.judged = _loaded(state.get("judged"))


def _dumped(judged: Judged | None) -> Json:
    return None if judged is None else asdict(judged)


def _loaded(state: Json) -> Judged | None:
    return None if state is None else Judged(**state)


def fold_for(rule: Rule, *, journaled: bool) -> Scored | ScoredWindows:
    """The fold of a rule of type `anomaly`."""
    return ScoredWindows(rule) if rule.timespan_us else Scored(rule, journaled=journaled)
