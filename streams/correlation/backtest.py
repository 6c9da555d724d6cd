"""Rules over records of the history, in the order of event time: the worker's index and engine, nothing emitted. Pure.

Records come as columns, as the history answers (`streams.correlation.history_queries`), block by block; memory does not grow with
their number. In the order of event time no record is late, and event time moves with the records that the rules may be about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from streams.correlation.chain import Chain
from streams.correlation.history_queries import BASE, STRUCTURED, Selection, alias
from streams.correlation.rules import ActiveRule
from streams.correlation.running import BEGINNING_US
from streams.errors import Defect
from streams.matching.matchers import RecordView
from streams.matching.paths import MISSING
from streams.records import CompositeEvent

#: Groups of a rule that the summary counts; beyond it those with the fewest composites are forgotten.
_GROUPS_MAX = 20_000
#: Groups that are told.
GROUPS_TOLD = 20
#: Records between two looks for what groups have put off (`Engine.flush`).
_FLUSH_RECORDS = 1000
#: Steps of event time, as of the workers' clocks: what a rule says does not depend on them, what it costs does.
_STEP_US = 100_000

Columns = Mapping[str, Sequence[Any]]  #: answers of the history: column → its values


@dataclass(slots=True)
class RuleSummary:
    """What one rule would have said."""

    composites: int = 0
    matched: int = 0
    duplicates: int = 0
    errors: int = 0  #: records on which an expression failed, of those that were read
    days: Counter[str] = field(default_factory=Counter)  #: day (UTC) of `window_end` → composites
    groups: Counter[str] = field(default_factory=Counter)  #: group as text → composites

    def count(self, said: CompositeEvent) -> None:
        """A composite is said, or one that was said is taken back."""
        by = -1 if said.retracted else 0 if said.revision else 1
        self.composites += by
        self.days[said.window_end.date().isoformat()] += by
        self.groups[said.subject] += by
        if len(self.groups) > _GROUPS_MAX:
            self.groups = Counter(dict(self.groups.most_common(_GROUPS_MAX // 2)))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "composites": self.composites, "matched": self.matched, "duplicates": self.duplicates, "errors": self.errors,
            "days": {day: count for day, count in sorted(self.days.items()) if count},
            "groups": [{"group": group, "composites": count} for group, count in self.groups.most_common(GROUPS_TOLD) if group and count],
        }  # fmt: skip


class Backtest:
    """One run. `silent`: rules that only feed the others; what they say is not told."""

    def __init__(self, rules: Sequence[ActiveRule], selection: Selection, *, silent: Iterable[str] = ()) -> None:
        self._chain = Chain(rules, in_order=True)
        self._silent = frozenset(silent)
        self._layouts = _layouts(selection)
        self._fields = selection.fields
        self._last_us = BEGINNING_US
        self._advance_us = BEGINNING_US
        self.records = 0
        self.rules = {active.id: RuleSummary() for active in rules if active.id not in self._silent}

    def block(self, columns: Columns) -> Iterator[CompositeEvent]:
        """The next records, none before the last; the composites that they lead to."""
        chain = self._chain
        for topic, view in _views(self._layouts, self._fields, columns):
            self.records += 1
            time_us = view.time_us
            if time_us >= self._advance_us:
                yield from self._told(chain.advance(time_us))
                self._advance_us = time_us + _STEP_US
            elif time_us < self._last_us:
                raise Defect("backtest.order", "The history gave records out of their order.")
            self._last_us = time_us
            said = chain.record(topic, view, self.records)
            if said:
                yield from self._told(said)
            if self.records % _FLUSH_RECORDS == 0:
                yield from self._told(chain.flush())

    def finish(self, until_us: int) -> Iterator[CompositeEvent]:
        """The end of the period: what it decides is said, what lies open stays so."""
        for _ in range(2):  # the first only notes that nothing more has come
            yield from self._told(self._chain.flush())
        yield from self._told(self._chain.finish(until_us))
        errors = self._chain.index.errors
        for rule_id, summary in self.rules.items():
            counters = self._chain.engine.counters(rule_id)
            summary.matched, summary.duplicates = counters.matched, counters.duplicates
            summary.errors = errors.get(rule_id, 0)

    def _told(self, composites: Iterable[CompositeEvent]) -> Iterator[CompositeEvent]:
        for said in composites:
            summary = self.rules.get(said.rule_id)
            if summary is not None:
                summary.count(said)
                yield said


class _RowView(RecordView):
    """A record of the most common kind, seen without a mapping of its fields: only who asks for one has it made."""

    __slots__ = ("_names", "_row")

    def __init__(self, names: Sequence[str], row: tuple[Any, ...]) -> None:
        self._names = names
        self._row = row
        self._plain = self._values = None
        self._data = MISSING
        self.type = row[1]
        self.time_us = row[3]

    @property
    def plain(self) -> Mapping[str, Any]:
        """See `RecordView.plain`."""
        if self._plain is None:
            self._plain = dict(zip(self._names, self._row, strict=True))
        return self._plain

    def essentials(self) -> tuple[str, str, str, str, str, str, int]:
        """See `RecordView.essentials`; nobody asks for the last here."""
        row = self._row
        return row[0], row[1], row[2], row[4] or "default", row[5], row[6], 0

    def text(self, name: str) -> str:
        """See `RecordView.text`."""
        return self._row[6] if name == "data" else super().text(name)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How the records of a table lie in the answers' columns."""

    names: tuple[str, ...]  #: of the record's fields
    places: tuple[int, ...]  #: where they are among the columns
    structured: frozenset[str]  #: of those: what comes as JSON text
    whole: bool  #: whether they are all of the columns, as they come


def _layouts(selection: Selection) -> list[_Layout]:
    assert selection.fields[: len(BASE)] == BASE, "what every match keeps comes first"
    found = []
    for table in selection.tables:
        names = selection.fields_of(table)
        places = tuple(selection.fields.index(name) for name in names)
        structured = frozenset(names) & STRUCTURED
        found.append(_Layout(names, places, structured, not structured and names == selection.fields))
    return found


def _views(layouts: Sequence[_Layout], fields: Sequence[str], columns: Columns) -> Iterator[tuple[str, RecordView]]:
    """(topic, record) of the rows. A record has the fields of its own kind, so that an expression finds what it would find live."""
    rows = zip(*(columns[alias(name)] for name in fields), strict=True)
    for table, topic, row in zip(columns["_table"], columns["_topic"], rows, strict=True):
        layout = layouts[table]
        yield topic, _RowView(layout.names, row) if layout.whole else RecordView(_plain(layout, row))


def _plain(layout: _Layout, row: tuple[Any, ...]) -> dict[str, Any]:
    plain = {name: row[place] for name, place in zip(layout.names, layout.places, strict=True)}
    for name in layout.structured:
        plain[name] = None if plain[name] is None else orjson.loads(plain[name])
    return plain
