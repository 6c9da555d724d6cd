"""Backtests: asks the history in pages of bounded size, runs the rules over them, tells how far it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn, Protocol

from streams.concurrency import cancelled
from streams.correlation import control
from streams.correlation.backtest import Backtest, Columns, RuleSummary
from streams.correlation.history_queries import Query, selection
from streams.correlation.parse import parse_rule
from streams.correlation.rule_changes import Stored, canonical
from streams.correlation.rules import ActiveRule
from streams.errors import InvalidInput, NotFound, TooLarge
from streams.records import CompositeEvent, Json, iso, to_micros

#: Records of one question, and the fewest that are asked for where records are huge.
PAGE_RECORDS = 50_000
_PAGE_RECORDS_LEAST = 16
#: Buckets that the period is counted in.
_BUCKETS = 5000
_LEAST_BUCKET_US = 1_000_000
#: Records between two pauses in which the next page arrives.
_SLICE_RECORDS = 2000


class History(Protocol):
    """What answers: the gateway."""

    async def columns(self, sql: str, parameters: Mapping[str, Any], *, stale: bool = True) -> Columns:
        """The answer of one read-only statement, by column. Raises `TooLarge` when it exceeds a limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a backtest is."""

    read: int
    of: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Records read per second since the begin."""
        return self.read / self.seconds if self.seconds > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """How long it will take, seconds; None: that cannot be said yet."""
        return (self.of - self.read) / self.per_second if self.read else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What the rules would have said."""

    since: datetime
    until: datetime
    looked_at: int  #: records that the topics have in the period
    read: int  #: of those: records that a matcher could be satisfied by
    seconds: float
    rules: Mapping[str, RuleSummary]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "from": iso(self.since), "to": iso(self.until), "records": self.looked_at, "read": self.read, "seconds": round(self.seconds, 3),
            "rules": {rule_id: summary.to_dict() for rule_id, summary in self.rules.items()},
        }  # fmt: skip


class Running:
    """A backtest of some rules over a period. Iterate over `composites`, then look at `summary`."""

    def __init__(
        self, history: History, rules: Sequence[ActiveRule], since: datetime, until: datetime, *,
        silent: Sequence[ActiveRule] = (), progress: Callable[[Progress], None] | None = None, page: int = PAGE_RECORDS,
    ) -> None:  # fmt: skip
        """`silent`: rules whose composites `rules` read.

        Raises `InvalidDocument` (`rule.not-backtested`) and `InvalidInput` (`period.empty`).
        """
        if since >= until:
            raise InvalidInput("period.empty", f"The period ends ({iso(until)}) before it begins ({iso(since)}).")
        every = [*silent, *rules]
        self._history = history
        self._since, self._until = since, until
        self._selection = selection(active.rule for active in every)
        self._backtest = Backtest(every, self._selection, silent=[active.id for active in silent])
        self._progress = progress
        self._page = page
        self._looked_at = 0
        self._seconds = 0.0

    @property
    def summary(self) -> Summary:
        """What has been said so far."""
        return Summary(
            since=self._since, until=self._until, looked_at=self._looked_at, read=self._backtest.records, seconds=self._seconds,
            rules=self._backtest.rules,
        )  # fmt: skip

    async def composites(self) -> AsyncIterator[CompositeEvent]:
        """What the rules would have said, as they come; nothing is emitted."""
        began = time.monotonic()
        blocks, total = await self._planned()
        pages = self._pages(blocks)
        waiting = asyncio.ensure_future(anext(pages, None))
        try:
            while (columns := await waiting) is not None:
                waiting = asyncio.ensure_future(anext(pages, None))  # fetched while this one is worked on
                for said in self._stepped(columns):
                    if said is None:
                        await asyncio.sleep(0)
                    else:
                        yield said
                self._seconds = time.monotonic() - began
                if self._progress is not None:
                    self._progress(Progress(read=self._backtest.records, of=max(total, self._backtest.records), seconds=self._seconds))
        finally:
            await cancelled(waiting)
            await pages.aclose()
        for said in self._backtest.finish(to_micros(self._until)):
            yield said
        self._seconds = time.monotonic() - began

    def _stepped(self, columns: Columns) -> Iterator[CompositeEvent | None]:
        """The composites of a page, and None now and then: time for the loop."""
        total = len(columns["_topic"])
        for first in range(0, total, _SLICE_RECORDS):
            yield from self._backtest.block({name: values[first : first + _SLICE_RECORDS] for name, values in columns.items()})
            yield None

    async def _planned(self) -> tuple[list[tuple[int, int, int]], int]:
        """Parts of the period of about a page each, (begin, end, records), and how many records there are."""
        first_us, end_us = to_micros(self._since), to_micros(self._until)
        width_us = max(_LEAST_BUCKET_US, -(-(end_us - first_us) // _BUCKETS))
        # The first question waits for the history to have what the topics have now.
        answer = await self._ask(self._selection.looked_at(first_us, end_us), stale=False)
        self._looked_at = int(answer["records"][0] or 0) if answer["records"] else 0
        counted = await self._ask(self._selection.counted(first_us, end_us, width_us))
        parts: list[tuple[int, int, int]] = []
        for bucket, records in zip(counted["bucket"], counted["records"], strict=True):
            start_us = first_us + bucket * width_us
            if parts and parts[-1][2] + records <= self._page:
                parts[-1] = (parts[-1][0], start_us + width_us, parts[-1][2] + records)
            else:
                parts.append((start_us, start_us + width_us, records))
        parts = [(start, min(end, end_us), records) for start, end, records in parts]
        return parts, sum(records for _, _, records in parts)

    async def _pages(self, parts: Sequence[tuple[int, int, int]]) -> AsyncGenerator[Columns, None]:
        for start_us, end_us, _ in parts:
            from_us, skip = start_us, 0
            while True:
                asked = self._page
                try:
                    columns = await self._ask(self._selection.page(from_us, end_us, skip, asked))
                except TooLarge:
                    if asked <= _PAGE_RECORDS_LEAST:
                        raise
                    self._page = max(_PAGE_RECORDS_LEAST, asked // 4)
                    continue
                times = columns["f_time"]
                if times:
                    yield columns
                if len(times) < asked:
                    break
                # On from the last time, less what has been read of that very time.
                skip = sum(1 for each in times if each == times[-1]) + (skip if times[-1] == from_us else 0)
                from_us = times[-1]

    async def _ask(self, query: Query, *, stale: bool = True) -> Columns:
        return await self._history.columns(query.sql, query.parameters, stale=stale)


def chosen(documents: Sequence[Json], ids: Sequence[str], in_force: Sequence[Stored]) -> tuple[list[ActiveRule], list[ActiveRule]]:
    """The rules to be run, and those whose composites they read: given as documents, or by the ids of rules in force.

    A rule that is in force word for word has the version that it has there, so that composites have the ids that they have live.
    Raises `NotFound` (`rule.unknown`), `InvalidDocument` (`rule.invalid`).
    """
    stored = {each.record.id: each for each in in_force}
    rules: dict[str, ActiveRule] = {}
    for rule_id in ids:
        rules[rule_id] = _active(stored[rule_id], len(rules)) if rule_id in stored else _unknown(rule_id)
    control.check(documents, [each.document for each in in_force if each.record.id not in {document["id"] for document in documents}])
    for document in documents:
        same = stored.get(document["id"])
        number = 1 if same is None else same.record.version + (canonical(same.document) != canonical(document))
        rules[document["id"]] = ActiveRule(rule=parse_rule(document), version=number, order=len(rules))
    silent: dict[str, ActiveRule] = {}
    waiting = [upstream for active in rules.values() for upstream in active.rule.upstream]
    while waiting:
        rule_id = waiting.pop()
        if rule_id in rules or rule_id in silent:
            continue
        silent[rule_id] = _active(stored[rule_id], len(rules) + len(silent)) if rule_id in stored else _unknown(rule_id)
        waiting += silent[rule_id].rule.upstream
    return list(rules.values()), list(silent.values())


def _unknown(rule_id: str) -> NoReturn:
    raise NotFound("rule.unknown", f"There is no rule {rule_id!r}, and no file of that name.")


def _active(stored: Stored, order: int) -> ActiveRule:
    return ActiveRule(rule=parse_rule(stored.document), version=stored.record.version, order=order)
