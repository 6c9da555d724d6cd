"""Makes the tables anew from the topics, beside the old ones, and swaps them.

Theory of operation. 1. New tables are filled with what the sink has reached: the topics are read again, offset by offset; what they no
longer have (retention, compaction, deleted topics) and what was not asked for is copied from the old tables. 2. Sums of the new tables
are compared with those of what was read and copied. 3. The sink pauses. What it has decided since is added, blocks of which it is not
known that they were inserted each by its own token: whoever inserts one of those later changes nothing. 4. The tables are swapped,
all of them even if the process dies meanwhile. The sink goes on: to it nothing has changed.

Sinks of other processes are not paused: what they insert between 3 and 4 is brought over by block, by token. Killed before 4, the old
tables are untouched, and what was made of the new ones is dropped by whoever opens or rebuilds the history next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from aiokafka import TopicPartition

from services.history import erase_log, retention_tables
from services.history.blocks import Progress, Span
from services.history.rebuild_fill import Filled, Filler
from services.history.rebuild_log import BlockTail, read_tail
from services.history.rebuild_sql import SUFFIX
from services.history.rebuild_tables import RebuildTables
from services.history.replay import Replay
from services.history.rows import Source
from services.history.source import sunk
from services.history.store import History
from services.history.tables import DEAD_LETTERS, LOG_RECORDS, TABLES, all_tables
from services.history.verify import Place, Tell
from services.history.verify import Progress as Told
from services.history.verify_reads import TableSide, open_sides
from services.history.verify_sums import Range
from streams.codec.avro import Codec
from streams.concurrency import to_the_end
from streams.errors import NotFound, Refused
from streams.kafka import Kafka, cluster_metadata
from streams.records import now

T = TypeVar("T")
#: Of a partition of which the log of blocks says nothing.
NOTHING = Progress()


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildAsk:
    """What to rebuild."""

    topics: tuple[str, ...] = ()  #: logical names; empty: all that the history keeps
    keep: bool = False  #: the old tables stay, under other names
    timeout_s: float = 60.0  #: that the sink is given to catch up


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What a rebuild did."""

    tables: tuple[str, ...]
    topics: tuple[str, ...]
    offsets: int  #: read again from the topics
    rows: int  #: made of them
    copied: int  #: rows that were taken over from the old tables
    paused_s: float  #: how long the sink stood still
    seconds: float
    kept: tuple[str, ...] = ()  #: names under which the old tables stay

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "tables": list(self.tables), "topics": list(self.topics), "offsets": self.offsets, "rows": self.rows, "copied": self.copied,
            "paused_s": round(self.paused_s, 3), "seconds": round(self.seconds, 3), "kept": list(self.kept),
        }  # fmt: skip


