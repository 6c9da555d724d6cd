"""The index over the matchers of many rules: which rules a record concerns, and with which group.

Per topic and type the candidates are found once and remembered; among them, those that require a field to equal a text are looked
up by that text. So a record pays only for rules whose type globs and required text it satisfies. Pure; a new set of rules is a
new index.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from streams import limits
from streams.correlation.figures import value_of
from streams.correlation.rules import ActiveRule, Rule
from streams.matching.expressions import ExpressionFailed
from streams.matching.globs import is_literal
from streams.matching.matchers import DEFAULT_TOPICS, CompiledMatcher, RecordView
from streams.matching.paths import MISSING, Path, canonical, compile_path
from streams.matching.reading import Steps, value_at
from streams.records import iso

_TYPES_REMEMBERED_MAX = 10_000


class Hit(NamedTuple):
    """A record satisfies matchers `names` of a rule, within the group `group_key` (canonical JSON list of its values)."""

    active: ActiveRule
    names: tuple[str, ...]
    group_key: str
    value: Any = None  #: of the condition's field, as figures take it


_new_hit = tuple.__new__


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One matcher of one rule with the paths of its group."""

    number: int  #: among all candidates, in the order of rules and matchers
    place: int  #: of the rule among the rules
    active: ActiveRule
    matcher: CompiledMatcher
    group: tuple[Path | None, ...]  #: None: an alias that does not speak of this matcher
    names: tuple[str, ...]  #: the matcher's, alone
    field: str | None  #: of the payload, if that is all that the group consists of

    def group_key(self, view: RecordView) -> str | None:
        """The group's canonical text; None if the record lacks a value.

        Raises `ExpressionFailed` if the record cannot be read, or the text is too long for a key of matches and composites.
        """
        if not self.group:
            return "[]"
        if self.field is not None:  # most groups: by one field of the payload
            data = view.data
            value = data.get(self.field) if type(data) is dict else None
            if value is None:
                return None
            if type(value) is str:
                return _key_of_text(value)
            return f"[{value}]" if type(value) is int else _key_of([value])
        found = []
        for path in self.group:
            value = MISSING if path is None else path.within(view.root(path.root))
            if value is MISSING:
                return None
            found.append(value)
        return _key_of(found)


@dataclass(slots=True)
class Bucket:
    """The candidates of a topic and type."""

    open: list[_Candidate] = field(default_factory=list)  #: those that require no text
    keyed: dict[Steps, dict[str, list[_Candidate]]] = field(default_factory=dict)  #: path → text → those that require it there
    alone: dict[Steps, list[_Candidate]] = field(default_factory=dict)  #: of `keyed`: the only candidates of their rules here
    beside: dict[Steps, list[_Candidate]] = field(default_factory=dict)  #: of `keyed`: the others
    lacking: Counter[Steps] = field(default_factory=Counter)  #: records in which the path does not exist

    def __bool__(self) -> bool:
        return bool(self.open or self.keyed)


