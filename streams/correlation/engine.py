"""The correlation engine: matches in, drafts of composites out. Pure: it is told the event time, never asks for one.

It is incremental (a match costs what its own group costs), serialisable group by group (`dump_group`, `load_group`), and
deterministic: the same calls give the same drafts. Time is the *clock*, the greatest event time that all sources have
reached; each rule's watermark is the clock less its own grace.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from streams import limits
from streams.correlation.group import Group
from streams.correlation.rules import ActiveRule
from streams.correlation.seen import Draft, Seen
from streams.records import Json

#: Before every event time.
BEGINNING_US = -(2**62)


@dataclass(slots=True)
class Counters:
    """What happened to the matches of one rule."""

    matched: int = 0
    late: int = 0
    duplicates: int = 0
    evicted: int = 0  #: groups


class _Running:
    """One active rule and its groups, the least recently used first."""

    __slots__ = ("active", "counters", "groups", "watermark_us")

    def __init__(self, active: ActiveRule) -> None:
        self.active = active
        self.counters = Counters()
        self.groups: OrderedDict[str, Group] = OrderedDict()
        self.watermark_us = BEGINNING_US


class Engine:
    """All active rules of one partition of matches, or of one trial."""

    def __init__(self, *, groups_max: int = limits.RULE_GROUPS_MAX) -> None:
        self._rules: dict[str, _Running] = {}
        self._groups_max = groups_max
        self._due: list[tuple[int, str, int, str]] = []  # (clock at which a group is due, rule, order of its version, group)
        self.clock_us = BEGINNING_US
        self.changed: set[tuple[str, str]] = set()  #: (rule, group) touched since the caller last cleared it; also those gone

    # --- rules ---

    def active(self, rule_id: str) -> ActiveRule | None:
        """The version of the rule that is in use."""
        running = self._rules.get(rule_id)
        return None if running is None else running.active

    def rules(self) -> list[ActiveRule]:
        """All rules in use."""
        return [running.active for running in self._rules.values()]

    def counters(self, rule_id: str) -> Counters:
        """What happened to the matches of a rule in use."""
        return self._rules[rule_id].counters

    def use(self, active: ActiveRule) -> None:
        """Starts a version of a rule, with empty state; a version that is not newer than the one in use is ignored."""
        running = self._rules.get(active.id)
        if running is not None:
            if running.active.order >= active.order:
                return
            self.drop(active.id)
        running = self._rules[active.id] = _Running(active)
        running.watermark_us = self.clock_us - active.rule.grace_us

    def drop(self, rule_id: str) -> None:
        """Ends a rule: its state is gone."""
        running = self._rules.pop(rule_id, None)
        if running is not None:
            self.changed.update((rule_id, key) for key in running.groups)

    # --- records and time ---

    def feed(self, rule_id: str, group_key: str, seen: Seen) -> list[Draft]:
        """A record that matched the rule in use; what it changes. `seen.tie` is set by the group."""
        running = self._rules[rule_id]
        counters = running.counters
        counters.matched += 1
        group = running.groups.get(group_key)
        if group is not None and group.holds(seen.id):
            counters.duplicates += 1
            return []
        if seen.time_us < running.watermark_us:
            counters.late += 1
            return []
        if group is None:
            group = running.groups[group_key] = Group(running.active, group_key)
            self._evict(running)
        else:
            running.groups.move_to_end(group_key)
        self.changed.add((rule_id, group_key))
        drafts = group.settle(running.watermark_us)
        drafts += group.add(seen)
        self._schedule(running, group_key, group)
        return drafts

    def advance(self, clock_us: int) -> list[Draft]:
        """Event time has come to `clock_us` (never back); what is true now. In the order of the times it speaks about."""
        if clock_us <= self.clock_us:
            return []
        self.clock_us = clock_us
        for running in self._rules.values():
            running.watermark_us = max(running.watermark_us, clock_us - running.active.rule.grace_us)
        return self._settle_due()

    def finish(self, watermark_us: int) -> list[Draft]:
        """The watermark of every rule moves to `watermark_us`, at the end of a trial."""
        longest = max((running.active.rule.grace_us for running in self._rules.values()), default=0)
        return self.advance(watermark_us + longest)

    def next_due_us(self) -> int | None:
        """The clock at which the next group is due; None: nothing waits for time."""
        return self._due[0][0] if self._due else None

    def _settle_due(self) -> list[Draft]:
        drafts: list[Draft] = []
        while self._due and self._due[0][0] <= self.clock_us:
            due_us, rule_id, order, key = heapq.heappop(self._due)
            running = self._rules.get(rule_id)
            group = None if running is None or running.active.order != order else running.groups.get(key)
            if running is None or group is None or group.scheduled_us != due_us:
                continue  # the group was evicted, dropped or scheduled anew
            group.scheduled_us = None
            self.changed.add((rule_id, key))
            drafts += group.settle(running.watermark_us)
            if group.empty:
                del running.groups[key]
            else:
                self._schedule(running, key, group)
        # A group says all that it has at once; between groups the order is that of event time, whatever the steps of the clock.
        drafts.sort(key=lambda draft: (draft.found.window_end_us, draft.rule_id, draft.group_key))
        return drafts

    def _schedule(self, running: _Running, key: str, group: Group) -> None:
        watermark_us = group.due_us()
        if watermark_us is None:
            return
        due_us = watermark_us + running.active.rule.grace_us
        if group.scheduled_us is None or due_us < group.scheduled_us:
            group.scheduled_us = due_us
            heapq.heappush(self._due, (due_us, running.active.id, running.active.order, key))

    def _evict(self, running: _Running) -> None:
        while len(running.groups) > self._groups_max:
            key, _ = running.groups.popitem(last=False)
            self.changed.add((running.active.id, key))
            running.counters.evicted += 1

    # --- checkpoints ---

    def groups(self) -> Iterable[tuple[str, str]]:
        """Every (rule, group) kept, the least recently used first."""
        return [(rule_id, key) for rule_id, running in self._rules.items() for key in running.groups]

    def dump_group(self, rule_id: str, group_key: str) -> Json | None:
        """The state of a group as JSON; None if it is not kept (any more)."""
        running = self._rules.get(rule_id)
        group = None if running is None else running.groups.get(group_key)
        return None if group is None or running is None else {"order": running.active.order, "group": group.dump()}

    def load_group(self, rule_id: str, group_key: str, state: Json) -> None:
        """Takes over what `dump_group` gave; of another version than the one in use: nothing."""
        running = self._rules.get(rule_id)
        if running is None or running.active.order != state["order"]:
            return
        group = running.groups[group_key] = Group(running.active, group_key)
        group.load(state["group"])
        self._schedule(running, group_key, group)

    def resume(self, clock_us: int) -> None:
        """Sets the clock of a loaded state, before its rules and groups are loaded."""
        self.clock_us = clock_us
