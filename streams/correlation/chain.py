"""Matching and correlation in one partition, with chaining: records in, composites out. Pure; for trials and backtests.

A composite is matched like a record. In the order of records it comes right after the one that fired it; in time it is said before
the rules that read it are asked what the clock allows them. When it is revised, what those rules had read is revised too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from streams.correlation.composites import Link, Read, Reading, composite_plain, link_of, readings, seen_of
from streams.correlation.engine import Engine
from streams.correlation.explain import composite
from streams.correlation.index import Hit, RuleIndex
from streams.correlation.rules import ActiveRule
from streams.correlation.seen import Draft, Seen
from streams.matching.matchers import RecordView
from streams.records import CompositeEvent


class Chain:
    """Some rules over one sequence of records."""

    def __init__(self, rules: Sequence[ActiveRule], *, in_order: bool = False) -> None:
        """`in_order`: as of `Engine`."""
        self.engine = Engine(in_order=in_order)
        for rule in rules:
            self.engine.use(rule)
        self.index = RuleIndex(rules)
        self._chained = any(active.rule.upstream for active in rules)
        self._rules = {active.id: active for active in rules}
        self.made_from: Draft | None = None  #: of the composite given last

    def record(self, topic: str | None, view: RecordView, arrival: int) -> Iterable[CompositeEvent]:
        """The next record to arrive, after `advance` to its time. Few records say something: then it gives no iterator at all."""
        hits = self.index.hits(topic, view)
        if not hits:
            return ()
        if self._chained:
            return self._record_by_level(hits, view, arrival)
        drafts: list[Draft] = []
        for hit in hits:
            drafts += self.engine.feed(hit.active.id, hit.group_key, seen_of(view, hit), (arrival,))
        return self._said(drafts) if drafts else ()

    def _record_by_level(self, hits: Sequence[Hit], view: RecordView, arrival: int) -> Iterator[CompositeEvent]:
        """Level by level: what a rule says may revise what a rule above it says of the same record, so that is said later."""
        for hit in sorted(hits, key=lambda hit: self.engine.level(hit.active.id)):
            yield from self._said(self.engine.feed(hit.active.id, hit.group_key, seen_of(view, hit), (arrival,)))

    def advance(self, clock_us: int) -> Iterator[CompositeEvent]:
        """Event time has come to `clock_us`."""
        for level in self.engine.levels:
            drafts = self.engine.advance(clock_us, level)
            if drafts:
                yield from self._said(drafts)

    def flush(self) -> Iterator[CompositeEvent]:
        """See `Engine.flush`."""
        for level in self.engine.levels:
            yield from self._said(self.engine.flush(level))

    def finish(self, watermark_us: int) -> Iterator[CompositeEvent]:
        """The watermark of every rule moves to `watermark_us`, at the end."""
        for level in self.engine.levels:
            yield from self._said(self.engine.finish(watermark_us, level))

    def _said(self, drafts: Iterable[Draft]) -> Iterator[CompositeEvent]:
        for draft in drafts:
            said = composite(self._rules[draft.rule_id], draft)
            self.made_from = draft
            yield said
            if self._chained:
                yield from self._chain(draft, said)

    def _chain(self, draft: Draft, said: CompositeEvent) -> Iterator[CompositeEvent]:
        """Reader by reader: what one says may be read by the next, whose later revision must not be said before an earlier one."""
        link = link_of(self.engine, draft, said)
        if link is None:
            return
        for reading in readings(self.index, composite_plain(said), link, retracted=said.retracted):
            was, now = self._fed(reading, reading.before, link), self._fed(reading, reading.after, link)
            yield from self._said(self.engine.revise(reading.rule_id, was, now, link.place[0]))

    @staticmethod
    def _fed(reading: Reading, read: Read | None, link: Link) -> tuple[str, Seen] | None:
        return None if read is None else (reading.group_key, seen_of(*read)._replace(after=(*link.place, link.level)))
