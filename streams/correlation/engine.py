"""The correlation engine: matches in, drafts of composites out. Pure: it is told the event time, never asks for one.

It is incremental (a match costs what its own group costs), serialisable group by group (`dump_group`, `load_group`), and
deterministic: the same calls give the same drafts. Time is the *clock*, the greatest event time that all sources have reached. A
rule's watermark is the clock less its grace; what it settles lies behind that by the grace of the rules whose composites it reads
(`streams.correlation.levels`). Each level of rules has a clock of its own, for callers to whom composites come by another way
than the records (`advance` with a level); all others give one clock.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence

from streams import limits
from streams.correlation.counters import Counters
from streams.correlation.eager import EagerGroup
from streams.correlation.group import Group, SettledGroup
from streams.correlation.inorder import InOrderGroup
from streams.correlation.levels import lags, levels
from streams.correlation.rules import ActiveRule
from streams.correlation.running import BEGINNING_US, Running
from streams.correlation.seen import Arrival, Draft, Seen
from streams.records import Json

_Due = list[tuple[int, str, int, str]]  # heap of (clock at which a group is due, rule, order of its version, group)


class Engine:
    """All active rules of one partition of matches, or of one trial."""

    def __init__(self, *, groups_max: int = limits.RULE_GROUPS_MAX, in_order: bool = False) -> None:
        """`in_order`: records are fed in the order of their time and arrival, as the history has them."""
        self._in_order = in_order
        self._rules: dict[str, Running] = {}
        self._groups_max = groups_max
        self._due: list[_Due] = [[]]  # by level
        self._clocks: list[int] = [BEGINNING_US]  # by level
        self._readers: dict[str, dict[str, int]] = {}  # rule → the rules that read its composites, with their order
        self._deferred: set[tuple[str, str]] = set()
        self._gone: set[tuple[str, str]] = set()  # (rule, group) of rules that have ended, since the last `take_changed`

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

    def restore(self, rule_id: str, counters: Json) -> None:
        """Takes over what `Counters.dump` gave, for the version in use."""
        self._rules[rule_id].counters = Counters(**counters)

    def group_count(self, rule_id: str) -> int:
        """How many groups of a rule in use are kept."""
        return len(self._rules[rule_id].groups)

    @property
    def levels(self) -> range:
        """The levels of the rules in use."""
        return range(len(self._clocks))

    def level(self, rule_id: str) -> int:
        """The level of a rule in use."""
        return self._rules[rule_id].level

    @property
    def chained(self) -> bool:
        """Whether a rule in use reads the composites of another."""
        return bool(self._readers)

    def readers(self, rule_id: str) -> Mapping[str, int]:
        """The rules in use that read the composites of this one, on levels above it: id → order of the version."""
        return self._readers.get(rule_id, {})

    def use(self, active: ActiveRule) -> None:
        """Starts a version of a rule, with empty state; a version that is not newer than the one in use is ignored."""
        running = self._rules.get(active.id)
        if running is not None:
            if running.active.order >= active.order:
                return
            self._forget(active.id)
        self._rules[active.id] = made = Running(active, in_order=self._in_order)
        self._order()
        made.floor_us = BEGINNING_US  # it was on no level before

    def drop(self, rule_id: str) -> None:
        """Ends a rule: its state is gone."""
        self._forget(rule_id)
        self._order()

    def _forget(self, rule_id: str) -> None:
        running = self._rules.pop(rule_id, None)
        if running is not None:
            self._gone.update((rule_id, key) for key in running.touched.union(running.groups))

    def _order(self) -> None:
        """Levels and lags, after a change of the rules."""
        if not any(running.active.rule.upstream or running.level for running in self._rules.values()):
            self._readers = {}
            return
        rules = [running.active.rule for running in self._rules.values()]
        level = levels(rules)
        lag = lags(rules, level)
        depth = max(level.values(), default=0) + 1
        while len(self._clocks) < depth:
            self._clocks.append(BEGINNING_US)
            self._due.append([])
        self._readers = {}
        for rule in rules:
            for before in rule.upstream:
                if before in level and level[before] < level[rule.id]:
                    self._readers.setdefault(before, {})[rule.id] = self._rules[rule.id].active.order
        for running in self._rules.values():
            rule_id = running.active.id
            if (running.level, running.lag_us) == (level[rule_id], lag[rule_id]):
                continue
            running.floor_us, running.clock_us = self._settled_us(running), None
            running.level, running.lag_us = level[rule_id], lag[rule_id]
            for key, group in running.groups.items():
                group.scheduled_us = None
                self._schedule(running, key, group)

    # --- records ---

    def _settled_us(self, running: Running) -> int:
        """Up to where the rule's records are settled."""
        return max(running.floor_us, self._clocks[running.level] - running.lag_us)

    def feed(self, rule_id: str, group_key: str, seen: Seen, arrival: Arrival) -> list[Draft]:
        """A record that matched the rule in use; what it changes.

        `arrival` orders records of equal time. A composite (`seen.after`) is never late.
        """
        return [*self._feed(self._rules[rule_id], group_key, seen, arrival)]

    def feed_all(self, rule_id: str, fed: Iterable[tuple[str, Seen, Arrival]]) -> list[Draft]:
        """As `feed`, of several records (group, record, arrival) one after the other."""
        running, drafts = self._rules[rule_id], list[Draft]()
        for group_key, seen, arrival in fed:
            found = self._feed(running, group_key, seen, arrival)
            if found:
                drafts += found
        return drafts

    def _feed(self, running: Running, group_key: str, seen: Seen, arrival: Arrival) -> Sequence[Draft]:
        clock_us = self._clocks[running.level]
        if clock_us != running.clock_us:
            running.moved(clock_us, self._settled_us(running))
        counters, time_us, watermark_us = running.counters, seen.time_us, running.watermark_us
        counters.matched += 1
        counters.last_us = time_us
        group = running.groups.get(group_key)
        if group is None:
            if time_us < running.late_us and seen.after is None:
                counters.late_came(seen.id, running.late_us - time_us)
                return ()
            group = running.groups[group_key] = self._group(running, group_key)
            self._evict(running)
        else:
            if group.holds(seen.id, watermark_us):
                counters.duplicates += 1
                return ()
            if time_us < running.late_us and seen.after is None:
                counters.late_came(seen.id, running.late_us - time_us)
                return ()
            running.groups.move_to_end(group_key)
        running.touched.add(group_key)
        # Until it is due, settling it would change nothing.
        if running.simple and (scheduled_us := group.scheduled_us) is not None and scheduled_us > running.due_us:
            assert isinstance(group, SettledGroup)
            if group.put(seen, arrival, watermark_us):
                self._after(running, group_key, group)
            return ()
        if running.in_order:
            drafts = group.add(seen, arrival, watermark_us)
            if group.scheduled_us is None or group.fold.dropped:
                self._after(running, group_key, group)
            return drafts
        drafts = group.settle(watermark_us) if watermark_us > group.settled_us else []
        drafts += group.add(seen, arrival, watermark_us)
        self._after(running, group_key, group)
        return drafts

    def revise(self, rule_id: str, before: tuple[str, Seen] | None, after: tuple[str, Seen] | None, arrival: Arrival) -> list[Draft]:
        """A composite that the rule has read says something else, or nothing, or was not read: (group, record) as it was and is."""
        if before is None:
            return [] if after is None else self.feed(rule_id, *after, arrival)
        running = self._rules[rule_id]
        group = running.groups.get(before[0])
        if group is None or not group.holds(before[1].id, self._settled_us(running)):
            # The rule came into force after it was said for the first time.
            return [] if after is None else self.feed(rule_id, *after, arrival)
        running.touched.add(before[0])
        if after is not None and after[0] == before[0] and after[1].time_us == before[1].time_us:
            drafts = group.replace(before[1], after[1])
            self._after(running, before[0], group)
            return drafts
        drafts = group.remove(before[1])
        self._after(running, before[0], group)
        return drafts + ([] if after is None else self.feed(rule_id, *after, arrival))

    def _group(self, running: Running, group_key: str) -> Group:
        if running.settled:
            return SettledGroup(running.active, group_key)
        return InOrderGroup(running.active, group_key) if running.in_order else EagerGroup(running.active, group_key)

    def _after(self, running: Running, key: str, group: Group) -> None:
        _count_dropped(running, group)
        if group.deferred:
            self._deferred.add((running.active.id, key))
        # An eager group that waits to be forgotten is looked at again when it would be due.
        if group.scheduled_us is None or running.settled or group.deferred:
            self._schedule(running, key, group)

    # --- time ---

    @property
    def clock_us(self) -> int:
        """The clock of the records (level 0)."""
        return self._clocks[0]

    @property
    def clocks_us(self) -> tuple[int, ...]:
        """The clock of each level; `BEGINNING_US`: it has not moved yet."""
        return tuple(self._clocks)

    def advance(self, clock_us: int, level: int | None = None) -> list[Draft]:
        """Event time has come to `clock_us` (never back) for the rules of a level, or all; what is true now.

        In the order of the times that it speaks about.
        """
        drafts: list[Draft] = []
        for each in self.levels if level is None else (level,):
            if clock_us > self._clocks[each]:
                self._clocks[each] = clock_us
                if self._due[each] and self._due[each][0][0] <= clock_us:
                    drafts += self._settle_due(each)
        return drafts

    def finish(self, watermark_us: int, level: int | None = None) -> list[Draft]:
        """The watermark of every rule (of a level, or all) moves to `watermark_us`, at the end of a trial; never back."""
        drafts: list[Draft] = []
        for running in self._rules.values():
            if level is not None and running.level != level:
                continue
            running.floor_us, running.clock_us = max(running.floor_us, watermark_us), None
            settled_us = self._settled_us(running)
            for key in list(running.groups):
                drafts += self._settle(running, key, running.groups[key], settled_us)
        return _ordered(drafts)

    def flush(self, level: int | None = None) -> list[Draft]:
        """What groups have put off because it was costly is said, unless more of it keeps coming (`streams.correlation.eager`).

        Of the rules of a level, or all. To be called now and then, and when nothing more comes.
        """
        drafts: list[Draft] = []
        for rule_id, key in sorted(self._deferred):
            running = self._rules.get(rule_id)
            if level is not None and running is not None and running.level != level:
                continue
            group = None if running is None else running.groups.get(key)
            if group is not None:
                drafts += group.flush()
            if group is None or not group.deferred:
                self._deferred.discard((rule_id, key))
        return drafts

    def next_due_us(self) -> int | None:
        """The clock at which the next group is due; None: nothing waits for time."""
        return min((due[0][0] for due in self._due if due), default=None)

    def _settle_due(self, level: int) -> list[Draft]:
        drafts: list[Draft] = []
        due, clock_us = self._due[level], self._clocks[level]
        while due and due[0][0] <= clock_us:
            due_us, rule_id, order, key = heapq.heappop(due)
            running = self._rules.get(rule_id)
            group = None if running is None or running.active.order != order else running.groups.get(key)
            if running is None or group is None or group.scheduled_us != due_us or running.level != level:
                continue  # the group was evicted, dropped or scheduled anew
            group.scheduled_us = None
            running.touched.add(key)
            drafts += self._settle(running, key, group, self._settled_us(running))
        return _ordered(drafts)

    def _settle(self, running: Running, key: str, group: Group, watermark_us: int) -> list[Draft]:
        drafts = group.settle(watermark_us)
        _count_dropped(running, group)
        if group.empty(watermark_us):
            del running.groups[key]
        else:
            self._schedule(running, key, group)
        return drafts

    def _schedule(self, running: Running, key: str, group: Group) -> None:
        watermark_us = group.due_us()
        if watermark_us is None:
            return
        due_us = watermark_us + running.lag_us
        # What is due and still there waits for a record, not for time.
        if due_us > self._clocks[running.level] and (group.scheduled_us is None or due_us < group.scheduled_us):
            group.scheduled_us = due_us
            heapq.heappush(self._due[running.level], (due_us, running.active.id, running.active.order, key))

    def _evict(self, running: Running) -> None:
        while len(running.groups) > self._groups_max:
            key, _ = running.groups.popitem(last=False)
            running.touched.add(key)
            running.counters.evicted += 1

    # --- state ---

    def groups(self) -> Iterable[tuple[str, str]]:
        """Every (rule, group) kept, the least recently used first."""
        return [(rule_id, key) for rule_id, running in self._rules.items() for key in running.groups]

    def take_changed(self) -> set[tuple[str, str]]:
        """The groups (rule, group) that were touched since this was called last, also those that are gone."""
        found, self._gone = self._gone, set()
        for rule_id, running in self._rules.items():
            found.update([(rule_id, key) for key in running.touched])
            running.touched.clear()
        return found

    def group(self, rule_id: str, group_key: str) -> tuple[Group, int] | None:
        """A group that is kept, and the watermark up to which its records are settled. To be looked at only."""
        running = self._rules.get(rule_id)
        group = None if running is None else running.groups.get(group_key)
        if running is None or group is None:
            return None
        watermark_us = self._settled_us(running)
        if isinstance(group, SettledGroup):
            group.catch_up(watermark_us)
        return group, watermark_us

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
        group = running.groups[group_key] = self._group(running, group_key)
        group.load(state["group"])
        self._after(running, group_key, group)

    def floors_us(self) -> dict[str, int]:
        """Up to where the records of each rule were settled when it was last moved to another level."""
        return {rule_id: running.floor_us for rule_id, running in self._rules.items()}

    def resume(self, clocks_us: Sequence[int], floors_us: Mapping[str, int]) -> None:
        """Sets the clocks and floors of a loaded state, after its rules and before its groups are loaded."""
        self._clocks = [*clocks_us, *self._clocks[len(clocks_us) :]]
        self._due += [[] for _ in range(len(self._clocks) - len(self._due))]
        for rule_id, floor_us in floors_us.items():
            self._rules[rule_id].floor_us = floor_us


def _count_dropped(running: Running, group: Group) -> None:
    if group.fold.dropped:
        running.counters.overflowed += group.fold.dropped
        group.fold.dropped = 0


def _ordered(drafts: list[Draft]) -> list[Draft]:
    # A group says all that it has at once; between groups the order is that of event time, whatever the steps of the clock.
    drafts.sort(key=lambda draft: (draft.found.window_end_us, draft.rule_id, draft.group_key))
    return drafts
