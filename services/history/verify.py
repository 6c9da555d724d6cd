"""Compares topics with tables: is every offset accounted for, once, with the content that it has in the topic?

Theory of operation. The end offsets of the start bound what is compared, so traffic may flow; the sink is given time to reach them.
Then each side is walked once, in the order that is cheapest for it: each topic partition by its offsets, through the same path that
makes rows of records (reader's rule, repeats, what cannot be decoded); each table as it lies. Both give sums per bucket of offsets
(`verify_sums`). Where sums differ, the offsets of the bucket are looked at one by one (`verify_judge`).

Offsets that retention has taken from the topic cannot be compared with it: of those it is checked that the history has each once, from
its first row on.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.history import erase_log, retention_tables
from services.history.replay import Replay
from services.history.retention import Retained
from services.history.rows import Source
from services.history.source import sunk
from services.history.store import History
from services.history.tables import LOG_RECORDS, all_tables
from services.history.verify_judge import judge
from services.history.verify_reads import TableSide, TopicSide, open_sides
from services.history.verify_report import Absent, Kind, PartitionReport, Report
from services.history.verify_sums import Range, Sum, Sums, differing, differing_offsets, range_of, ranges
from streams.codec.avro import Codec
from streams.errors import NotFound
from streams.kafka import Kafka, cluster_metadata
from streams.records import to_micros

#: Seconds that the sink is given to reach the ends of the start.
TIMEOUT_S = 60.0
#: Buckets of a partition with differences that are looked at offset by offset; a table that is gone would take for ever.
BUCKETS_MAX = 50

Place = tuple[str, int]  #: topic (name on the broker), partition
Bound = int | datetime | None  #: an offset, a time (of Kafka), or everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What to verify."""

    topics: tuple[str, ...] = ()  #: logical names; empty: all that the history keeps
    since: Bound = None
    until: Bound = None  #: exclusive
    quick: bool = False  #: offsets only, no content
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far it is."""

    phase: str  #: waiting, topics, tables, places
    topic: str = ""
    done: int = 0  #: offsets read of the topics
    of: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"phase": self.phase, "topic": self.topic, "done": self.done, "of": self.of}


Tell = Callable[[Progress], None]


@dataclass(slots=True, kw_only=True)
class _Part:
    """One partition under verification."""

    place: Place
    source: Source
    asked: Range  #: what was asked for, up to the end of the start
    report: PartitionReport
    tables: frozenset[str] = frozenset()  #: that have rows of it
    compared: int = 0  #: from here on the content is compared
    of_topic: Sums = field(default_factory=Sums)
    of_tables: Sums = field(default_factory=Sums)  #: from `compared` on
    offsets: dict[int, Sum] = field(default_factory=dict)  #: of the tables, by bucket: of all offsets

    def wait_for(self, reached: int) -> None:
        """What the sink has not reached is not looked at."""
        end = max(self.asked.first, min(self.asked.end, reached))
        self.report.pending = self.asked.end - end
        self.asked = Range(first=self.asked.first, end=end)


class Verifier:
    """Verifies a history. `reached`: gives the sinks so many seconds to reach offsets, and says where they are then, as far as is known."""

    def __init__(
        self, kafka: Kafka, codec: Codec, history: History, reached: Callable[[Mapping[Place, int], float], Awaitable[Mapping[Place, int]]]
    ) -> None:
        self._kafka, self._codec, self._history, self._reached = kafka, codec, history, reached

    async def run(self, ask: Ask, tell: Tell = lambda _: None, *, suffix: str = "") -> Report:
        """Verifies. `suffix`: of the names of the tables.

        Raises `NotFound` (`topic.not-kept`), `Unavailable`, `Refused` (`history.topic-changed`).
        """
        began = time.monotonic()
        kept = await retention_tables.retained(self._history)
        replay = Replay(self._kafka, self._codec, self._history, kept)
        tables, topics, close = open_sides(self._history, replay, suffix=suffix, retained=kept)
        try:
            async with self._kafka.consumer() as consumer:
                await erase_log.refresh(self._kafka, self._codec, self._history.erasures, consumer)
                parts = await self._parts(consumer, ask)
                tell(Progress(phase="waiting"))
                reached = await self._reached({part.place: part.asked.end for part in parts}, ask.timeout_s)
                for part in parts:
                    part.wait_for(reached.get(part.place, 0))
                absent = await self._bounds(consumer, tables, parts, ask, kept)
            for part in parts:
                part.report.erased = len(self._history.erasures.among(part.report.topic, part.report.partition, part.report.kept))
            if not ask.quick:
                await self._read_topics(topics, parts, tell)
            await self._read_tables(tables, parts, tell, quick=ask.quick)
            for number, part in enumerate(parts):
                tell(Progress(phase="places", topic=part.report.topic, done=number, of=len(parts)))
                await _Places(tables, topics, part).look(quick=ask.quick)
        finally:
            await close()
        return Report(partitions=[part.report for part in parts], absent=absent, quick=ask.quick, seconds=time.monotonic() - began)

    async def _parts(self, consumer: AIOKafkaConsumer, ask: Ask) -> list[_Part]:
        """The partitions, with the offsets that are asked for."""
        cluster = await cluster_metadata(consumer._client)
        found = dict(sorted(sunk(cluster.topics(), self._kafka.names).items()))
        names = self._kafka.names
        unknown = set(ask.topics) - {names.logical(topic) for topic in found}
        if unknown:
            raise NotFound(
                "topic.not-kept", f"The history keeps no topic {min(unknown)}.", advice="`mplp history verify` without --topic names all."
            )
        chosen = {topic: source for topic, source in found.items() if not ask.topics or names.logical(topic) in ask.topics}
        tps = [TopicPartition(topic, number) for topic in chosen for number in sorted(cluster.partitions_for_topic(topic) or ())]
        firsts, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
        since, until = await _offsets(consumer, tps, ask.since, ends), await _offsets(consumer, tps, ask.until, ends)
        parts = []
        for tp in tps:
            asked = Range(first=max(0, since.get(tp, 0)), end=min(int(ends[tp]), until.get(tp, int(ends[tp]))))
            report = PartitionReport(topic=names.logical(tp.topic), partition=tp.partition, kept=asked, topic_first=int(firsts[tp]))
            parts.append(_Part(place=(tp.topic, tp.partition), source=chosen[tp.topic], asked=asked, report=report))
        return parts

    async def _bounds(
        self, consumer: AIOKafkaConsumer, tables: TableSide, parts: Sequence[_Part], ask: Ask, kept: Retained
    ) -> list[Absent]:
        """Where the history begins, which rows lie beyond the topics' ends of now, and what the broker does not have."""
        bounds = await tables.bounds()
        ends = await consumer.end_offsets([TopicPartition(*part.place) for part in parts])
        for part in parts:
            report = part.report
            here = bounds.pop((report.topic, report.partition), {})
            part.tables = frozenset(here)
            begun = min([report.topic_first, *(of.first for of, _ in here.values() if of.first >= 0)])
            if (since_ms := kept.of(part.source)) is not None:
                begun = await _beyond(consumer, tables, part, since_ms, begun)
            report.kept = Range(first=max(begun, part.asked.first), end=max(part.asked.end, begun, part.asked.first))
            part.compared = max(report.kept.first, min(report.topic_first, report.kept.end))
            end, last = int(ends[TopicPartition(*part.place)]), max((of.end for of, _ in here.values()), default=0)
            if last > end and ask.until is None:
                names = ", ".join(table for table, (of, _) in here.items() if of.end > end)
                report.differs(Kind.STRAY, Range(first=end, end=last), f"rows in {names} behind the topic's end, {end}")
            if any(of.first < 0 for of, _ in here.values()):
                report.differs(Kind.STRAY, Range(first=min(of.first for of, _ in here.values()), end=0), "rows of offsets below 0")
        return [_absent(*place, here) for place, here in sorted(bounds.items()) if not ask.topics or place[0] in ask.topics]

    async def _read_topics(self, topics: TopicSide, parts: Sequence[_Part], tell: Tell) -> None:
        done, of = 0, sum(part.report.kept.end - part.compared for part in parts)
        for part in parts:

            def moved(offsets: int, part: _Part = part) -> None:
                nonlocal done
                done += offsets
                tell(Progress(phase="topics", topic=part.report.topic, done=done, of=of))

            first = part.compared
            wanted = Range(first=first, end=part.report.kept.end)
            if wanted.offsets:
                # What retention takes away before it is read is not compared.
                part.compared, part.of_topic = await topics.sums(*part.place, part.source, wanted, moved)
                done += part.compared - first

    async def _read_tables(self, tables: TableSide, parts: Sequence[_Part], tell: Tell, *, quick: bool) -> None:
        by_topic: dict[str, list[_Part]] = {}
        for part in parts:
            by_topic.setdefault(part.report.topic, []).append(part)
        for number, (topic, own) in enumerate(by_topic.items()):
            tell(Progress(phase="tables", topic=topic, done=number, of=len(by_topic)))
            for table in sorted(frozenset().union(*(part.tables for part in own))):
                await self._read_table(tables, topic, table, {part.report.partition: part for part in own}, quick=quick)

    async def _read_table(self, tables: TableSide, topic: str, table: str, parts: Mapping[int, _Part], *, quick: bool) -> None:
        none = Range(first=0, end=0)
        numbers = range(max(parts) + 1)
        kept = [parts[number].report.kept if number in parts else none for number in numbers]
        compared = [parts[number].compared if number in parts else 0 for number in numbers]
        async for partition, is_compared, bucket, offsets, digest in tables.sums(topic, table, kept, compared, quick=quick):
            part = parts[partition]
            part.offsets.setdefault(bucket, Sum()).add(offsets.count, offsets.digest)
            if table == LOG_RECORDS:
                part.report.log_records += offsets.count
            else:
                part.report.rows += offsets.count
            if is_compared:
                part.of_tables.add(bucket, table, offsets.count, digest)


