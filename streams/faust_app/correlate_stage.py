"""The correlate stage: one owner per partition of `mplp.internal.matches` that this worker holds.

An owner fences its partition of `mplp.composite.events`, loads the last checkpoint, replays the matches behind it with everything
muted that the log already has, and then emits what new matches lead to. What was emitted is acknowledged before the chunk is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition

from streams.codec.avro import Codec, headers_of
from streams.correlation.checkpoint import CheckpointReader, CheckpointWriter, Entry, Loaded
from streams.correlation.intentions import Headers
from streams.correlation.level_clocks import LevelMark
from streams.correlation.partition import CorrelatePartition
from streams.correlation.rules import aggregate_of
from streams.correlation.tallies import engine_figures
from streams.errors import Defect, InvalidInput, TooLarge
from streams.faust_app.action_partition import ActionPartition
from streams.faust_app.action_stage import has_actions
from streams.faust_app.batches import Raw, send_batches
from streams.faust_app.owner_costs import OwnerCosts
from streams.faust_app.ports import WorkerPorts
from streams.faust_app.prefix import Chunk
from streams.kafka import Kafka
from streams.log.fenced import FencedLog, LogRecord, UnknownOutcome
from streams.log.kafka_log import read_range
from streams.log.reader import epoch_at
from streams.log.rule import Verdict
from streams.records import CompositeEvent, InputPosition, Json, Snapshot, derived_id
from streams.topics import COMPOSITES, INTERNAL_SNAPSHOTS, MATCHES

#: Records handled between two pauses in which other tasks of the process run.
_SLICE_RECORDS = 100
#: Groups of a checkpoint written between two such pauses.
_SLICE_GROUPS = 8
#: Composites of one append.
_APPEND_MAX = 500
_TAKEOVERS_MAX = 5

_log = structlog.get_logger("correlate")


@dataclass(frozen=True, slots=True)
class Emission:
    """A composite and the offset of the matches record that caused it."""

    composite: CompositeEvent
    offset: int
    headers: Headers = ()  #: its depth and actions

    @property
    def key(self) -> str:
        """Key and aggregate: rule and group."""
        assert self.composite.aggregate_id is not None
        return self.composite.aggregate_id


class Owner:
    """One partition. All public methods exclude each other."""

    def __init__(
        self, kafka: Kafka, codec: Codec, snapshots_producer: AIOKafkaProducer, partition: int, *, name: str,
        ports: WorkerPorts | None = None, actions: ActionPartition | None = None, turn: asyncio.Lock | None = None,
    ) -> None:  # fmt: skip
        """`actions` performs what rules intend; without it nobody does. `turn`: whoever has it writes a checkpoint."""
        self.partition = partition
        self.position = 0  #: next offset of the matches partition
        self.state = CorrelatePartition()
        self.emitted = 0
        self.costs = OwnerCosts(asyncio.get_running_loop().time)
        #: How far levels whose composites others read have come; nothing while the partition is not ours.
        self.marks: Sequence[LevelMark] = ()
        self._kafka = kafka
        self._codec = codec
        self._snapshots_producer = snapshots_producer
        self._name = name
        self._actions = actions
        self._turn = turn or asyncio.Lock()
        self._matches = kafka.names.physical(MATCHES)
        self._snapshots = kafka.names.physical(INTERNAL_SNAPSHOTS)
        self._ports = ports or WorkerPorts()
        open_log = self._ports.open_composites
        port = None if open_log is None else open_log(partition)
        self._log = FencedLog(kafka, codec, topic=COMPOSITES, partition=partition, owner=name, port=port)
        self._sequences: dict[str, int] = {}
        self._groups: dict[str, tuple[str, str]] = {}  # aggregate → (rule, group), of those with a sequence
        self._changed: set[tuple[str, str]] = set()
        self._writer = CheckpointWriter(0, partition)
        self._older: list[str] = []  # snapshot keys of earlier epochs
        self._taken = False
        self._closed = False
        self._lock = asyncio.Lock()
        self._checkpointed_at = 0.0  # by the event loop's clock
        self._checkpointed_position = 0
        self._checkpointed_matches = 0

    def figures(self) -> dict[str, Json]:
        """What happened to the records and actions of each rule."""
        found = engine_figures(self.state.engine)
        for rule_id, counted in (self._actions.figures() if self._actions is not None else {}).items():
            if rule_id in found:
                found[rule_id] |= counted
        return found

    @property
    def ready(self) -> bool:
        """Whether the partition is ours, and its matches can be handled."""
        return self._taken and not self._closed

    # --- takeover ---

    async def take(self) -> None:
        """Makes the partition ours, if it is not already."""
        async with self._lock:
            if not self._taken and not self._closed:
                await self._take()

    async def keep(self) -> None:
        """The partition stayed ours over a rebalance; if somebody else had it in between, it is taken again."""
        async with self._lock:
            if self._taken and not self._closed and not await self._log.still_ours():
                await self._take_again()

    async def _take_again(self) -> None:
        self._taken, self.marks = False, ()
        await self._take()

    async def _take(self) -> None:
        for attempt in range(_TAKEOVERS_MAX):
            try:
                await self._take_once()
            except UnknownOutcome as error:
                _log.warning("takeover.again", partition=self.partition, attempt=attempt, code=error.code)
                continue
            self._taken = True
            self._mark()
            return
        raise UnknownOutcome("log.contended", f"Partition {self.partition} of {COMPOSITES} could not be taken.")

    async def _take_once(self) -> None:
        started = asyncio.get_running_loop().time()
        reader = await self._read_snapshots()
        loaded = reader.loaded()
        self.state, self._sequences, self._groups, self._changed = CorrelatePartition(), {}, {}, set()
        self.position = 0
        if loaded is not None:
            self._load(loaded)
        said: set[tuple[str, int]] = set()
        start = 0 if loaded is None else loaded.composites_offset
        start_epoch = await self._epoch_at_beginning() if loaded is None else loaded.epoch
        await self._log.claim(lambda record: self._fold(record, said), start=start, start_epoch=start_epoch)
        self._writer = CheckpointWriter(self._log.epoch, self.partition)
        self._older = reader.keys_before(self._log.epoch)
        if self._actions is not None:
            kept = None if loaded is None else loaded.state.get("actions")
            await self._actions.begin(kept, position=start, end=self._log.next_offset)
        replayed = await self._replay(said)
        # The first checkpoint of an epoch has everything.
        self._changed = set(self.state.engine.groups()) | set(self._groups.values())
        self._checkpointed_at, self._checkpointed_position = asyncio.get_running_loop().time(), self.position
        self._checkpointed_matches = self.state.counters.matches
        if loaded is None or replayed:
            self._checkpointed_matches = -self._ports.checkpoint_records
        _log.info(
            "takeover.done", partition=self.partition, epoch=self._log.epoch, replayed=replayed, muted=len(said),
            seconds=round(asyncio.get_running_loop().time() - started, 3),
        )  # fmt: skip

    async def _read_snapshots(self) -> CheckpointReader:
        reader = CheckpointReader(self.partition)
        tp = TopicPartition(self._snapshots, self.partition)
        async with self._kafka.consumer() as consumer:
            end = int((await consumer.end_offsets([tp]))[tp])
            async for stored in read_range(consumer, self._snapshots, self.partition, 0, end):
                key = (stored.key or b"").decode(errors="replace")
                if "correlate/" not in key:
                    continue
                reader.read(key, None if stored.value is None else self._codec.decode_raw(stored.value)[1]["state"])
        return reader

    def _load(self, loaded: Loaded) -> None:
        self.state.load(loaded.state)
        self.position = loaded.matches_offset
        for (rule_id, group_key), content in loaded.groups.items():
            if content["state"] is not None:
                self.state.engine.load_group(rule_id, group_key, content["state"])
            if content["sequence"]:
                self._number(rule_id, group_key, content["sequence"])

    def _number(self, rule_id: str, group_key: str, sequence: int) -> None:
        aggregate = aggregate_of(rule_id, group_key)
        self._sequences[aggregate] = sequence
        self._groups[aggregate] = (rule_id, group_key)

    def _fold(self, record: LogRecord, said: set[tuple[str, int]]) -> None:
        if record.verdict is not Verdict.VALID:
            return
        composite = self._codec.decode(record.value)
        if isinstance(composite, CompositeEvent) and composite.sequence is not None:
            said.add((composite.id, composite.revision))
            # An append that was stored a second time, late, must not take the sequence back.
            last = self._sequences.get(aggregate_of(composite.rule_id, _group_key_of(composite)), 0)
            self._number(composite.rule_id, _group_key_of(composite), max(last, composite.sequence))

    async def _epoch_at_beginning(self) -> int:
        """Without a checkpoint the log is read from its first record, which retention may have moved behind some fences."""
        composites = self._kafka.names.physical(COMPOSITES)
        tp = TopicPartition(composites, self.partition)
        async with self._kafka.consumer() as consumer:
            first = int((await consumer.beginning_offsets([tp]))[tp])
        return await epoch_at(self._kafka, self._codec, COMPOSITES, self.partition, first) if first else 0

    async def _replay(self, said: set[tuple[str, int]], end: int | None = None) -> int:
        """Applies the matches from our position to `end`, by default the present one; emits only what the log does not have."""
        tp = TopicPartition(self._matches, self.partition)
        count = 0
        missing: list[Emission] = []
        async with self._kafka.consumer() as consumer:
            if end is None:
                end = int((await consumer.end_offsets([tp]))[tp])
            async for stored in read_range(consumer, self._matches, self.partition, self.position, end):
                count += 1
                if count % _SLICE_RECORDS == 0:
                    await asyncio.sleep(0)
                missing += [
                    emission
                    for emission in self._apply(stored.value, stored.timestamp_ms, stored.offset)
                    if (emission.composite.id, emission.composite.revision) not in said
                ]
                if len(missing) >= _APPEND_MAX:
                    await self._emit(missing)
                    missing = []
        await self._emit(missing)
        self.position = max(self.position, end)
        return count

    # --- records ---

    async def handle(self, chunk: Chunk) -> None:
        """Applies a chunk; returns when what it leads to is acknowledged."""
        async with self._lock:
            if self._closed:
                return
            if not self._taken:
                await self._take()
            try:
                if chunk.start > self.position:
                    # Somebody else had the partition and committed: what counts for us is what we have read.
                    await self._replay(set(), chunk.start)
                await self._handle(chunk)
            except UnknownOutcome as error:
                _log.warning("append.unknown", partition=self.partition, code=error.code, message=error.message)
                await self._take_again()  # the replay includes this chunk
            if self._checkpoint_due():
                async with self._turn:
                    await self._checkpoint()

    async def _handle(self, chunk: Chunk) -> None:
        emissions: list[Emission] = []
        self.costs.slices.begin()
        for record in chunk.records:
            if self.costs.over(self.state.engine):
                await asyncio.sleep(0)
                self.costs.slices.begin()
            if record.offset < self.position:
                continue  # fetched again after a rebalance, or replayed
            began_s = time.thread_time()
            found = self._apply(record.value, record.timestamp, record.offset)
            if found:
                self.costs.spent([each.composite for each in found], began_s)
                emissions += found
        await self._emit(emissions)
        self.position = max(self.position, chunk.end)
        self._mark()

    def _mark(self) -> None:
        """What was said is acknowledged: others may be told how far it goes."""
        self.marks = self.state.marks(self.partition, self._log.next_offset)

    def _apply(self, value: bytes | None, timestamp_ms: int, offset: int) -> list[Emission]:
        if value is None:
            return []
        try:
            name, plain = self._codec.decode_raw(value)
        except InvalidInput as error:
            _log.error("match.unreadable", partition=self.partition, offset=offset, code=error.code)
            return []
        found = self.state.apply(name, plain, timestamp_ms * 1000)
        return [Emission(composite, offset, self.state.headers_of(composite)) for composite in found]

    async def _emit(self, emissions: Sequence[Emission]) -> None:
        for first in range(0, len(emissions), _APPEND_MAX):
            await self._append(emissions[first : first + _APPEND_MAX])

    async def _append(self, emissions: Sequence[Emission]) -> None:
        sequences = dict[str, int]()
        batch = []
        # Kafka's timestamp is that of the emission: event time may lie so far back that retention would delete it at once.
        now_ms = time.time_ns() // 1_000_000
        for emission in emissions:
            key = emission.key
            sequence = sequences[key] = sequences.get(key, self._sequences.get(key, 0)) + 1
            cause = InputPosition(topic=self._matches, partition=self.partition, offset=emission.offset)
            batch.append(self._log.numbered(emission.composite, key, sequence, cause, timestamp_ms=now_ms, headers=emission.headers))
        try:
            first = await self._log.append_encoded(batch)
        except TooLarge as error:
            if len(emissions) == 1:
                raise Defect("composite.too-large", f"A composite of {emissions[0].composite.rule_id} exceeds the log's batch.") from error
            middle = len(emissions) // 2
            await self._append(emissions[:middle])
            await self._append(emissions[middle:])
            return
        self.emitted += len(emissions)
        if self._actions is not None:
            self._actions.said(
                [self._log.stored(ready, first + index) for index, ready in enumerate(batch) if has_actions(ready)], self._log.next_offset
            )
        for emission in emissions:
            rule_id, _, group_key = emission.key.partition("/")
            self._number(rule_id, group_key, sequences[emission.key])
            self._changed.add((rule_id, group_key))

    # --- checkpoints ---

    def _checkpoint_due(self) -> bool:
        if self.state.counters.matches - self._checkpointed_matches >= self._ports.checkpoint_records:
            return True
        if self._turn.locked():
            return False  # one partition after the other: each holds up only its own records
        waited_s = asyncio.get_running_loop().time() - self._checkpointed_at
        return self.position > self._checkpointed_position and waited_s >= self._ports.checkpoint_interval_s

    async def _checkpoint(self) -> None:
        self._changed |= self.state.engine.take_changed()
        raws = list[Raw]()
        for entry in self._writer.groups((group, self._content(group)) for group in sorted(self._changed)):
            raws.append(self._raw(entry))
            if len(raws) % _SLICE_GROUPS == 0:
                await asyncio.sleep(0)
        await self._write(raws)
        position, composites = self.position, self._log.next_offset
        await self._write([self._raw(self._writer.completion(matches_offset=position, composites_offset=composites, state=self._dump()))])
        self._changed = set()
        self._checkpointed_at, self._checkpointed_position = asyncio.get_running_loop().time(), position
        self._checkpointed_matches = self.state.counters.matches
        await self._write([self._raw(entry) for entry in (*self._writer.completed(), *(Entry(key, "", None) for key in self._older))])
        self._older = []

    def _dump(self) -> Json:
        actions = None if self._actions is None else self._actions.dump()
        return {**self.state.dump(), "actions": actions}

    def _content(self, group: tuple[str, str]) -> dict[str, object] | None:
        state = self.state.engine.dump_group(*group)
        sequence = self._sequences.get(aggregate_of(*group), 0)
        return None if state is None and not sequence else {"state": state, "sequence": sequence}

    async def _write(self, raws: Sequence[Raw]) -> None:
        if raws:
            await send_batches(self._snapshots_producer, self._snapshots, {self.partition: raws})

    def _raw(self, entry: Entry) -> Raw:
        if entry.state is None:
            return entry.key.encode(), None, []
        snapshot = Snapshot(
            id=derived_id("snapshot", entry.key, self.position), type="correlation.checkpointed", source=f"mplp/{self._name}",
            subject=entry.aggregate_id, aggregate_id=entry.aggregate_id, log=self._matches, partition=self.partition, offset=self.position,
            epoch=self._log.epoch, state=entry.state,
        )  # fmt: skip
        return entry.key.encode(), self._codec.encode(snapshot), headers_of(snapshot)

    async def close(self, *, checkpoint: bool = False) -> None:
        """Gives the partition up; with a last checkpoint if it is ours to write."""
        async with self._lock:
            if self._closed:
                return
            self._closed, self.marks = True, ()
            if self._actions is not None:
                await self._actions.close()
            if checkpoint and self._taken and self._log.held and self.position > self._checkpointed_position:
                await self._checkpoint()
            await self._log.close()


def _group_key_of(composite: CompositeEvent) -> str:
    """The group's canonical text, which lies behind the rule's id in the key."""
    assert composite.aggregate_id is not None
    return composite.aggregate_id.partition("/")[2]
