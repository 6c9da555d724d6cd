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
from streams.correlation.history_queries import STRUCTURED, Selection, alias
from streams.correlation.rules import ActiveRule
from streams.errors import Defect
from streams.matching.matchers import RecordView
from streams.records import CompositeEvent

#: Groups of a rule that the summary counts; beyond it those with the fewest composites are forgotten.
_GROUPS_MAX = 20_000
#: Groups that are told.
GROUPS_TOLD = 20
#: Records between two looks for what groups have put off (`Engine.flush`).
_FLUSH_RECORDS = 1000

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
        self._chain = Chain(rules)
        self._silent = frozenset(silent)
        self._layouts = _layouts(selection)
        self._last_us: int | None = None
        self.records = 0
        self.rules = {active.id: RuleSummary() for active in rules if active.id not in self._silent}

    def block(self, columns: Columns) -> Iterator[CompositeEvent]:
        """The next records, none before the last; the composites that they lead to."""
        chain = self._chain
        for topic, plain in _plains(self._layouts, columns):
            self.records += 1
            time_us = plain["time"]
            if time_us != self._last_us:
                if self._last_us is not None and time_us < self._last_us:
                    raise Defect("backtest.order", "The history gave records out of their order.")
                self._last_us = time_us
                yield from self._told(chain.advance(time_us))
            yield from self._told(chain.record(topic, RecordView(plain), self.records))
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


_Layout = list[tuple[str, str, bool]]  # (field, column, whether it is JSON text) of the records of a table


def _layouts(selection: Selection) -> list[_Layout]:
    return [[(name, alias(name), name in STRUCTURED) for name in selection.fields_of(table)] for table in selection.tables]


def _plains(layouts: Sequence[_Layout], columns: Columns) -> Iterator[tuple[str, dict[str, Any]]]:
    """(topic, fields) of the rows. A record has the fields of its own kind, so that an expression finds what it would find live."""
    if len(layouts) == 1 and not any(structured for _, _, structured in layouts[0]):
        names = [name for name, _, _ in layouts[0]]
        rows = zip(*(columns[column] for _, column, _ in layouts[0]), strict=True)
        yield from zip(columns["_topic"], (dict(zip(names, row, strict=True)) for row in rows), strict=True)
        return
    for number, (table, topic) in enumerate(zip(columns["_table"], columns["_topic"], strict=True)):
        plain = {}
        for name, column, structured in layouts[table]:
            value = columns[column][number]
            plain[name] = orjson.loads(value) if structured and value is not None else value
        yield topic, plain