class RuleIndex:
    """The matchers of a set of rules."""

    def __init__(self, rules: Sequence[ActiveRule]) -> None:
        self._candidates: list[_Candidate] = []
        for place, active in enumerate(rules):
            self._candidates += _compiled(len(self._candidates), place, active)
        self._exact: dict[str, list[int]] = {}  # type → candidates that name it
        self._first: dict[str, list[int]] = {}  # first segment → candidates with a glob that begins with it
        self._any: list[int] = []  # the others
        for candidate in self._candidates:
            self._place(candidate)
        self._values = {active.id: _value_path(active.rule) for active in rules}
        self._by_type: dict[tuple[str | None, str], Bucket] = {}
        self._buckets: dict[tuple[int, ...], Bucket] = {}  # candidates → their bucket: many types share one
        self._errors: Counter[str] = Counter()
        self._last_errors: dict[str, str] = {}
        self.rules = tuple(rules)
        read = frozenset(before for active in rules for before in active.rule.upstream)
        #: Rules that read composites, and rules whose composites are read.
        self.chained = frozenset(active.id for active in rules if active.rule.upstream or active.id in read)
        self.topics = frozenset(topic for candidate in self._candidates for topic in candidate.matcher.topics or DEFAULT_TOPICS)

    @property
    def errors(self) -> dict[str, int]:
        """Rule → records on which one of its expressions failed. A required field that does not exist is a failure."""
        found = Counter(self._errors)
        for bucket in self._buckets.values():
            for steps, count in bucket.lacking.items():
                for candidate in bucket.alone.get(steps, ()):
                    found[candidate.active.id] += count
        return dict(found)

    @property
    def last_errors(self) -> dict[str, str]:
        """Rule → why one of its expressions failed last; a field that it requires and some record lacked, if none did."""
        found = {
            candidate.active.id: f"{candidate.matcher.name}: a record has no {'.'.join(steps)}"
            for bucket in self._buckets.values()
            for steps in bucket.lacking
            for candidate in bucket.alone.get(steps, ())
        }
        return found | self._last_errors

    def _place(self, candidate: _Candidate) -> None:
        for pattern in candidate.matcher.patterns or ("**",):
            first = pattern.partition(".")[0]
            if is_literal(pattern):
                self._exact.setdefault(pattern, []).append(candidate.number)
            elif is_literal(first):
                self._first.setdefault(first, []).append(candidate.number)
            else:
                self._any.append(candidate.number)

    def candidates(self, topic: str | None, record_type: str) -> Bucket:
        """What records of this type in this topic can concern; empty: the record need not be read any further."""
        key = (topic, record_type)
        found = self._by_type.get(key)
        if found is None:
            looked_at = {*self._any, *self._exact.get(record_type, ()), *self._first.get(record_type.partition(".")[0], ())}
            fitting = tuple(index for index in sorted(looked_at) if self._candidates[index].matcher.concerns(topic, record_type))
            found = self._buckets.get(fitting)
            if found is None:
                found = self._buckets[fitting] = _bucket([self._candidates[index] for index in fitting])
            if len(self._by_type) >= _TYPES_REMEMBERED_MAX:
                self._by_type.clear()
            self._by_type[key] = found
        return found

    def hits(self, topic: str | None, view: RecordView) -> list[Hit]:
        """What the record satisfies, in the order of the rules; one hit per rule and group. A failing expression is counted, no hit."""
        bucket = self.candidates(topic, view.type)
        return self.hits_of(bucket, view) if bucket else []

    def hits_of(self, bucket: Bucket, view: RecordView) -> list[Hit]:
        """As `hits`, given the candidates for records of this topic and type."""
        if not bucket.keyed and len(bucket.open) == 1:
            return self._hits_of_one(bucket.open[0], view)
        found: dict[tuple[int, str], tuple[str, ...]] = {}
        failed: dict[str, str] = {}
        for candidate in self._concerned(bucket, view, failed):
            matcher = candidate.matcher
            try:
                if not matcher.bare:
                    where = not matcher.required_is_all or not self._satisfied(candidate, view)
                    if not matcher.holds(view, where=where):
                        continue
                key = candidate.group_key(view)
                if key is not None:
                    place = (candidate.place, key)
                    found[place] = (*found[place], matcher.name) if place in found else candidate.names
            except ExpressionFailed as error:
                failed[candidate.active.id] = f"{matcher.name}: {error}"
        hits = []
        for (number, key), names in found.items():
            active = self.rules[number]
            try:
                value = self._value(active, view)
            except ExpressionFailed as error:
                failed[active.id] = str(error)
                continue
            if value is not MISSING:
                hits.append(Hit(active, names, key, value))
        if failed:
            self._errors.update(failed.keys())
            self._last_errors.update(failed)
        return hits

    def _hits_of_one(self, candidate: _Candidate, view: RecordView) -> list[Hit]:
        """As `hits_of`, of the only candidate there is."""
        active, matcher = candidate.active, candidate.matcher
        failing = f"{matcher.name}: "
        try:
            if not matcher.bare and not matcher.holds(view):
                return []
            key = candidate.group_key(view)
            if key is None:
                return []
            failing = ""
            value = self._value(active, view)
        except ExpressionFailed as error:
            self._errors[active.id] += 1
            self._last_errors[active.id] = f"{failing}{error}"
            return []
        return [] if value is MISSING else [_new_hit(Hit, (active, candidate.names, key, value))]

    def costs(self, topic: str | None, view: RecordView, clock: Callable[[], float]) -> dict[str, float]:
        """What each rule's matchers cost on this record, by `clock`; nothing is counted. For records that turned out to be slow."""
        spent: dict[str, float] = {}
        for candidate in self._concerned(self.candidates(topic, view.type), view, {}):
            began = clock()
            with contextlib.suppress(ExpressionFailed):
                if candidate.matcher.holds(view):
                    candidate.group_key(view)
            spent[candidate.active.id] = spent.get(candidate.active.id, 0.0) + clock() - began
        return spent

    def without(self, rule_ids: Collection[str]) -> RuleIndex:
        """An index of the other rules."""
        return RuleIndex([active for active in self.rules if active.id not in rule_ids])

    def _concerned(self, bucket: Bucket, view: RecordView, failed: dict[str, str]) -> Iterable[_Candidate]:
        if not bucket.keyed:
            return bucket.open
        try:
            _ = view.data
        except ExpressionFailed as error:
            keyed = (candidate for by_text in bucket.keyed.values() for found in by_text.values() for candidate in found)
            failed.update((candidate.active.id, str(error)) for candidate in keyed)
            return bucket.open
        concerned = list(bucket.open)
        for steps, by_text in bucket.keyed.items():
            value = value_at(view.root(steps[0]), steps[1:], MISSING)
            if value is MISSING:
                bucket.lacking[steps] += 1
                concerned += bucket.beside.get(steps, ())
            elif type(value) is str:
                concerned += by_text.get(value, ())
        concerned.sort(key=lambda candidate: candidate.number)
        return concerned

    def _satisfied(self, candidate: _Candidate, view: RecordView) -> bool:
        return all(value_at(view.root(steps[0]), steps[1:], MISSING) == text for steps, text in candidate.matcher.required.items())

    def _value(self, active: ActiveRule, view: RecordView) -> Any:
        """Of the condition's field; `MISSING` if the record takes no part, None if there is no field."""
        path = self._values[active.id]
        return None if path is None else value_of(active.rule.type, path.within(view.root(path.root)))