class _Places:
    """Looks at the offsets of a partition where sums differ."""

    def __init__(self, tables: TableSide, topics: TopicSide, part: _Part) -> None:
        self._tables, self._topics, self._part = tables, topics, part

    async def look(self, *, quick: bool) -> None:
        """Completes the partition's report."""
        part, report = self._part, self._part.report
        if not report.kept.offsets:
            return
        expected = await self._tables.expected_offsets(report.kept)
        buckets = set(differing_offsets(part.offsets, expected))
        if not quick:
            report.compared = report.kept.end - part.compared
            buckets |= set(differing(part.of_topic, part.of_tables))
        wrong = 0
        for bucket in sorted(buckets):
            of = range_of(bucket).within(report.kept)
            before = len(report.differences) + report.left_off
            if bucket not in part.offsets:
                report.differs(Kind.MISSING, of)
            elif wrong >= BUCKETS_MAX:
                report.left_off += 1
            else:
                await self._look_at(of, quick=quick)
                wrong += len(report.differences) + report.left_off > before

    async def _look_at(self, of: Range, *, quick: bool) -> None:
        part, report = self._part, self._part.report
        found = await self._tables.rows(report.topic, report.partition, of, list(all_tables()))
        compared = Range(first=max(of.first, part.compared), end=of.end)
        expected = {} if quick or not compared.offsets else await self._topics.rows(*part.place, part.source, compared)
        said = judge(of, found, expected, compared if expected else None)
        report.expired += said.expired
        report.gone += said.gone
        report.not_decoded += said.not_decoded
        true_repeats = await self._tables.earlier(report.topic, report.partition, said.repeats)
        said.differences += [
            (Kind.CHANGED, offset, "is noted as a repeat of an id that has no row before it")
            for offset in said.repeats.keys() - true_repeats
        ]
        alike: dict[tuple[Kind, str], list[int]] = {}
        for kind, offset, detail in sorted(said.differences, key=lambda each: each[1]):
            alike.setdefault((kind, detail), []).append(offset)
        for (kind, detail), offsets in alike.items():
            for at in ranges(offsets):
                report.differs(kind, at, detail)


