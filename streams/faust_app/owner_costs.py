"""What composites cost the owner of a partition of matches, by rule: slices of bounded time, and rules that are too dear."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from streams.correlation.costs import RuleCosts, TooDear
from streams.correlation.engine import Engine
from streams.correlation.rules import ActiveRule
from streams.faust_app.slices import Slices
from streams.records import CompositeEvent


class OwnerCosts:
    """One owner's. A record's cost goes to the rules that said something at it, by what they had to name: that is what can be dear."""

    def __init__(self, time_s: Callable[[], float]) -> None:
        """`time_s`: the event loop's clock."""
        self.too_dear: dict[str, tuple[ActiveRule, TooDear]] = {}  #: to be disabled for all workers
        self.slices = Slices(time_s)
        self._time = time_s
        self._costs = RuleCosts("correlation")

    def over(self, engine: Engine) -> bool:
        """See `Slices.over`; at the end of a slice rules are judged."""
        if not self.slices.over():
            return False
        for each in self._costs.judge(self._time()):
            active = engine.active(each.rule_id)
            if active is not None:
                self.too_dear[each.rule_id] = (active, each)
        return True

    def spent(self, composites: Sequence[CompositeEvent], since_s: float) -> None:
        """A record has led to these; `since_s`: the thread's time when it was begun."""
        seconds = time.thread_time() - since_s
        weights: dict[str, int] = {}
        for said in composites:
            weights[said.rule_id] = weights.get(said.rule_id, 0) + 1 + len(said.event_ids)
        for rule_id, weight in weights.items():
            self._costs.spent(rule_id, seconds * weight / sum(weights.values()))