def _compiled(first: int, place: int, active: ActiveRule) -> list[_Candidate]:
    rule = active.rule
    used = [matcher for matcher in rule.matchers if matcher.name in rule.names]
    return [
        _Candidate(
            number, place, active, CompiledMatcher(matcher),
            paths := tuple(_group_path(rule, entry, matcher.name) for entry in rule.group_by), (matcher.name,), _field(paths),
        )
        for number, matcher in enumerate(used, first)
    ]  # fmt: skip


def _bucket(candidates: Sequence[_Candidate]) -> Bucket:
    bucket = Bucket()
    of_rule = Counter(candidate.place for candidate in candidates)
    for candidate in candidates:
        required = candidate.matcher.required
        if not required:
            bucket.open.append(candidate)
            continue
        steps, text = next(iter(required.items()))
        bucket.keyed.setdefault(steps, {}).setdefault(text, []).append(candidate)
        (bucket.alone if of_rule[candidate.place] == 1 else bucket.beside).setdefault(steps, []).append(candidate)
    return bucket


def _group_path(rule: Rule, entry: str, name: str) -> Path | None:
    paths = rule.aliases.get(entry)
    if paths is None:
        return compile_path(entry)
    return compile_path(paths[name]) if name in paths else None


def _field(paths: tuple[Path | None, ...]) -> str | None:
    if len(paths) != 1 or paths[0] is None or paths[0].root != "data" or len(paths[0].steps) != 1:
        return None
    step = paths[0].steps[0]
    return step if isinstance(step, str) else None


def _value_path(rule: Rule) -> Path | None:
    return None if rule.condition.field is None else compile_path(rule.condition.field)


@lru_cache(maxsize=65_536)
def _key_of_text(value: str) -> str:
    return _key_of([value])


def _key_of(values: list[Any]) -> str:
    alike = [value if type(value) is str or type(value) is int else orjson.Fragment(_text(value)) for value in values]
    text = orjson.dumps(alike).decode()
    if len(text) > limits.GROUP_KEY_CHARACTERS_MAX:
        raise ExpressionFailed(f"the text of the group has more than {limits.GROUP_KEY_CHARACTERS_MAX} characters")
    return text


def _text(value: Any) -> str:
    return canonical(iso(value) if isinstance(value, datetime) else value)