class Rebuilder:
    """Rebuilds a history; one rebuild at a time."""

    def __init__(
        self, kafka: Kafka, codec: Codec, history: History, reached: Callable[[Mapping[Place, int], float], Awaitable[Mapping[Place, int]]],
        paused: Callable[[], AbstractAsyncContextManager[None]], busy: asyncio.Lock | None = None,
    ) -> None:  # fmt: skip
        """`reached`: as of `Verifier`. `paused`: the sink of this process inserts nothing inside of it, and nothing of it is under way.

        `busy` is held meanwhile, and shared with what must not go on beside a rebuild.
        """
        self._kafka, self._codec, self._history, self._reached, self._paused = kafka, codec, history, reached, paused
        self._one = busy or asyncio.Lock()

    async def run(self, ask: RebuildAsk, tell: Tell = lambda _: None) -> Rebuilt:
        """Rebuilds.

        Raises `NotFound` (`topic.not-kept`), `Refused` (`history.busy`, `history.schema-changed`, `history.topic-changed`), `Defect`
        (`history.rebuild-differs`), `Unavailable`; then the old tables are in place, untouched.
        """
        if self._one.locked():
            raise Refused("history.busy", "The history is being rebuilt, or something in it is being erased.", advice="Wait for its end.")
        async with self._one:
            return await self._run(ask, tell)

    async def _run(self, ask: RebuildAsk, tell: Tell) -> Rebuilt:
        began_s = time.monotonic()
        retained = await retention_tables.retained(self._history, margin_ms=0)
        replay = Replay(self._kafka, self._codec, self._history, retained)
        old, topics, close_old = open_sides(self._history, replay, retained=retained)
        new_connections = self._history.connections("history-rebuilt", size=1)
        tables = None
        try:
            parts, ends = await self._parts(ask)
            erasures = len(self._history.erasures)
            tell(Told(phase="waiting"))
            reached = await self._reached(ends, ask.timeout_s)
            parts += await self._absent(old, parts)
            tables = RebuildTables(self._history, await self._tables(old, parts, ask), retained)
            new = TableSide(new_connections, self._history.settings, tables=tables.tables, suffix=SUFFIX, retained=retained)
            work = _Work(tables, Filler(tables, replay, old, new, topics), parts, old, new, tell)
            await work.fill({place: min(end, reached.get(place, 0)) for place, end in ends.items()})
            paused_s, kept = await to_the_end(self._swap(work, ask, erasures))
        except BaseException:
            if tables is not None and not tables.swapped:
                await asyncio.shield(tables.drop())
            raise
        finally:
            for close in (close_old, new_connections.close, *([tables.close] if tables is not None else [])):
                await asyncio.shield(close())
        return Rebuilt(
            tables=tables.tables, topics=tuple(sorted({part.topic for part in parts if part.replayed})), offsets=work.done, rows=work.rows,
            copied=work.copied, paused_s=paused_s, seconds=time.monotonic() - began_s, kept=tuple(kept),
        )  # fmt: skip

    async def _parts(self, ask: RebuildAsk) -> tuple[list[Filled], dict[Place, int]]:
        """All partitions that the history keeps, and their ends."""
        names = self._kafka.names
        async with self._kafka.consumer() as consumer:
            cluster = await cluster_metadata(consumer._client)
            found: Mapping[str, Source] = sunk(cluster.topics(), names)
            unknown = set(ask.topics) - {names.logical(topic) for topic in found}
            if unknown:
                raise NotFound("topic.not-kept", f"The history keeps no topic {min(unknown)}.")
            await erase_log.refresh(self._kafka, self._codec, self._history.erasures, consumer)
            tps = [TopicPartition(topic, number) for topic in sorted(found) for number in sorted(cluster.partitions_for_topic(topic) or ())]
            ends = await consumer.end_offsets(tps)
        parts = [
            Filled(
                place=(tp.topic, tp.partition), topic=names.logical(tp.topic), source=found[tp.topic],
                replayed=not ask.topics or names.logical(tp.topic) in ask.topics,
            )
            for tp in tps
        ]  # fmt: skip
        return parts, {(tp.topic, tp.partition): int(end) for tp, end in ends.items()}

    async def _absent(self, old: TableSide, parts: Sequence[Filled]) -> list[Filled]:
        """Partitions that the history has and the broker has not: all of it is copied."""
        names, known = self._kafka.names, {(part.topic, part.place[1]) for part in parts}
        return [
            _copied(names.physical(topic), topic, number, end=max(of.end for of, _ in here.values()))
            for (topic, number), here in (await old.bounds()).items()
            if (topic, number) not in known
        ]

    async def _tables(self, old: TableSide, parts: Sequence[Filled], ask: RebuildAsk) -> list[str]:
        """The tables in which the asked topics have rows, or may have."""
        if not ask.topics:
            return list(all_tables())
        chosen = {LOG_RECORDS} | {table for (topic, _), here in (await old.bounds()).items() if topic in ask.topics for table in here}
        for part in parts:
            if part.replayed:
                chosen |= {TABLES[name] for name in part.source.records if name in TABLES} or {DEAD_LETTERS}
        return [table for table in all_tables() if table in chosen]

    async def _swap(self, work: _Work, ask: RebuildAsk, erasures: int) -> tuple[float, list[str]]:
        """Fills in what has come since, and swaps; how long the sink stood still, and the names of tables that are kept."""
        began_s = time.monotonic()
        async with self._paused():
            history = await self._history.tables.identity()
            tail = await read_tail(self._kafka, self._codec, history)
            await work.complete(tail)
            await work.tables.check_shapes()
            await self._check_erasures(erasures)
            await work.tables.swap()
        paused_s = time.monotonic() - began_s
        if not self._history.embedded:
            await work.tables.inserts_ended()
            since = await read_tail(self._kafka, self._codec, history, tail.ends)
            for span in [span for spans in since.decided.values() for span in spans]:
                await work.tables.copy_block(span, swapped=True)
        if ask.keep:
            return paused_s, await work.tables.keep(now())
        await work.tables.drop()
        return paused_s, []

    async def _check_erasures(self, count: int) -> None:
        """Raises `Refused` (`history.erased-meanwhile`) if another process has erased something: the new tables still have it."""
        await erase_log.refresh(self._kafka, self._codec, self._history.erasures)
        if len(self._history.erasures) != count:
            raise Refused(
                "history.erased-meanwhile", "Payloads were erased while the tables were made anew.", advice="Run the rebuild again."
            )


