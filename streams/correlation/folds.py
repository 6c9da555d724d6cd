"""One fold per type of correlation: records go in, in their order, findings come out.

A fold never sees late records, duplicates or the order of arrival: `streams.correlation.group` and `eager` feed it. To add a type:
implement `Fold`, name it in `new_fold`, and let `Rule.timed` say whether it speaks at records or at instants. A fold that speaks
at records is asked to keep a journal when its rule's output is eager; one that speaks at instants never is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from streams.correlation.anomaly_fold import fold_for
from streams.correlation.patterns import Absence, Together
from streams.correlation.rules import WINDOWED, Rule
from streams.correlation.seen import Found, Seen
from streams.correlation.sequence import Ordered
from streams.correlation.windows import window_for
from streams.records import Json


class Fold(Protocol):
    """The records of one group, folded in their order."""

    lasting: bool  #: whether it knows something that is never over, so that its group is not forgotten with time
    dropped: int  #: records that are no longer kept because there are too many

    def add(self, seen: Seen) -> Found | None:
        """The next record; what it completes. With a journal it can be undone until it is kept."""

    def undo(self) -> None:
        """Takes back the last `add` that was neither undone nor kept."""

    def keep(self) -> None:
        """The oldest `add` that can be undone will not be."""

    @property
    def deadline_us(self) -> int | None:
        """The next instant at which it has something to say; None: there is none."""

    def close(self, until_us: int) -> list[Found]:
        """Event time has come to `until_us`, and no record before it will come: what instants up to it complete, in their order."""

    def forget(self, before_us: int) -> None:
        """No record before this time will come any more: what can no longer matter is dropped. Never while something can be undone."""

    def standing(self) -> tuple[tuple[Seen, ...], float]:
        """What has been seen towards the next match: the records, and the figure that they make."""

    def dump(self) -> Json:
        """As JSON, for checkpoints; only when nothing can be undone."""

    def load(self, state: Json) -> None:
        """Takes over what `dump` gave, into a new fold."""


def new_fold(rule: Rule, *, journaled: bool) -> Fold:
    """The fold of the rule's type, at its beginning."""
    if rule.type in WINDOWED:
        return window_for(rule, journaled=journaled)
    match rule.type:
        case "temporal":
            return Together(rule, journaled=journaled)
        case "temporal_ordered":
            return Ordered(rule, journaled=journaled)
        case "absence":
            return Absence(rule)
        case "anomaly":
            return fold_for(rule, journaled=journaled)
        case _:
            raise AssertionError(f"no fold for {rule.type}")


class Silence:
    """What `suppress` adds to a fold: after a finding is said, the group is silent for a while."""

    __slots__ = ("_suppress_us", "suppressed", "until_us")

    def __init__(self, suppress_us: int) -> None:
        self._suppress_us = suppress_us
        self.until_us: int | None = None
        self.suppressed = 0

    def said(self, found: Found) -> Found | None:
        """The finding as it is to be said; None: it is kept silent, and counted."""
        if not self._suppress_us:
            return found
        if self.until_us is not None and found.window_end_us < self.until_us:
            self.suppressed += 1
            return None
        self.until_us = found.window_end_us + self._suppress_us
        found, self.suppressed = replace(found, suppressed=self.suppressed), 0
        return found

    def state(self) -> tuple[int | None, int]:
        """What `restore` takes back."""
        return self.until_us, self.suppressed

    def restore(self, state: tuple[int | None, int]) -> None:
        """Takes back what was said and counted since `state`."""
        self.until_us, self.suppressed = state

    def over(self, watermark_us: int) -> bool:
        """Whether nothing of it can matter any more."""
        return not self.suppressed and (self.until_us is None or self.until_us <= watermark_us)
