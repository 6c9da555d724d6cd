"""What happened to the records of each rule, put together over all partitions and workers. Pure.

The correlate stage counts in the state of its partition, since a version of a rule is in use: those figures survive takeovers.
The match stage counts since its worker has started.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streams.correlation.counters import Counters
from streams.correlation.engine import Engine
from streams.correlation.index import Hit, RuleIndex
from streams.correlation.rules import ActiveRule
from streams.records import Json, from_micros, iso

#: Ids named as examples.
EXAMPLES_MAX = 5
#: Characters of an error that are told.
_ERROR_CHARACTERS_MAX = 300

_SUMMED = (
    "matched", "late", "duplicates", "evicted", "overflowed", "composites", "revised", "groups", "errors", "ahead", "performed", "given_up",
    "waiting",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The figures of one rule."""

    version: int = 0
    order: int = -1
    matched: int = 0  #: records that satisfied a matcher, once per group
    late: int = 0
    duplicates: int = 0
    evicted: int = 0  #: groups that were forgotten because there were too many
    overflowed: int = 0  #: records that groups no longer name because there are too many
    composites: int = 0
    revised: int = 0  #: composites said again or taken back
    groups: int = 0  #: kept now
    errors: int = 0  #: records on which an expression of the rule failed
    ahead: int = 0  #: records too far ahead of their arrival
    performed: int = 0  #: actions
    given_up: int = 0  #: actions that are among the dead letters
    waiting: int = 0  #: actions in memory that are not done yet
    names: Mapping[str, int] = field(default_factory=dict)  #: matcher → records that satisfied it
    last_us: Mapping[str, int] = field(default_factory=dict)  #: matcher → time of the newest of them, microseconds
    last_matched_us: int | None = None
    late_ids: tuple[str, ...] = ()
    late_by_us: int = 0
    ahead_ids: tuple[str, ...] = ()
    last_error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **{name: getattr(self, name) for name in _SUMMED},
            "matchers": {
                name: {"matched": self.names[name], "last": _text(self.last_us.get(name))} for name in sorted(self.names)
            },
            "last_matched": _text(self.last_matched_us), "late_ids": list(self.late_ids), "late_by_ms": self.late_by_us // 1000,
            "ahead_ids": list(self.ahead_ids), "last_error": self.last_error,
        }  # fmt: skip


class MatchTallies:
    """What a match stage counts by rule, over changes of the rules: a rule that stays goes on counting."""

    def __init__(self) -> None:
        self._index = RuleIndex([])
        self._errors: dict[str, int] = {}  # of earlier indices
        self._by_rule: dict[str, _Matched] = {}

    def use(self, index: RuleIndex) -> None:
        """The stage matches by this index from here on."""
        before = {active.id: active.order for active in self._index.rules}
        stays = {active.id for active in index.rules if before.get(active.id) == active.order}
        errors = self._index.errors
        self._errors = {rule_id: self._errors.get(rule_id, 0) + errors.get(rule_id, 0) for rule_id in stays}
        kept = self._index.last_errors
        self._by_rule = {active.id: self._by_rule[active.id] if active.id in stays else _Matched(active) for active in index.rules}
        for rule_id in stays:
            self._by_rule[rule_id].last_error = kept.get(rule_id, self._by_rule[rule_id].last_error)
        self._index = index

    def hit(self, hit: Hit, time_us: int) -> None:
        """A record satisfied matchers of a rule."""
        matched = self._by_rule[hit.active.id]
        for name in hit.names:
            matched.names[name] = matched.names.get(name, 0) + 1
            if time_us > matched.last_us.get(name, time_us - 1):
                matched.last_us[name] = time_us

    def ahead(self, rule_id: str, record_id: str) -> None:
        """A record that satisfied matchers of a rule was too far ahead of its arrival."""
        matched = self._by_rule[rule_id]
        matched.ahead += 1
        matched.ahead_ids.append(record_id)
        del matched.ahead_ids[:-EXAMPLES_MAX]

    def figures(self) -> dict[str, Json]:
        """By rule, as JSON."""
        errors, last = self._index.errors, self._index.last_errors
        return {
            rule_id: {
                **matched.figures(), "errors": self._errors.get(rule_id, 0) + errors.get(rule_id, 0),
                "last_error": last.get(rule_id, matched.last_error)[:_ERROR_CHARACTERS_MAX],
            }
            for rule_id, matched in self._by_rule.items()
        }  # fmt: skip


class _Matched:
    """One rule at one match stage."""

    def __init__(self, active: ActiveRule) -> None:
        self._active = active
        self.names: dict[str, int] = {}
        self.last_us: dict[str, int] = {}
        self.ahead = 0
        self.ahead_ids: list[str] = []
        self.last_error = ""

    def figures(self) -> dict[str, Json]:
        return {
            "version": self._active.version, "order": self._active.order, "names": dict(self.names),
            "last_us": dict(self.last_us), "ahead": self.ahead, "ahead_ids": list(self.ahead_ids),
        }  # fmt: skip


def engine_figures(engine: Engine) -> dict[str, Json]:
    """The rules of one correlate partition: by rule, as JSON."""
    return {active.id: _counted(active, engine.counters(active.id), engine.group_count(active.id)) for active in engine.rules()}


def _counted(active: ActiveRule, counters: Counters, groups: int) -> dict[str, Json]:
    return {
        "version": active.version, "order": active.order, "matched": counters.matched, "late": counters.late,
        "duplicates": counters.duplicates, "evicted": counters.evicted, "overflowed": counters.overflowed,
        "composites": counters.composites, "revised": counters.revised, "groups": groups, "last_matched_us": counters.last_us,
        "late_ids": list(counters.late_ids), "late_by_us": counters.late_by_us,
    }  # fmt: skip


def merged(parts: Iterable[Mapping[str, Json]]) -> dict[str, Tally]:
    """Rule → its figures over all parts (of partitions and of workers). Of several versions only the newest counts."""
    by_rule: dict[str, list[Json]] = {}
    for part in parts:
        for rule_id, figures in part.items():
            by_rule.setdefault(rule_id, []).append(figures)
    return {rule_id: _merged(found) for rule_id, found in by_rule.items()}


def _merged(parts: list[Json]) -> Tally:
    order = max(part["order"] for part in parts)
    parts = [part for part in parts if part["order"] == order]
    names: dict[str, int] = {}
    last_us: dict[str, int] = {}
    for part in parts:
        for name, count in part.get("names", {}).items():
            names[name] = names.get(name, 0) + count
        for name, time_us in part.get("last_us", {}).items():
            last_us[name] = max(last_us.get(name, time_us), time_us)
    return Tally(
        version=max(part["version"] for part in parts), order=order, names=names, last_us=last_us,
        last_matched_us=max((part["last_matched_us"] for part in parts if part.get("last_matched_us") is not None), default=None),
        late_ids=_examples(parts, "late_ids"), late_by_us=max(part.get("late_by_us", 0) for part in parts),
        ahead_ids=_examples(parts, "ahead_ids"), last_error=next((part["last_error"] for part in parts if part.get("last_error")), ""),
        **{name: sum(part.get(name, 0) for part in parts) for name in _SUMMED},
    )  # fmt: skip


def _examples(parts: list[Json], name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(example for part in parts for example in part.get(name, ())))[:EXAMPLES_MAX]


def _text(time_us: int | None) -> str | None:
    return None if time_us is None else iso(from_micros(time_us))
