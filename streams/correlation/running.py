"""What the engine keeps of a rule in use. Pure."""

from __future__ import annotations

from collections import OrderedDict

from streams.correlation.counters import Counters
from streams.correlation.group import Group
from streams.correlation.rules import ActiveRule

#: Before every event time.
BEGINNING_US = -(2**62)


class Running:
    """One active rule and its groups."""

    __slots__ = (
        "active", "chained", "clock_us", "counters", "due_us", "floor_us", "grace_us", "groups", "in_order", "lag_us", "late_us", "level",
        "settled", "simple", "touched", "watermark_us",
    )  # fmt: skip

    def __init__(self, active: ActiveRule, *, in_order: bool = False) -> None:
        self.active = active
        self.counters = Counters()
        self.groups: OrderedDict[str, Group] = OrderedDict()  #: the least recently used first
        self.grace_us = active.rule.grace_us
        self.lag_us = self.grace_us
        self.level = 0
        self.floor_us = BEGINNING_US  # the watermark is at least here
        self.settled = active.rule.output == "final" or active.rule.timed
        self.chained = bool(active.rule.upstream)
        self.in_order = in_order and not self.settled and not self.chained
        self.simple = self.settled and not self.chained
        self.touched: set[str] = set()  # groups, since `Engine.take_changed` was called last
        self.clock_us: int | None = None  # of its level, from which the following were found
        self.watermark_us = self.late_us = self.due_us = BEGINNING_US

    def moved(self, clock_us: int, watermark_us: int) -> None:
        """The clock of its level has come to `clock_us`, and its records are settled up to `watermark_us`."""
        self.clock_us, self.watermark_us = clock_us, watermark_us
        self.due_us = watermark_us + self.lag_us
        self.late_us = self.due_us - self.grace_us
