"""The sink: topics into tables, every offset exactly once.

Theory of operation. For each partition of each sunk topic the sink reads on, cuts a block of offsets, appends the decision
(`Block`) to `mplp.internal.blocks` under a fence, and only then inserts exactly those offsets with a token that ClickHouse
recognises; `Inserted` follows. A sink that dies leaves at most decided blocks without `Inserted`: its successor reads the
log of blocks, inserts those again (what is in the tables already is left out, the token guards the rest), and goes on after
the last block. A sink that lost its hold cannot decide anything any more, so nobody inserts what another inserts.

One task reads, one writes. What waits is bounded: when too much waits, reading stops, so a ClickHouse that is away stops the
reading and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.history import blocks
from services.history.block_log import BlockLog
from services.history.blocks import BLOCK_BYTES_MAX, Span
from services.history.partition import Partition
from services.history.rows import Raw, Rows, SeenIds, Source, build_rows
from services.history.source import sunk
from services.history.store import BlockRefused, History
from services.history.tables import LOG_RECORDS
from streams.codec.avro import Codec
from streams.errors import BackboneError, Unavailable
from streams.kafka import Kafka
from streams.kafka import start as start_client
from streams.log.fenced import UnknownOutcome
from streams.log.reader import epoch_at
from streams.topics import BLOCKS

log = structlog.get_logger(__name__)

#: How long a record may wait for others before its block is cut, seconds. A query does not wait for it.
#: A block costs about the same however few its records are (an insert, and later merges): so blocks are made rarely.
AGE_S = 5.0
#: Memory of what waits to be inserted, bytes; reading stops above it.
BUFFER_BYTES_MAX = 96 * 1024 * 1024
#: How often is looked for records that have waited long enough, seconds.
LOOK_S = 0.5
#: How often new topics are looked for, seconds.
DISCOVER_S = 5.0
#: Records that are taken over at once; the event loop is busy meanwhile.
FETCH_RECORDS_MAX = 10_000
#: A fetch waits for this many bytes, but no longer than this.
FETCH_BYTES_MIN, FETCH_WAIT_MS = 256 * 1024, 200
#: How often positions are asked for that moved without a record, seconds.
POSITIONS_S = 0.5
#: Blocks that are cut in one round.
ROUND_BLOCKS_MAX = 16
#: Delay between two tries when something is away: from, to (seconds).
RETRY_S = (0.2, 5.0)
#: A sink beside a server that lost its hold to another leaves it to the other for this long, seconds.
STANDBY_S = 30.0

Place = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStatus:
    """What the sink says of itself. `state`: starting, running, waiting (ClickHouse or Kafka is away), stopped."""

    state: str
    detail: str
    behind: int | None  #: offsets read and not inserted, as last known


class Sink:
    """Sinks all partitions. One per history."""

    def __init__(self, kafka: Kafka, codec: Codec, history: History) -> None:
        self._kafka, self._codec, self._history = kafka, codec, history
        self._owner = f"mplp/history/{os.getpid()}"
        self._state, self._detail = "starting", ""
        self._consumer: AIOKafkaConsumer | None = None
        self._asker: AIOKafkaConsumer | None = None
        self._partitions: dict[Place, Partition] = {}
        self._blocks: BlockLog | None = None
        self._hurry = 0  #: calls of `wait_until` that wait now
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._moved = asyncio.Condition()
        self._discovering = asyncio.Lock()
        self._began = asyncio.Event()  #: a session has read where it stands
        self._inserted: dict[Place, int] = {}
        self._known_ends: dict[Place, int] = {}

    def status(self) -> SinkStatus:
        """State, detail and lag."""
        return SinkStatus(state=self._state, detail=self._detail, behind=self.behind())

    def behind(self) -> int | None:
        """Offsets that are not inserted yet, as last seen; None before the first look."""
        if self._state == "starting" and not self._partitions:
            return None
        ends = {place: max(self._known_ends.get(place, 0), part.read) for place, part in self._partitions.items()}
        return blocks.behind(ends.items(), self._inserted)

    async def run(self) -> None:
        """Sinks until cancelled. What is away is waited for; a lost hold is claimed anew."""
        delay = RETRY_S[0]
        try:
            while True:
                try:
                    await self._session()
                except (BackboneError, KafkaError, OSError) as error:
                    delay = RETRY_S[0] if self._began.is_set() else min(delay * 2, RETRY_S[1])
                    if isinstance(error, UnknownOutcome) and not self._history.embedded:
                        delay = STANDBY_S
                    self._says("waiting", str(error))
                    log.warning("history.sink.waits", error=str(error), seconds=delay)
                finally:
                    await self._end_session()
                await asyncio.sleep(delay)
        finally:
            self._says("stopped", "")

    async def wait_until(self, ends: Mapping[Place, int] | None = None, timeout: float = 5.0) -> int:
        """Waits until all offsets before `ends` ((topic on the broker, partition) → offset) are inserted, at most `timeout` seconds.

        Without `ends`: those of all sunk topics at the call. Returns how many offsets are still missing. A sink that has
        not begun counts what it does not know as missing.
        """
        self._hurry += 1
        self._wake.set()
        try:
            async with asyncio.timeout(timeout):
                if ends is None:
                    ends = await self._current_ends()
                async with self._moved:
                    await self._moved.wait_for(lambda: not blocks.behind(ends.items(), self._inserted))
        except (TimeoutError, Unavailable, KafkaError, OSError):
            return max(1, blocks.behind(ends.items(), self._inserted) if ends else self.behind() or 0)
        finally:
            self._hurry -= 1
        return 0

    # -- a session: from the claim to the loss of a hold

    async def _session(self) -> None:
        self._says("starting", "")
        # Large fetches: a sink that is woken by every record costs the broker and itself more than the records do.
        consumer = self._kafka.new_consumer(fetch_min_bytes=FETCH_BYTES_MIN, fetch_max_wait_ms=FETCH_WAIT_MS)
        await start_client(consumer)
        self._consumer = consumer
        # Questions go over a connection of their own: a broker answers them in order, and a fetch waits for records.
        asker = self._kafka.new_consumer()
        await start_client(asker)
        self._asker = asker
        await self._discover()
        self._began.set()
        self._says("running", "")
        await _together(self._read(consumer), self._write(), self._discover_on())

    async def _end_session(self) -> None:
        clients = [client for client in (self._consumer, self._asker) if client is not None]
        self._consumer = self._asker = None
        self._began.clear()
        if self._blocks is not None:
            # What was noted spares the successor work; without it the successor asks the tables.
            with contextlib.suppress(BackboneError, TimeoutError):
                async with asyncio.timeout(1):
                    await self._blocks.flush()
            await self._blocks.close()
        self._blocks = None
        self._partitions.clear()
        for client in clients:
            await client.stop()

    async def _discover_on(self) -> None:
        while True:
            await asyncio.sleep(DISCOVER_S)
            await self._discover()

    async def _discover(self) -> None:
        """Takes in sunk topics that are new, and forgets deleted ones."""
        async with self._discovering:
            await self._discover_now()

    async def _discover_now(self) -> None:
        consumer, asker = self._consumer, self._asker
        if consumer is None or asker is None:
            raise Unavailable("history.sink-waits", "The sink has no connection to Kafka.")
        cluster = await _topics_on_broker(asker)
        blocks_topic = self._kafka.names.physical(BLOCKS)
        if not cluster.get(blocks_topic):
            raise Unavailable("topics.missing", f"There is no topic {blocks_topic}.", advice="Run `mplp topics apply`.")
        if self._blocks is None:
            self._blocks = BlockLog(self._kafka, self._codec, owner=self._owner, partitions=cluster[blocks_topic])
        found = sunk(cluster, self._kafka.names)
        places = {(topic, number): source for topic, source in found.items() for number in range(cluster[topic])}
        gone = [place for place in self._partitions if place not in places]
        for place in gone:
            del self._partitions[place]
            self._inserted.pop(place, None)
        new = {place: source for place, source in places.items() if place not in self._partitions}
        if not new and not gone:
            return
        await self._blocks.hold({topic for topic, _ in new}, asker)
        starts = await asker.beginning_offsets([TopicPartition(*place) for place in new])
        for place, source in new.items():
            self._partitions[place] = await self._resume(self._blocks, place, source, int(starts[TopicPartition(*place)]))
        consumer.assign([TopicPartition(*place) for place in self._partitions])
        for place, part in self._partitions.items():
            consumer.seek(TopicPartition(*place), part.read)

    async def _resume(self, block_log: BlockLog, place: Place, source: Source, log_start: int) -> Partition:
        """Where a partition goes on: after its last block; if the log of blocks was cut, after what the tables have."""
        topic, number = place
        progress = block_log.progress.get(place)
        if progress is not None:
            part = Partition(
                topic=topic, partition=number, source=source, decided=progress.end, epoch=progress.epoch, pending=progress.pending
            )
        else:
            last = await self._history.last_offset(topic, number) if block_log.was_cut(topic) else None
            decided = log_start if last is None else last + 1
            epoch = (
                await epoch_at(self._kafka, self._codec, source.catalogue.name, number, decided)
                if decided and source.catalogue and source.is_log
                else 0
            )
            part = Partition(topic=topic, partition=number, source=source, decided=decided, epoch=epoch)
        part.inserted = part.read = part.start
        self._inserted[place] = part.inserted
        return part

    # -- reading

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        noted_s = 0.0
        while True:
            if not self._partitions:
                await asyncio.sleep(0.1)
                continue
            if sum(part.bytes for part in self._partitions.values()) >= BUFFER_BYTES_MAX:
                self._room.clear()
                await self._room.wait()
                continue
            fetched = await consumer.getmany(timeout_ms=200, max_records=FETCH_RECORDS_MAX)
            now_s = time.monotonic()
            for tp, records in fetched.items():
                part = self._partitions.get((tp.topic, tp.partition))
                if part is not None:
                    part.take(records, 0, now_s)
            if now_s - noted_s >= POSITIONS_S:
                noted_s = now_s
                await self._note_positions(consumer, now_s)
            self._wake.set()

    async def _note_positions(self, consumer: AIOKafkaConsumer, now_s: float) -> None:
        """Moves over offsets that hold no record (transaction markers, what retention or compaction removed)."""
        assigned = consumer.assignment()
        for (topic, number), part in list(self._partitions.items()):
            tp = TopicPartition(topic, number)
            if tp in assigned:
                position = await consumer.position(tp)
                if position > part.read:
                    part.take([], position, now_s)
                self._known_ends[topic, number] = max(consumer.highwater(tp) or 0, position)

    async def _current_ends(self) -> dict[Place, int]:
        """End offsets of all sunk topics now, also of topics that were made a moment ago."""
        await self._began.wait()
        await self._discover()
        tps = [TopicPartition(*place) for place in self._partitions]
        ends = await self._asker.end_offsets(tps) if self._asker is not None and tps else {}
        found = {(tp.topic, tp.partition): int(end) for tp, end in ends.items()}
        self._known_ends.update(found)
        return found

    # -- writing

    async def _write(self) -> None:
        while True:
            await self._sleep_until_due()
            now_s = time.monotonic()
            due = [part for part in self._partitions.values() if part.due(now_s, age_s=AGE_S, hurry=self._hurry > 0)]
            if not due:
                continue
            await self._round(_first_of(due), now_s)

    async def _sleep_until_due(self) -> None:
        self._wake.clear()
        now_s = time.monotonic()
        if any(part.due(now_s, age_s=AGE_S, hurry=self._hurry > 0) for part in self._partitions.values()):
            return
        try:
            async with asyncio.timeout(LOOK_S):
                await self._wake.wait()
        except TimeoutError:
            if self._blocks is not None and self._blocks.has_notes and not any(part.waiting for part in self._partitions.values()):
                await self._blocks.flush()

    async def _round(self, due: list[Partition], now_s: float) -> None:
        """One block of each: build, decide, insert, note."""
        built = [await self._build(part, *part.cut(now_s)) for part in due]
        self._room.set()
        assert self._blocks is not None
        await self._blocks.decide([one.span for one in built if not one.decided])
        await _together(*(self._insert(self._blocks, one) for one in built))

    async def _build(self, part: Partition, span: Span, records: list[Raw], decided: bool) -> _Built:
        if part.seen is None:
            ids = await self._history.recent_ids(span.topic, span.partition, span.first) if span.first else []
            part.seen = SeenIds(ids)
        rows = await asyncio.to_thread(build_rows, span, records, part.source, self._codec, part.seen)
        if not decided:
            part.epoch = rows.epoch_after
        return _Built(part=part, span=replace(span, epoch_after=rows.epoch_after), records=records, rows=rows, decided=decided)

    async def _insert(self, block_log: BlockLog, built: _Built) -> None:
        """Inserts a block, however long it takes."""
        part, span, rows, seen = built.part, built.span, built.rows, built.part.seen
        assert seen is not None
        delay, strict, partly = RETRY_S[0], False, built.decided
        while True:
            try:
                missing = rows.without(await self._history.offsets_of(span)) if partly else rows
                # `log_records` comes last: it takes what the other tables refuse, and its token must stand for all of it.
                for table in sorted(missing.tables, key=lambda name: (name == LOG_RECORDS, name)):
                    await self._history.insert(span, table, missing.tables[table])
                break
            except BlockRefused as error:
                partly = True
                if strict:
                    self._says("waiting", str(error))
                    where = {"topic": span.topic, "partition": span.partition, "first": span.first, "end": span.end}
                    log.error("history.insert.refused", **where, error=str(error))
                else:
                    strict = True
                    seen.forget_from(span.first)
                    rows = await asyncio.to_thread(build_rows, span, built.records, part.source, self._codec, seen, strict=True)
                    continue
            except Unavailable as error:
                partly = True
                self._says("waiting", error.message)
                log.warning("history.insert.waits", topic=span.topic, partition=span.partition, error=error.message)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_S[1])
        self._says("running", "")
        seen.trim(span.end)
        block_log.note_inserted(span, rows.count)
        async with self._moved:
            part.inserted = span.end
            self._inserted[span.topic, span.partition] = span.end
            self._moved.notify_all()

    def _says(self, state: str, detail: str) -> None:
        self._state, self._detail = state, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """A block ready to be inserted."""

    part: Partition
    span: Span
    records: list[Raw]
    rows: Rows
    decided: bool  #: by an earlier sink


def _first_of(due: list[Partition]) -> list[Partition]:
    """As many partitions as may have a block in memory at the same time; at least one."""
    chosen: list[Partition] = []
    for part in sorted(due, key=lambda part: part.oldest_s)[:ROUND_BLOCKS_MAX]:
        if chosen and sum(min(other.bytes, BLOCK_BYTES_MAX) for other in [*chosen, part]) > BUFFER_BYTES_MAX:
            break
        chosen.append(part)
    return chosen


async def _topics_on_broker(asker: AIOKafkaConsumer) -> dict[str, int]:
    """All topics with their partition counts."""
    # The consumer's own `topics()` has the names only; this is the request below it.
    metadata = await asker._client.fetch_all_metadata()
    return {topic: len(metadata.partitions_for_topic(topic) or ()) for topic in metadata.topics()}


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """Runs all; the first failure ends the others and is raised as it is."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
