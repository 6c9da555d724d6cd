"""The match stage: which rules each source record concerns; a `Match` per rule and group to `mplp.internal.matches`.

It keeps no state but its place and its clock per source partition. A chunk counts as done, and its clock as reached, only
when its matches are acknowledged, so a watermark never runs ahead of the matches it speaks about.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog
from aiokafka import AIOKafkaProducer

from streams import limits
from streams.bus.handling import DeadLetters
from streams.bus.publisher import Publisher
from streams.causation import depth_of
from streams.codec.avro import Codec
from streams.codec.registry import load_schemas
from streams.correlation.clock import UNKNOWN_US
from streams.correlation.composites import Link, composite_rows
from streams.correlation.costs import RuleCosts, TooDear
from streams.correlation.index import Bucket, Hit, RuleIndex
from streams.correlation.level_clocks import LevelMark
from streams.correlation.rules import ActiveRule, aggregate_of
from streams.correlation.tallies import MatchTallies
from streams.errors import InvalidInput
from streams.faust_app.batches import Raw, Written, send_batches
from streams.faust_app.control import Change
from streams.faust_app.match_batches import MatchBatches
from streams.faust_app.prefix import Chunk, Fetched
from streams.faust_app.slices import PROBED, Slices
from streams.faust_app.start_stage import StartStage
from streams.kafka import Kafka
from streams.log.reader import epoch_at
from streams.log.rule import ReadersRule, Verdict
from streams.matching.encoded import EncodedView
from streams.matching.matchers import RecordView
from streams.matching.starts import StartIndex
from streams.records import Json, derived_id, now
from streams.topics import BY_NAME, CHAIN_HEADER, COMPOSITES, MATCHES, partition_of

#: How long a partition has been read to its end when it is idle, seconds.
IDLE_AFTER_S = 1.0
#: A watermark that comes so long after the last one means that this process was stopped meanwhile, seconds; more than the slowest rhythm.
_GAP_S = 3.0
#: Types of the product's own events about what is in force. They happen now, also while last month's events are read.
_NOTES = ("rule.", "workflow.applied", "workflow.deleted")
#: Groups whose partition is remembered.
_TARGETS_MAX = 65_536
#: Least time between two looks into the registry for schemas that are not known, seconds.
_LEARN_INTERVAL_S = 5.0

_log = structlog.get_logger("match")


def _nobody(_: Sequence[Written]) -> None:
    """Whoever reads what was written fetches it."""


@dataclass(slots=True)
class MatchCounters:
    """What happened to the records of this process's source partitions since its start."""

    records: int = 0
    matches: int = 0
    void: int = 0  #: records of logs that do not count
    ahead: int = 0  #: more than `limits.AHEAD_MS_MAX` after their Kafka timestamp
    unreadable: int = 0
    oversized: int = 0  #: matches that do not fit into a batch (an id or a source of enormous length)


@dataclass(slots=True)
class _Source:
    """One source partition."""

    position: int  #: next offset
    rule: ReadersRule | None  #: of logs
    time_us: int = UNKNOWN_US  #: greatest event time used and acknowledged
    counted_to: int = 0
    at_end_since: float | None = field(default=None)


