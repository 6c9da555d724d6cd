"""Matching and correlation in one partition, with chaining: records in, composites out. Pure; for trials and backtests.

A composite is matched like a record. In the order of records it comes right after the one that fired it; in time it is said before
the rules that read it are asked what the clock allows them. When it is revised, what those rules had read is revised too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from streams.correlation.actions import as_json
from streams.correlation.engine import Engine
from streams.correlation.explain import composite
from streams.correlation.index import Hit, RuleIndex
from streams.correlation.payload import payload_of
from streams.correlation.rules import ActiveRule
from streams.correlation.seen import Draft, Seen
from streams.matching.matchers import RecordView
from streams.records import CompositeEvent, to_micros
from streams.topics import COMPOSITES

_Read = dict[tuple[str, str], Seen]  # (rule, group) → the composite as that rule reads it


class Chain:
    """Some rules over one sequence of records."""

    def __init__(self, rules: Sequence[ActiveRule]) -> None:
        self.engine = Engine()
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
        drafts: list[Draft] = []
        for hit in hits:
            drafts += self.engine.feed(hit.active.id, hit.group_key, seen_of(view, hit), arrival)
        return self._said(drafts) if drafts else ()

    def advance(self, clock_us: int) -> Iterator[CompositeEvent]:
        """Event time has come to `clock_us`."""
        for level in self.engine.levels:
            drafts = self.engine.advance(clock_us, level)
            if drafts:
                yield from self._said(drafts)

    def flush(self) -> Iterator[CompositeEvent]:
        """See `Engine.flush`."""
        yield from self._said(self.engine.flush())

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
                yield from self._said(self._chain(draft, said))

    def _chain(self, draft: Draft, said: CompositeEvent) -> list[Draft]:
        after = {} if draft.retracted else self._read(draft, said)
        before: _Read = {}
        if draft.before is not None:
            earlier = Draft(draft.rule_id, draft.group_key, draft.composite_id, draft.before, place=draft.place)
            before = self._read(earlier, composite(self._rules[draft.rule_id], earlier))
        drafts: list[Draft] = []
        for rule_id, key in dict.fromkeys((*before, *after)):
            was, now = before.get((rule_id, key)), after.get((rule_id, key))
            drafts += self.engine.revise(rule_id, None if was is None else (key, was), None if now is None else (key, now), draft.place[0])
        return drafts

    def _read(self, draft: Draft, said: CompositeEvent) -> _Read:
        level = self.engine.level(draft.rule_id)
        view = RecordView(composite_plain(said))
        after = (*draft.place, level)
        return {
            (hit.active.id, hit.group_key): seen_of(view, hit)._replace(after=after)
            for hit in self.index.hits(COMPOSITES, view)
            if self.engine.level(hit.active.id) > level
        }


def composite_plain(said: CompositeEvent) -> dict[str, Any]:
    """A composite as matching sees it: its fields, `data` as JSON text, `time` in microseconds."""
    return {**as_json(said), "source": said.source, "time": to_micros(said.time), "data": orjson.dumps(said.data).decode()}


def seen_of(view: RecordView, hit: Hit) -> Seen:
    """What the engine keeps of a record for the rule that it hit."""
    record_id, type_, source, tenant, correlation_id, text, _ = view.essentials()
    data, _ = payload_of(hit.active.rule, text, lambda: view.data)
    return Seen(view.time_us, record_id, type_, source, tenant, correlation_id, hit.names, data, hit.value)