async def _beyond(consumer: AIOKafkaConsumer, tables: TableSide, part: _Part, since_ms: int, begun: int) -> int:
    """Where what the history has to have begins, given where it begins at all: what is older may have been dropped."""
    tp, report = TopicPartition(*part.place), part.report
    at = (await consumer.offsets_for_times({tp: since_ms}))[tp]
    first = part.asked.end if at is None else int(at.offset)
    if first <= report.topic_first:
        # All that the topic has is younger: of what it has lost only the tables know.
        first = await tables.first_since(report.topic, report.partition, since_ms, report.topic_first)
    report.expired = max(0, min(first, part.asked.end) - max(begun, part.asked.first))
    return max(begun, first)


def _absent(topic: str, partition: int, here: Mapping[str, tuple[Range, int]]) -> Absent:
    kept = Range(first=min(of.first for of, _ in here.values()), end=max(of.end for of, _ in here.values()))
    return Absent(topic=topic, partition=partition, kept=kept, rows=sum(count for _, count in here.values()))


async def _offsets(
    consumer: AIOKafkaConsumer, tps: Sequence[TopicPartition], bound: Bound, ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """The offset that a bound is in each partition; none if there is no bound."""
    match bound:
        case None:
            return {}
        case int():
            return dict.fromkeys(tps, bound)
        case datetime():
            found = await consumer.offsets_for_times(dict.fromkeys(tps, to_micros(bound) // 1000))
            return {tp: int(ends[tp]) if at is None else int(at.offset) for tp, at in found.items()}
