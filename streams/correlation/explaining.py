"""Why, and why not: how a group of a rule in force stands right now, and what may keep the rule from firing."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import orjson
from aiokafka.errors import KafkaError

from streams.bus.bus import Bus
from streams.bus.publisher import translated
from streams.correlation import control
from streams.correlation.explain import group_of
from streams.correlation.hints import Facts, hints
from streams.correlation.live import Live, live_state
from streams.correlation.parse import parse_rule
from streams.correlation.rule_changes import Stored
from streams.correlation.rules import ActiveRule, Rule, aggregate_of
from streams.correlation.running import BEGINNING_US
from streams.correlation.standing import Standing, standing
from streams.correlation.tallies import Tally
from streams.correlation.workers import behind, living
from streams.errors import InvalidInput
from streams.matching.paths import canonical
from streams.records import CompositeEvent, iso, now
from streams.topics import COMPOSITES, CONTROL_RULES, MATCHES, partition_of

#: Groups that are listed or suggested.
GROUPS_MAX = 20
#: Of so many groups the nearest by name are looked for.
_LOOKED_AT_MAX = 5000
#: Composites are looked for so far back.
_SAID_WITHIN = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """How a rule stands, in one group or in those used last."""

    rule_id: str
    version: int
    title: str
    type: str
    severity: str
    enabled: bool
    group: Mapping[str, str]  #: that was asked for; empty: none
    known: bool  #: whether anything is kept of that group
    standings: tuple[Standing, ...]  #: of that group; without one, of the groups used last
    nearest: tuple[Mapping[str, str], ...] = ()  #: groups that are called much like the one that was asked for
    groups: int = 0  #: kept in all
    last: CompositeEvent | None = None  #: what was said of the group last, within a day
    hints: tuple[str, ...] = ()
    figures: Tally | None = None
    at: datetime = field(default_factory=now)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        last = self.last
        return {
            "rule_id": self.rule_id, "version": self.version, "title": self.title, "type": self.type, "severity": self.severity,
            "enabled": self.enabled, "at": iso(self.at), "group": dict(self.group), "known": self.known,
            "standings": [each.to_dict() for each in self.standings], "nearest": [dict(each) for each in self.nearest],
            "groups": self.groups, "hints": list(self.hints),
            "last_composite": None if last is None else {
                "id": last.id, "time": iso(last.time), "explanation": last.explanation, "revision": last.revision,
                "retracted": last.retracted,
            },
            "figures": None if self.figures is None else self.figures.to_dict(),
        }  # fmt: skip


async def explain(bus: Bus, rule_id: str, group: Mapping[str, str] | None = None) -> Explanation:
    """How a group stands (`group`: value by entry of `group-by`); without one, of a rule that has groups, those used last.

    A value that is JSON (`7`, `true`) is looked for as that, too. Raises `NotFound` (`rule.unknown`) and `InvalidInput`
    (`group.invalid`), naming the entries that the rule groups by.
    """
    stored = await control.show(bus, rule_id)
    rule = parse_rule(stored.document)
    keys = group_keys(rule, group)
    try:
        states = await _states(bus, rule, keys)
        facts = await _facts(bus, stored, rule, states)
        last = await _last_said(bus, rule_id, keys)
    except KafkaError as error:
        raise translated(error, MATCHES) from error
    found = [(live, key) for live in states for key in keys if live.state.engine.group(rule_id, key) is not None]
    if keys and not found:
        states = await _states(bus, rule, ())  # the others are asked for names that are near
    everywhere = [(live, key) for live in states for of, key in live.state.engine.groups() if of == rule_id]
    if keys:
        chosen = found[:1] or [(_of_partition(states, rule_id, keys[0]), keys[0])]
    else:
        chosen = sorted(everywhere, key=lambda place: _last_us(place[0], rule_id, place[1]), reverse=True)[:GROUPS_MAX]
    active = ActiveRule(rule=rule, version=stored.record.version, order=stored.offset)
    shown = tuple(_standing(active, key, live) for live, key in chosen if not facts.unused)
    return Explanation(
        rule_id=rule_id, version=stored.record.version, title=rule.title, type=rule.type, severity=rule.severity, enabled=rule.enabled,
        group=dict(group or {}), known=bool(found), standings=shown, groups=len(everywhere), last=last, figures=facts.tally,
        nearest=() if found or not keys else _nearest(rule, keys[0], [key for _, key in everywhere]),
        hints=tuple(hints(rule, facts, shown[0] if keys and shown else None)),
    )  # fmt: skip


def group_keys(rule: Rule, group: Mapping[str, str] | None) -> list[str]:
    """The canonical texts that the group may have: as texts first; of a rule without `group-by` the one group. Raises `InvalidInput`."""
    if not rule.group_by:
        if group:
            raise InvalidInput("group.invalid", f"{rule.id} has no group-by: all its records are one group.")
        return ["[]"]
    if not group:
        return []
    if set(group) != set(rule.group_by):
        asked = ", ".join(f"{name}=…" for name in rule.group_by)
        raise InvalidInput("group.invalid", f"{rule.id} groups by {', '.join(rule.group_by)}: give {asked}, not {', '.join(group)}.")
    values = [_values(group[name]) for name in rule.group_by]
    return ["[" + ",".join(map(canonical, some)) + "]" for some in itertools.product(*values)]


def _values(text: str) -> list[Any]:
    try:
        value = orjson.loads(text)
    except ValueError:
        return [text]
    return [text] if value is None or isinstance(value, str) else [text, value]


async def _states(bus: Bus, rule: Rule, keys: Sequence[str]) -> list[Live]:
    """The partitions that the groups lie in; without groups all."""
    count = await bus.publisher.partitions(MATCHES)
    wanted = {partition_of(aggregate_of(rule.id, key), count) for key in keys} if keys else set(range(count))
    rules = await _read_rules(bus, rule)
    return [await live_state(bus, partition, rule.id, rules) for partition in sorted(wanted)]


async def _read_rules(bus: Bus, rule: Rule) -> Collection[str]:
    """The rule and all whose composites reach it."""
    upstream = {stored.record.id: parse_rule(stored.document).upstream for stored in await control.list_rules(bus)} if rule.upstream else {}
    found, waiting = {rule.id}, list(rule.upstream)
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += upstream.get(each, ())
    return found


async def _facts(bus: Bus, stored: Stored, rule: Rule, states: Sequence[Live]) -> Facts:
    workers, tallies = await living(bus)
    orders = [None if (active := live.state.engine.active(rule.id)) is None else active.order for live in states]
    clocks = [live.state.engine.clock_us for live in states]
    return Facts(
        now=now(), enabled=rule.enabled, who=stored.record.who, why=stored.record.why, since=stored.record.time,
        workers=tuple(beat.process for beat in workers),
        waiting=tuple(beat.process for beat in workers if beat.control_offsets[CONTROL_RULES] <= stored.offset),
        unused=rule.enabled and any(order != stored.offset for order in orders), clock_us=min(clocks), tally=tallies.get(rule.id),
        behind=await behind(bus),
    )  # fmt: skip


async def _last_said(bus: Bus, rule_id: str, keys: Sequence[str]) -> CompositeEvent | None:
    count = await bus.publisher.partitions(COMPOSITES)
    last: CompositeEvent | None = None
    for aggregate in (aggregate_of(rule_id, key) for key in keys):
        since, partition = now() - _SAID_WITHIN, partition_of(aggregate, count)
        async for delivered in bus.read(COMPOSITES, since=since, until_end=True, key=aggregate, partition=partition):
            if isinstance(delivered.record, CompositeEvent):
                last = delivered.record
    return last


def _standing(active: ActiveRule, key: str, live: Live) -> Standing:
    found = live.state.engine.group(active.id, key)
    group, watermark_us = (None, live.state.engine.clock_us - active.rule.grace_us) if found is None else found
    return standing(active, key, group, watermark_us)


def _of_partition(states: Sequence[Live], rule_id: str, key: str) -> Live:
    return states[partition_of(aggregate_of(rule_id, key), len(states)) if len(states) > 1 else 0]


def _last_us(live: Live, rule_id: str, key: str) -> int:
    found = live.state.engine.group(rule_id, key)
    records = () if found is None else found[0].standing()[0]
    return records[-1].time_us if records else BEGINNING_US


def _nearest(rule: Rule, key: str, others: Sequence[str]) -> tuple[Mapping[str, str], ...]:
    """Groups that are called much like this one; if none is, some of those that there are."""
    wanted = _values_text(rule, key)
    by_text = {_values_text(rule, other): other for other in others[-_LOOKED_AT_MAX:]}
    close = difflib.get_close_matches(wanted, by_text, n=5, cutoff=0.6) or list(by_text)[-5:]
    return tuple(group_of(rule, by_text[text]) for text in close)


def _values_text(rule: Rule, key: str) -> str:
    return ", ".join(group_of(rule, key).values())
