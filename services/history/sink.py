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
import os
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from services.history import blocks
from services.history.blocks import Progress, Span
from services.history.partition import Partition
from services.history.rows import Raw, Rows, SeenIds, Source, build_rows
from services.history.source import sunk
from services.history.store import BlockRefused, History
from services.history.tables import LOG_RECORDS
from streams.codec.avro import Codec
from streams.errors import BackboneError, Unavailable
from streams.kafka import Kafka
from streams.kafka import start as start_client
from streams.log.fenced import FencedLog, LogRecord, UnknownOutcome
from streams.log.reader import epoch_at
from streams.log.rule import Verdict
from streams.records import Record, now
from streams.topics import BLOCKS, partition_of

log = structlog.get_logger(__name__)

#: How long a record may wait for others before its block is cut, seconds. A query does not wait for it.
AGE_S = 0.5
#: Memory of what waits to be inserted, bytes; reading stops above it.
BUFFER_BYTES_MAX = 96 * 1024 * 1024
#: How often new topics are looked for, seconds.
DISCOVER_S = 5.0
#: Records that are taken over at once; the event loop is busy meanwhile.
FETCH_RECORDS_MAX = 10_000
#: Blocks that are cut in one round.
ROUND_BLOCKS_MAX = 16
#: Delay between two tries when something is away: from, to (seconds).
RETRY_S = (0.2, 5.0)
#: A sink that has not looked for longer than this looks whether its holds are still its own before it inserts.
PAUSE_S = 60.0

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
        self._blocks_partitions = 0
        self._state, self._detail = "starting", ""
        self._consumer: AIOKafkaConsumer | None = None
        self._asker: AIOKafkaConsumer | None = None
        self._partitions: dict[Place, Partition] = {}
        self._holds: dict[int, FencedLog] = {}
        self._progress: dict[Place, Progress] = {}
        self._log_starts: dict[int, int] = {}
        self._notes: dict[int, list[tuple[str, Record]]] = {}
        self._hurry = 0  #: calls of `wait_until` that wait now
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._moved = asyncio.Condition()
        self._discovering = asyncio.Lock()
        self._inserted: dict[Place, int] = {}
        self._known_ends: dict[Place, int] = {}
        self._looked_s = time.monotonic()

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
                    self._says("waiting", str(error))
                    log.warning("history.sink.waits", error=str(error), seconds=delay)
                finally:
                    began_well = self._state == "running"
                    await self._end_session()
                delay = RETRY_S[0] if began_well else min(delay * 2, RETRY_S[1])
                await asyncio.sleep(delay)
        finally:
            self._says("stopped", "")

    async def wait_until(self, ends: Mapping[Place, int] | None = None, timeout: float = 5.0) -> int:
        """Waits until all offsets before `ends` ((topic on the broker, partition) → offset) are inserted, at most `timeout` seconds.

        Without `ends`: those of all sunk topics at the call. Returns how many offsets are still missing. A sink that has
        not begun counts what it does not know as missing.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        self._hurry += 1
        self._wake.set()
        missing = 0
        try:
            async with asyncio.timeout_at(deadline):
                if ends is None:
                    ends = await self._current_ends()
                async with self._moved:
                    while (missing := blocks.behind(ends.items(), self._inserted)) > 0:
                        await self._moved.wait()
        except TimeoutError:
            return max(1, missing if ends is None else blocks.behind(ends.items(), self._inserted))
        finally:
            self._hurry -= 1
        return 0

    # -- a session: from the claim to the loss of a hold

    async def _session(self) -> None:
        self._says("starting", "")
        consumer = self._kafka.new_consumer()
        await start_client(consumer)
        self._consumer = consumer
        # Questions go over a connection of their own: a broker answers them in order, and a fetch waits for records.
        asker = self._kafka.new_consumer()
        await start_client(asker)
        self._asker = asker
        await self._discover()
        self._says("running", "")
        await _together(self._read(consumer), self._write(), self._discover_on())

    async def _end_session(self) -> None:
        clients = [client for client in (self._consumer, self._asker) if client is not None]
        self._consumer = self._asker = None
        for hold in self._holds.values():
            await hold.close()
        self._holds.clear()
        self._partitions.clear()
        self._progress.clear()
        self._notes.clear()
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
        assert self._consumer is not None
        assert self._asker is not None
        cluster = await self._topics_on_broker()
        found = sunk(cluster, self._kafka.names)
        places = {(topic, number): source for topic, source in found.items() for number in range(cluster[topic])}
        gone = [place for place in self._partitions if place not in places]
        for place in gone:
            del self._partitions[place]
            self._inserted.pop(place, None)
        new = {place: source for place, source in places.items() if place not in self._partitions}
        if not new and not gone:
            return
        await self._hold({partition_of(topic, self._blocks_partitions) for topic, _ in new})
        starts = await self._asker.beginning_offsets([TopicPartition(*place) for place in new])
        for place, source in new.items():
            self._partitions[place] = await self._resume(place, source, int(starts[TopicPartition(*place)]))
        self._consumer.assign([TopicPartition(*place) for place in self._partitions])
        for place, part in self._partitions.items():
            self._consumer.seek(TopicPartition(*place), part.read)

    async def _topics_on_broker(self) -> dict[str, int]:
        assert self._asker is not None
        # The consumer's own `topics()` has the names only; this is the request below it.
        metadata = await self._asker._client.fetch_all_metadata()
        counts = {topic: len(metadata.partitions_for_topic(topic) or ()) for topic in metadata.topics()}
        blocks_topic = self._kafka.names.physical(BLOCKS)
        if not counts.get(blocks_topic):
            raise Unavailable("topics.missing", f"There is no topic {blocks_topic}.", advice="Run `mplp topics apply`.")
        self._blocks_partitions = counts[blocks_topic]
        return counts

    async def _hold(self, partitions: set[int]) -> None:
        """Claims partitions of the log of blocks, and folds what they say."""
        for partition in sorted(partitions - set(self._holds)):
            hold = FencedLog(self._kafka, self._codec, topic=BLOCKS, partition=partition, owner=self._owner)
            start = await self._first_offset_of_blocks(partition)
            start_epoch = await epoch_at(self._kafka, self._codec, BLOCKS, partition, start) if start else 0
            await hold.claim(self._fold, start=start, start_epoch=start_epoch)
            self._log_starts[partition] = start
            self._holds[partition] = hold

    def _fold(self, record: LogRecord) -> None:
        if record.verdict is Verdict.VALID:
            blocks.fold(self._progress, self._codec.decode(record.value))

    async def _first_offset_of_blocks(self, partition: int) -> int:
        assert self._asker is not None
        tp = TopicPartition(self._kafka.names.physical(BLOCKS), partition)
        return int((await self._asker.beginning_offsets([tp]))[tp])

    async def _resume(self, place: Place, source: Source, log_start: int) -> Partition:
        """Where a partition goes on: after its last block; if the log of blocks was cut, after what the tables have."""
        topic, number = place
        progress = self._progress.get(place)
        if progress is not None:
            part = Partition(
                topic=topic, partition=number, source=source, decided=progress.end, epoch=progress.epoch, pending=progress.pending
            )
        else:
            was_cut = self._log_starts[partition_of(topic, self._blocks_partitions)] > 0
            last = await self._history.last_offset(topic, number) if was_cut else None
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
        while self._asker is None or self._state == "starting":
            await asyncio.sleep(0.05)
        await self._discover()
        tps = [TopicPartition(*place) for place in self._partitions]
        ends = await self._asker.end_offsets(tps) if tps else {}
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
            await self._round(due[:ROUND_BLOCKS_MAX], now_s)
            self._looked_s = time.monotonic()

    async def _sleep_until_due(self) -> None:
        self._wake.clear()
        now_s = time.monotonic()
        if any(part.due(now_s, age_s=AGE_S, hurry=self._hurry > 0) for part in self._partitions.values()):
            return
        try:
            async with asyncio.timeout(AGE_S / 4):
                await self._wake.wait()
        except TimeoutError:
            if self._notes and not any(part.waiting for part in self._partitions.values()):
                await self._append_notes()

    async def _round(self, due: list[Partition], now_s: float) -> None:
        """One block of each: build, decide, insert, note."""
        built = [await self._build(part, *part.cut(now_s)) for part in due]
        self._room.set()
        await self._decide([span for _, span, _, _, decided in built if not decided])
        await _together(*(self._insert(*one) for one in built))

    async def _build(self, part: Partition, span: Span, records: list[Raw], decided: bool) -> tuple[Partition, Span, list[Raw], Rows, bool]:
        if part.seen is None:
            ids = await self._history.recent_ids(span.topic, span.partition, span.first) if span.first else []
            part.seen = SeenIds(ids)
        rows = await asyncio.to_thread(build_rows, span, records, part.source, self._codec, part.seen)
        part.epoch = rows.epoch_after
        return part, replace(span, epoch_after=rows.epoch_after), records, rows, decided

    async def _decide(self, spans: list[Span]) -> None:
        """Appends the decisions, and with them the notes that wait."""
        time_now = now()
        for span in spans:
            partition = partition_of(span.topic, self._blocks_partitions)
            record = blocks.block_record(span, epoch=self._holds[partition].epoch, time=time_now, source=self._owner)
            self._notes.setdefault(partition, []).append((span.topic, record))
        await self._append_notes()
        if time.monotonic() - self._looked_s > PAUSE_S:
            for hold in self._holds.values():
                if not await hold.still_ours():
                    raise UnknownOutcome("log.not-held", "Another sink has taken over during a pause.")

    async def _append_notes(self) -> None:
        notes, self._notes = self._notes, {}
        for partition, records in notes.items():
            await self._holds[partition].append(records)

    async def _insert(self, part: Partition, span: Span, records: list[Raw], rows: Rows, decided: bool) -> None:
        """Inserts a block, however long it takes."""
        assert part.seen is not None
        delay, strict, partly = RETRY_S[0], False, decided
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
                    log.error(
                        "history.insert.refused",
                        topic=span.topic,
                        partition=span.partition,
                        first=span.first,
                        end=span.end,
                        error=str(error),
                    )
                else:
                    strict = True
                    part.seen.forget_from(span.first)
                    rows = await asyncio.to_thread(build_rows, span, records, part.source, self._codec, part.seen, strict=True)
                    continue
            except Unavailable as error:
                partly = True
                self._says("waiting", error.message)
                log.warning("history.insert.waits", topic=span.topic, partition=span.partition, error=error.message)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_S[1])
        self._says("running", "")
        part.seen.trim(span.end)
        await self._note_inserted(part, span, rows.count)

    async def _note_inserted(self, part: Partition, span: Span, rows: int) -> None:
        partition = partition_of(span.topic, self._blocks_partitions)
        hold = self._holds.get(partition)
        if hold is not None:
            record = blocks.inserted_record(span, rows=rows, epoch=hold.epoch, time=now(), source=self._owner)
            self._notes.setdefault(partition, []).append((span.topic, record))
        async with self._moved:
            part.inserted = span.end
            self._inserted[span.topic, span.partition] = span.end
            self._moved.notify_all()

    def _says(self, state: str, detail: str) -> None:
        self._state, self._detail = state, detail


async def _together(*works: Coroutine[Any, Any, None]) -> None:
    """Runs all; the first failure ends the others and is raised as it is."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
