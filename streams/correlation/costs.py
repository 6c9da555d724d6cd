"""Which rule costs more than its records are worth: a worker measures, and a rule that is too dear is disabled, never the worker. Pure.

Only what is slow is measured by rule (`streams.faust_app.slices`), so rules that behave cost nothing here. A rule is too dear when it
takes at least half of a processor and at least a millisecond for each record that it looks at, over a whole period: a rule that
is merely busy takes microseconds for each.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Over how long a rule is judged, seconds. Shorter than what ends a worker whose records wait too long.
PERIOD_S = 15.0
#: Share of one processor, and seconds for a record, both of which a rule must exceed to be disabled.
SHARE_MAX = 0.5
RECORD_S_MAX = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class TooDear:
    """A rule that costs too much."""

    rule_id: str
    share: float  #: of one processor
    record_s: float  #: seconds for a record, on average
    where: str  #: what was measured: `matching`, `correlation`

    @property
    def why(self) -> str:
        """The reason, for the history of the rule and the event."""
        return (
            f"Its {self.where} took {100 * self.share:.0f} % of a processor and {1000 * self.record_s:.3g} ms a record "
            f"over {PERIOD_S:.0f} s; at most {1000 * RECORD_S_MAX:g} ms are allowed beyond {100 * SHARE_MAX:.0f} %."
        )


class RuleCosts:
    """What was measured of each rule since the last judgement."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._spent: dict[str, tuple[float, int]] = {}  # rule → seconds, records
        self._since_s: float | None = None

    def spent(self, rule_id: str, seconds: float, *, records: int = 1) -> None:
        """`seconds` of the processor were spent on `records` for a rule."""
        before = self._spent.get(rule_id, (0.0, 0))
        self._spent[rule_id] = (before[0] + seconds, before[1] + records)

    def judge(self, now_s: float) -> list[TooDear]:
        """The rules that were too dear over the period that has ended; empty while it lasts. `now_s`: any clock that goes on."""
        if self._since_s is None or not self._spent:
            self._since_s, self._spent = now_s, {}
            return []
        period_s = now_s - self._since_s
        if period_s < PERIOD_S:
            return []
        found = [
            TooDear(rule_id=rule_id, share=seconds / period_s, record_s=seconds / records, where=self._where)
            for rule_id, (seconds, records) in sorted(self._spent.items())
            if seconds / period_s >= SHARE_MAX and seconds / records >= RECORD_S_MAX
        ]
        self._since_s, self._spent = now_s, {}
        return found