def _copied(physical: str, topic: str, number: int, *, end: int) -> Filled:
    return Filled(place=(physical, number), topic=topic, source=Source(catalogue=None, records=()), replayed=False, end=end)


class _Work:
    """The filling of one rebuild."""

    def __init__(self, tables: RebuildTables, filler: Filler, parts: Sequence[Filled], old: TableSide, new: TableSide, tell: Tell) -> None:
        self.tables = tables
        self.done = 0  #: offsets that were read again
        self.copied = 0  #: rows that were not read
        self._of = 0
        self._filler, self._parts, self._old, self._new, self._tell = filler, list(parts), old, new, tell

    @property
    def rows(self) -> int:
        """That were made of records of the topics."""
        return sum(part.rows for part in self._parts)

    async def fill(self, to: Mapping[Place, int]) -> None:
        """Everything up to some offsets (of what is not named: everything), checked."""
        await self.tables.create()
        self._of = sum(to[part.place] for part in self._parts if part.replayed)
        for part in self._parts:
            if part.replayed:
                before = self.done
                await self._filler.read(part, to[part.place], (), partial(self._moved, part))
                self._of -= to[part.place] - (self.done - before)  # what the topic does not have any more is copied
            else:
                part.end = to.get(part.place, part.end)
        self._tell(Told(phase="copying", done=self.done, of=self.done))
        await self._filler.copy(self._parts)
        self._tell(Told(phase="checking", done=self.done, of=self.done))
        await self._filler.check(self._parts)

    async def complete(self, tail: BlockTail) -> None:
        """What has come since, up to the last block that was decided; nobody in this process inserts meanwhile."""
        known = {(part.topic, part.place[1]): part for part in self._parts}
        ends = {place: max(of.end for of, _ in here.values()) for place, here in (await self._old.bounds()).items()}
        for topic, number in ends.keys() - known.keys():
            part = known[topic, number] = _copied(self.tables.physical(topic), topic, number, end=0)
            self._parts.append(part)
        for place, part in known.items():
            progress = tail.progress.get(part.place, NOTHING)
            await self._complete(part, max(progress.end, ends.get(place, 0)), [span for span in progress.pending if span.end > part.end])
        await self._filler.check(self._parts)
        self.copied = sum(count for here in (await self._new.bounds()).values() for _, count in here.values()) - self.rows

    async def _complete(self, part: Filled, end: int, pending: Sequence[Span]) -> None:
        """Up to `end`; blocks of which it is not known that they are inserted each for itself."""
        if end <= part.end:
            return
        if part.replayed:
            bounds = sorted({bound for span in pending for bound in (span.first, span.end)})
            await self._filler.read(part, end, bounds, partial(self._moved, part))
            return
        first = min([end, *(span.first for span in pending)])
        for of in [Range(first=part.end, end=first), *(Range(first=max(span.first, part.end), end=span.end) for span in pending)]:
            if of.offsets:
                await self._filler.copy_block(part, of)
        part.end = end

    def _moved(self, part: Filled, offsets: int) -> None:
        self.done += offsets
        self._tell(Told(phase="topics", topic=part.topic, done=self.done, of=max(self._of, self.done)))
