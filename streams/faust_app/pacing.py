"""How often small fetches are worth their price (pure).

A fetch costs the broker, the client's thread and Faust about a millisecond, whether it holds one record or a thousand. While few
records come each is handled at once. When they come steadily they are gathered for some milliseconds: the others on the machine,
whose appends are what is being followed, get the processors. Large fetches are never held up, so the rate has no bound here.
"""

from __future__ import annotations

#: Records per second up to which each fetch is handled at once.
RECORDS_PER_SECOND = 500.0
#: Records that may come at a stroke before fetches are gathered.
BURST_RECORDS = 250.0
#: How long fetches are gathered, seconds.
GATHER_S = 0.015
#: A fetch of this many records is large enough: the next one follows at once.
LARGE_FETCH_RECORDS = 200


class Pacing:
    """A budget of records that may be handled at once; it refills with time."""

    __slots__ = ("_at_s", "_budget", "_was_large")

    def __init__(self) -> None:
        self._budget = BURST_RECORDS
        self._at_s: float | None = None
        self._was_large = False

    def fetched(self, records: int, now_s: float) -> None:
        """A fetch gave `records` at `now_s` (monotonic)."""
        self._refill(now_s)
        self._budget = max(-BURST_RECORDS, self._budget - records)
        self._was_large = records >= LARGE_FETCH_RECORDS

    def pause_s(self, now_s: float) -> float:
        """How long to wait before the next fetch is taken, seconds; 0: not at all."""
        self._refill(now_s)
        return GATHER_S if self._budget < 0 and not self._was_large else 0.0

    def _refill(self, now_s: float) -> None:
        if self._at_s is not None:
            self._budget = min(BURST_RECORDS, self._budget + (now_s - self._at_s) * RECORDS_PER_SECOND)
        self._at_s = now_s