class MatchStage:
    """See the module."""

    def __init__(
        self, kafka: Kafka, codec: Codec, producer: AIOKafkaProducer, *, partitions: int, name: str,
        written: Callable[[Sequence[Written]], None] = _nobody,
    ) -> None:  # fmt: skip
        """`partitions`: of `mplp.internal.matches`; `written` is told what lies there now."""
        self._kafka = kafka
        self._codec = codec
        self._producer = producer
        self._partitions = partitions
        self._name = name
        self._written = written
        self._matches = kafka.names.physical(MATCHES)
        self._publisher = Publisher(kafka, codec)
        self._sources: dict[tuple[str, int], _Source] = {}
        self._index = RuleIndex([])
        self._targets: dict[str, int] = {}  # rule and group → partition of matches
        self.starts = StartStage(kafka, codec, producer)
        self._lock = asyncio.Lock()  # a chunk is matched by one set of rules, and no match of an older version follows its marker
        self._changes = 0
        self._watermarks = 0
        self._marked_at = 0.0
        self._learned = 0.0
        self.counters = MatchCounters()
        self.tallies = MatchTallies()
        self.too_dear: dict[str, tuple[ActiveRule, TooDear]] = {}  #: no longer matched here, to be disabled for all workers
        self._slices = Slices(asyncio.get_running_loop().time)
        self._costs = RuleCosts("matching")

    @property
    def index(self) -> RuleIndex:
        """The rules in use."""
        return self._index

    @property
    def topics(self) -> frozenset[str]:
        """What rules and triggers read."""
        return self._index.topics | self.starts.index.topics

    # --- rules ---

    async def use(self, changes: Sequence[Change], index: RuleIndex) -> None:
        """Tells every matches partition of the changes, then matches by `index`."""
        async with self._lock:
            raws: list[Raw] = [(aggregate_of(change.rule_id, "").encode(), self._marker(change), []) for change in changes]
            if raws:
                await self._send(dict.fromkeys(range(self._partitions), raws))
            self._index = index
            self.tallies.use(index)

    def _judge_costs(self) -> None:
        """A rule that costs too much is not matched any more, at once: the chunk at hand may hold many more of its records."""
        found = {each.rule_id: each for each in self._costs.judge(asyncio.get_running_loop().time())}
        if found:
            self.too_dear |= {active.id: (active, found[active.id]) for active in self._index.rules if active.id in found}
            self._index = self._index.without(found)
            self.tallies.use(self._index)

    async def use_starts(self, index: StartIndex) -> None:
        """From the next chunk on events start what this index says."""
        async with self._lock:
            self.starts.index = index

    def _marker(self, change: Change) -> bytes:
        self._changes += 1
        content = "{}" if change.active is None else orjson.dumps(change.active.rule.document).decode()
        version = 0 if change.active is None else change.active.version
        return self._codec.encode_raw(
            "RuleChange",
            {
                **self._envelope("rule.changed", f"rule-change/{self._changes}", change.rule_id, {"version": version}),
                "rule_id": change.rule_id, "rule_version": change.order, "topic": "", "partition": -1, "offset": -1, "content": content,
                "deleted": change.active is None,
            },
        )  # fmt: skip

    async def close(self) -> None:
        """Closes what it opened itself."""
        await self._publisher.close()

    # --- records ---

    async def handle(self, chunk: Chunk) -> None:
        """Matches the records of a chunk of a source topic; returns when their matches are acknowledged."""
        topic = self._kafka.names.logical(chunk.topic)
        async with self._lock:
            source = await self._source(topic, chunk)
            matches = MatchBatches(self._codec, topic, chunk.partition, worker=self._name)
            time_us = source.time_us
            self._slices.begin()
            for record in chunk.records:
                if self._slices.over():
                    self._judge_costs()
                    await asyncio.sleep(0)
                    self._slices.begin()
                if record.offset < source.position:
                    continue  # fetched again after a rebalance
                try:
                    found_us = self._take(topic, chunk, source, record, matches)
                except InvalidInput as error:
                    found_us = await self._taken_again(topic, chunk, source, record, matches, error)
                if found_us is not None and found_us > time_us:
                    time_us = found_us
            raws_by_target = matches.raws()
            if raws_by_target:
                await self._send(raws_by_target)
            await self.starts.flush()
            source.position = max(source.position, chunk.end)
            source.time_us = time_us
            source.at_end_since = None

    async def _source(self, topic: str, chunk: Chunk) -> _Source:
        place = (topic, chunk.partition)
        source = self._sources.get(place)
        if source is None or chunk.start > source.position:
            # New here, or others have had it in between: the rule begins with the epoch in force at this offset.
            known = BY_NAME.get(topic)
            rule = None
            if known is not None and known.log:
                rule = ReadersRule(await epoch_at(self._kafka, self._codec, topic, chunk.partition, chunk.start))
            source = self._sources[place] = _Source(position=chunk.start, rule=rule)
        return source

    def _take(self, topic: str, chunk: Chunk, source: _Source, record: Fetched, matches: MatchBatches) -> int | None:
        """Matches a record; its time, None if it moves no clock: no event, does not count, ahead of its time. Raises `InvalidInput`."""
        if source.rule is not None and source.rule.judge_headers(record.headers) is not Verdict.VALID:
            self.counters.void += 1
            return None
        link = _link(record) if topic == COMPOSITES else None
        if topic == COMPOSITES and link is None and topic not in self.starts.index.topics:
            return None  # no rule reads it
        value = record.value
        places = self._codec.envelope(value)
        view = self._view(value) if places is None or value is None else EncodedView(value, places, self._codec.decode_raw)
        if topic != COMPOSITES and view.time_us > record.timestamp * 1000 + limits.AHEAD_MS_MAX * 1000:
            self.counters.records += 1
            self.counters.ahead += 1
            record_id = view.text("id")
            _log.warning("record.ahead", topic=topic, partition=chunk.partition, offset=record.offset, id=record_id)
            for hit in self._index.hits(topic, view):
                self.tallies.ahead(hit.active.id, record_id)
            return None
        if link is not None:
            self._match_composite(link, record, view, matches)
        elif topic != COMPOSITES and (bucket := self._index.candidates(topic, view.type)):
            self._match(bucket, record, view, matches)
            if self._slices.probing:
                for rule_id, seconds in self._index.costs(topic, view, time.thread_time).items():
                    self._costs.spent(rule_id, PROBED * seconds, records=PROBED)
        if self.starts.index:
            self.starts.take(topic, record, view)
        self.counters.records += 1
        return None if topic == COMPOSITES or _is_note(view) else view.time_us

    def _view(self, value: bytes | None) -> RecordView:
        """A record that does not begin with the envelope."""
        _, plain = self._codec.decode_raw(value)
        if not all(isinstance(plain.get(name), kind) for name, kind in (("id", str), ("type", str), ("time", int), ("data", str))):
            raise InvalidInput("record.invalid", "The record lacks the fields that all records share (id, type, time, data).")
        return RecordView(plain)

    async def _taken_again(
        self, topic: str, chunk: Chunk, source: _Source, record: Fetched, matches: MatchBatches, error: InvalidInput
    ) -> int | None:
        """A record that `_take` could not read: once more with what the registry knows now, else to the dead letters."""
        now_s = asyncio.get_running_loop().time()
        if error.code == "schema.unknown" and now_s >= self._learned + _LEARN_INTERVAL_S:
            self._learned = now_s
            self._codec.learn(await load_schemas(self._kafka))
            try:
                return self._take(topic, chunk, source, record, matches)
            except InvalidInput as again:
                error = again
        self.counters.records += 1
        self.counters.unreadable += 1
        _log.warning("record.unreadable", topic=topic, partition=chunk.partition, offset=record.offset, code=error.code)
        if source.rule is None:  # a log keeps what it has
            letters = DeadLetters(self._kafka, self._publisher, topic)
            await letters.write(chunk.placed(record), route="", stage="match", attempts=1, first_time=now(), error=error)
        return None

    def _match(self, bucket: Bucket, record: Fetched, view: RecordView, matches: MatchBatches) -> None:
        hits = self._index.hits_of(bucket, view)
        depth = depth_of(record.headers) if hits else 0
        chained = self._index.chained
        for ordinal, hit in enumerate(hits):
            more = {"at": record.timestamp * 1000} if chained and hit.active.rule.id in chained else None
            self._add(hit, view, record.offset, ordinal, depth, more, matches)

    def _match_composite(self, link: bytes, record: Fetched, view: RecordView, matches: MatchBatches) -> None:
        depth = depth_of(record.headers)
        plain = view.plain
        rows = composite_rows(self._index, plain, Link.load(link), retracted=plain["retracted"])
        said = [plain["input"]["offset"], plain["revision"]]
        for ordinal, (hit, read, extra) in enumerate(rows):
            self._add(hit, read, record.offset, ordinal, depth, {**extra, "said": said}, matches)

    def _add(
        self, hit: Hit, view: RecordView, offset: int, ordinal: int, depth: int, more: Mapping[str, Any] | None, matches: MatchBatches
    ) -> None:
        key = aggregate_of(hit.active.rule.id, hit.group_key)
        target = self._targets.get(key)
        if target is None:
            if len(self._targets) >= _TARGETS_MAX:
                self._targets.clear()
            target = self._targets[key] = partition_of(key, self._partitions)
        if not matches.add(target, hit, view, offset, ordinal, depth, more):
            self.counters.oversized += 1
            _log.warning("match.oversized", rule=hit.active.id, topic=matches.topic, partition=matches.partition, offset=offset)
            return
        self.counters.matches += 1
        self.tallies.hit(hit, view.time_us)

    # --- clocks ---

    async def write_watermark(self, assigned: Sequence[tuple[str, int, bool, int]], partitions: dict[str, int]) -> bool:
        """Says to every matches partition how far the source partitions are; whether all of them are idle.

        `assigned`: (logical topic, partition, read to its end, offset before which everything is handled) of the partitions held.
        """
        monotonic = asyncio.get_running_loop().time()
        if monotonic - self._marked_at > _GAP_S:
            for known in self._sources.values():
                known.at_end_since = None  # this process did not run: what it knows of ends is of then
        self._marked_at = monotonic
        marks = []
        for topic, partition, at_end, offset in assigned:
            source = await self._standing(topic, partition, offset)
            source.at_end_since = (source.at_end_since or monotonic) if at_end else None
            idle = source.at_end_since is not None and monotonic - source.at_end_since >= IDLE_AFTER_S
            marks.append({"topic": topic, "partition": partition, "time": source.time_us, "offset": source.position, "idle": idle})
        counts = {topic: count for topic, count in partitions.items() if topic != COMPOSITES}
        await self._send_marks([(0, marks)], {"partitions": counts, "composites": partitions.get(COMPOSITES, 0)})
        return all(mark["idle"] for mark in marks)

    async def write_levels(self, told: Sequence[LevelMark]) -> None:
        """Says to every matches partition how far the rules have come whose composites others read, level by level."""
        marks: dict[int, list[Json]] = {}
        for mark in told:
            place = {"topic": COMPOSITES, "partition": mark.partition, "offset": mark.offset}
            marks.setdefault(mark.level + 1, []).append({**place, "time": mark.clock_us, "idle": False})
        if marks:
            await self._send_marks(sorted(marks.items()), {})

    async def _send_marks(self, levels: Sequence[tuple[int, list[Json]]], content: Json) -> None:
        raws: list[Raw] = []
        for level, marks in levels:
            self._watermarks += 1
            envelope = self._envelope("watermark.written", f"watermark/{self._watermarks}", self._name, content)
            value = self._codec.encode_raw("Watermark", {**envelope, "worker": self._name, "level": level, "marks": marks})
            raws.append((b"watermark", value, []))
        await self._send(dict.fromkeys(range(self._partitions), raws))

    async def _send(self, records: Mapping[int, Sequence[Raw]]) -> None:
        self._written(await send_batches(self._producer, self._matches, records))

    async def _standing(self, topic: str, partition: int, offset: int) -> _Source:
        """A source partition that is handled up to `offset`: by others, if that is ahead of what was matched here."""
        place = (topic, partition)
        source = self._sources.get(place)
        if source is not None and offset <= source.position:
            return source
        rule = await self._rule(topic, partition, offset)
        if self._sources.get(place) is source:  # no chunk was matched meanwhile
            time_us = UNKNOWN_US if source is None else source.time_us
            self._sources[place] = _Source(position=offset, rule=rule, time_us=time_us)
        return self._sources[place]

    async def _rule(self, topic: str, partition: int, offset: int) -> ReadersRule | None:
        known = BY_NAME.get(topic)
        if known is None or not known.log:
            return None
        return ReadersRule(await epoch_at(self._kafka, self._codec, topic, partition, offset))

    def forget(self, held: set[tuple[str, int]]) -> None:
        """Drops what it knows of source partitions that are no longer held."""
        for place in self._sources.keys() - held:
            del self._sources[place]

    def _envelope(self, type_: str, what: str, subject: str, data: Any) -> dict[str, Any]:
        now_us = time.time_ns() // 1000
        return {
            "id": derived_id(self._name, what, now_us), "type": type_, "source": f"mplp/{self._name}", "subject": subject, "time": now_us,
            "tenant": "default", "correlation_id": "", "causation_id": None, "data": orjson.dumps(data).decode(),
        }  # fmt: skip


def _is_note(view: RecordView) -> bool:
    """Whether the product itself says it, now: that says nothing about how far the users' own events have come.

    What was done to rules and workflows, and the events of rules' actions: while last month's events are read, one of them would make
    all that follow late.
    """
    source = view.text("source")
    return source.startswith("mplp/") and (source.startswith("mplp/rules/") or view.type.startswith(_NOTES))


def _link(record: Fetched) -> bytes | None:
    """What rules need that read this composite; None: when it was said, no rule read it."""
    return next((value for name, value in record.headers if name == CHAIN_HEADER), None)
