"""Slices of bounded time: when a loop over records lets the other tasks of the process run, and whether its records are slow."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Records of a slice, and seconds after which it ends anyway.
_RECORDS_MAX = 100
_SECONDS_MAX = 0.02
#: Of so many records one looks at the clock, while they are not slow.
_LOOKS = 4
#: Seconds of the processor for a record, on average over a slice, beyond which records are slow.
_SLOW_S = 0.0005
#: While records are slow, of so many one is measured by rule.
PROBED = 4


class Slices:
    """One loop over records."""

    __slots__ = ("_cpu", "_end", "_records", "_time", "slow")

    def __init__(self, time_s: Callable[[], float]) -> None:
        """`time_s`: the event loop's clock."""
        self._time = time_s
        self.slow = False  #: whether the records of the last slice were
        self.begin()

    def begin(self) -> None:
        """A slice begins: to be called before the loop and after each pause."""
        self._records = 0
        self._cpu = time.thread_time()
        self._end = self._time() + _SECONDS_MAX

    def over(self) -> bool:
        """One more record is done; whether the slice is over."""
        records = self._records = self._records + 1
        # Records that are not slow need no look at the clock after each.
        if records < _RECORDS_MAX and ((records % _LOOKS and not self.slow) or self._time() < self._end):
            return False
        self.slow = (time.thread_time() - self._cpu) / self._records > _SLOW_S
        return True

    @property
    def probing(self) -> bool:
        """Whether the next record is one to be measured by rule."""
        return self.slow and self._records % PROBED == 0
