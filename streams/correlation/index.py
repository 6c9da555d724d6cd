"""The index over the matchers of many rules: which rules a record concerns, and with which group.

Per topic and type the candidates are found once and remembered, so that a record pays only for rules whose type globs it
satisfies. Pure; a new set of rules is a new index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from streams.correlation.rules import ActiveRule, Rule
from streams.matching.expressions import ExpressionFailed
from streams.matching.matchers import DEFAULT_TOPICS, CompiledMatcher, RecordView
from streams.matching.paths import MISSING, Path, canonical, compile_path
from streams.records import iso

_TYPES_REMEMBERED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Hit:
    """A record satisfies matchers `names` of a rule, within the group `group_key` (canonical JSON list of its values)."""

    active: ActiveRule
    names: tuple[str, ...]
    group_key: str


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One matcher of one rule with the paths of its group."""

    matcher: CompiledMatcher
    group: tuple[Path | None, ...]  #: None: an alias that does not speak of this matcher

    def group_key(self, view: RecordView) -> str | None:
        """The group's canonical text; None if the record lacks a value. Raises `ExpressionFailed` if the record cannot be read."""
        if not self.group:
            return "[]"
        values = view.values
        found = [MISSING if path is None else path.get(values) for path in self.group]
        return None if any(value is MISSING for value in found) else "[" + ",".join(_text(value) for value in found) + "]"


_Candidates = list[tuple[ActiveRule, list[_Candidate]]]


class RuleIndex:
    """The matchers of a set of rules. `any_topic`: matchers without a topic read every topic (trials)."""

    def __init__(self, rules: Sequence[ActiveRule], *, any_topic: bool = False) -> None:
        self._rules: _Candidates = [(active, _compiled(active.rule, any_topic)) for active in rules]
        self._by_type: dict[tuple[str | None, str], _Candidates] = {}
        self.rules = tuple(rules)
        self.errors: dict[str, int] = {}  #: rule → records on which one of its expressions failed
        self.topics = frozenset(
            topic for _, found in self._rules for candidate in found for topic in candidate.matcher.topics or DEFAULT_TOPICS
        )

    def candidates(self, topic: str | None, record_type: str) -> _Candidates:
        """The rules that records of this type in this topic can concern; empty: the record need not be read any further."""
        key = (topic, record_type)
        found = self._by_type.get(key)
        if found is None:
            found = []
            for active, candidates in self._rules:
                fitting = [candidate for candidate in candidates if candidate.matcher.concerns(topic, record_type)]
                if fitting:
                    found.append((active, fitting))
            if len(self._by_type) >= _TYPES_REMEMBERED_MAX:
                self._by_type.clear()
            self._by_type[key] = found
        return found

    def hits(self, topic: str | None, view: RecordView) -> list[Hit]:
        """What the record satisfies, in the order of the rules; one hit per rule and group. A failing expression is counted, no hit."""
        hits: list[Hit] = []
        for active, candidates in self.candidates(topic, view.plain["type"]):
            names: dict[str, list[str]] = {}
            failed = False
            for candidate in candidates:
                try:
                    if candidate.matcher.holds(view) and (key := candidate.group_key(view)) is not None:
                        names.setdefault(key, []).append(candidate.matcher.name)
                except ExpressionFailed:
                    failed = True
            if failed:
                self.errors[active.id] = self.errors.get(active.id, 0) + 1
            hits.extend(Hit(active, tuple(found), key) for key, found in names.items())
        return hits


def _compiled(rule: Rule, any_topic: bool) -> list[_Candidate]:
    return [
        _Candidate(CompiledMatcher(matcher, any_topic=any_topic), tuple(_group_path(rule, entry, matcher.name) for entry in rule.group_by))
        for matcher in rule.matchers
        if matcher.name in rule.names
    ]


def _group_path(rule: Rule, entry: str, name: str) -> Path | None:
    paths = rule.aliases.get(entry)
    if paths is None:
        return compile_path(entry)
    return compile_path(paths[name]) if name in paths else None


def _text(value: Any) -> str:
    return canonical(iso(value) if isinstance(value, datetime) else value)
