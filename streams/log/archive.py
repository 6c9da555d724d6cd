"""What left memory, and how it comes back: parked states and indexes in the topic of parked states, facts in the log.

That topic is deleted by age: what lies there longer than the deduplication window is not needed any more. Nothing in it is
ever overwritten, so a place once told stays true.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from streams import limits
from streams.codec.avro import Codec, headers_of
from streams.errors import InvalidInput
from streams.log.index import Entry as Place
from streams.log.index import Index, Segment, merge, segment_of
from streams.log.lanes import Lane, Refold
from streams.log.memory import NotInMemory
from streams.log.ports import Kept, SnapshotsPort
from streams.log.rule import ReadersRule, Verdict
from streams.log.snapshot import INDEXED, PARKED, RESTED, Frozen, dump_state, load_block, load_state, numbers_of, thawed
from streams.log.types import Entry
from streams.records import InputPosition, LogEvent, Snapshot, derived_id, from_micros

_log = structlog.get_logger("log.archive")

#: Entries from which on a merge of segments goes to a thread.
_MERGE_INLINE_MAX = 2000


class Archive:
    """Of one lane."""

    def __init__(self, lane: Lane, codec: Codec) -> None:
        self._lane = lane
        self._codec = codec

    # --- coming back ------------------------------------------------------------------------------------------------

    async def load(self, missing: NotInMemory) -> None:
        """Brings back what a decision misses, or notes that it is not there. Ports' errors pass."""
        view = self._lane.fold.view
        if missing.kind == "fact":
            await self.complete(view.facts)
            for offset in list(view.facts.find(missing.key, view.time_us)):  # while it is read, a checkpoint may merge segments
                if await self._recall(missing.key, offset):
                    return
        else:
            await self.complete(view.parked)
            await self.complete(view.resting)
            resting = set(view.resting.find(missing.key, view.time_us))
            # What lies furthest back is the newest: an aggregate that rested may have ended since.
            for offset in sorted(resting.union(view.parked.find(missing.key, view.time_us)), reverse=True):
                if await self._revive(missing.key, offset, rested=offset in resting):
                    return
        view.absent.add((missing.kind, missing.key))

    async def complete(self, index: Index) -> None:
        """Loads what a checkpoint named and nobody has needed yet."""
        while index.pending:
            index.loaded(await self._segment(*index.pending[0]))

    async def _segment(self, place: int, entries: int) -> Segment:
        stored = await self._lane.parked.at(place)
        if stored is None or stored.value is None:
            # Older than the window: nothing in it counts any more.
            _log.warning("index.gone", topic=self._lane.parked.topic, offset=place, entries=entries)
            return replace(segment_of(()), place=place)
        record = self._codec.decode_raw(stored.value)[1]
        return Segment.from_bytes(record["state"], place)

    async def _revive(self, aggregate_id: str, offset: int, *, rested: bool) -> bool:
        stored = await self._lane.parked.at(offset)
        if stored is None or stored.value is None:
            if rested:
                raise Refold(f"a block of aggregates that rest is gone: {self._lane.parked.topic}@{offset}")
            return False
        record = self._codec.decode_raw(stored.value)[1]
        fold = self._lane.fold
        if record["log"] != fold.log:
            return False
        if record["type"] == RESTED:
            return self._awake(aggregate_id, record["state"])
        if record["aggregate_id"] != aggregate_id:
            return False
        try:
            frozen = load_state(fold.machine.states, record["state"])
        except InvalidInput as error:
            _log.warning("parked.unreadable", log=fold.log, aggregate_id=aggregate_id, code=error.code)
            frozen = await self._from_log(aggregate_id, record["state"], record["offset"])
        fold.revive(aggregate_id, frozen)
        return True

    def _awake(self, aggregate_id: str, block: bytes) -> bool:
        fold = self._lane.fold
        content = next((content for id_, content in load_block(block) if id_ == aggregate_id), None)
        if content is None:
            return False
        fold.revive(aggregate_id, thawed(fold.machine.states, content), rested=True)
        return True

    async def _from_log(self, aggregate_id: str, raw: bytes, end: int) -> Frozen:
        """The state of an aggregate, folded from its events before `end`: what was parked by a version with other states."""
        sequence, born = numbers_of(raw)
        fold, state = self._lane.fold, None
        rule = ReadersRule(self._lane.epoch_before(born))
        async for stored in self._lane.log.read(born, end):
            if rule.judge_headers(stored.headers) is not Verdict.VALID:
                continue
            event: LogEvent = self._codec.decode(stored.value)  # type: ignore[assignment]
            if event.aggregate_id == aggregate_id and event.sequence:
                state = fold.machine.evolve(state, self._entry(event, stored.offset))
        return Frozen(state=state, sequence=sequence, born=born, since=born)

    async def _recall(self, key: str, offset: int) -> bool:
        """Looks a fact up in the event that it is of."""
        stored = await self._lane.events.at(offset)
        if stored is None or stored.value is None:
            return False
        event: LogEvent = self._codec.decode(stored.value)  # type: ignore[assignment]
        fold = self._lane.fold
        for fact in fold.machine.remember(self._entry(event, offset)):
            if fact.key == key:
                fold.view.recollect(fact)
                return True
        return False

    def _entry(self, event: LogEvent, offset: int) -> Entry:
        fold = self._lane.fold
        return Entry(event=event, position=InputPosition(topic=fold.log, partition=fold.view.partition, offset=offset))

    # --- leaving ----------------------------------------------------------------------------------------------------

    async def park(self, leaving: Sequence[Leaving], *, before: int) -> None:
        """Writes states that leave memory, as they are before an offset of the log, and adds them to the index."""
        fold = self._lane.fold
        records = (self._record(PARKED, each.aggregate_id, dump_state(fold.machine.states, each.frozen), before=before) for each in leaving)
        offsets = await write_sliced(self._lane.parked, records)
        places = [Place(each.aggregate_id, offset, each.expires_us) for each, offset in zip(leaving, offsets, strict=True)]
        await self.add(fold.view.parked, "aggregates", places, before=before)

    async def index_facts(self, facts: Sequence[Place], *, before: int) -> None:
        """Adds facts that leave memory to their index."""
        await self.add(self._lane.fold.view.facts, "facts", facts, before=before)

    async def add(self, index: Index, name: str, places: Sequence[Place], *, before: int) -> None:
        """Adds entries to an index, and writes the segment that has them."""
        time_us = self._lane.fold.time_us
        index.expire(time_us)
        new = segment_of(place for place in places if place.expires_us > time_us)
        if not len(new):
            return
        count = index.mergeable(len(new))
        if count:
            parts = [*index.segments[-count:], new]
            inline = sum(map(len, parts)) <= _MERGE_INLINE_MAX
            new = merge(parts, time_us) if inline else await asyncio.to_thread(merge, parts, time_us)
        record = self._record(INDEXED, f"{self._lane.machine.name}/{name}", new.to_bytes(), before=before)
        (place,) = await self._lane.parked.write([record])
        index.replace(count, replace(new, place=place))

    def _record(self, record_type: str, aggregate_id: str, state: bytes, *, before: int) -> Kept:
        fold = self._lane.fold
        return kept_snapshot(
            self._codec, f"{fold.log}/{aggregate_id}", record_type, aggregate_id, log=fold.log, partition=fold.view.partition,
            offset=before, epoch=fold.epoch, state=state, time_us=fold.time_us,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Leaving:
    """An aggregate that leaves memory, and until when it can come back (microseconds since the epoch)."""

    aggregate_id: str
    frozen: Frozen
    expires_us: int


def kept_snapshot(
    codec: Codec, key: str, record_type: str, aggregate_id: str, *,
    log: str, partition: int, offset: int, epoch: int, state: bytes, time_us: int,
) -> Kept:  # fmt: skip
    """A snapshot as it is written."""
    record = Snapshot(
        id=derived_id(record_type, key, offset), type=record_type, source="mplp/log", subject=aggregate_id, time=from_micros(time_us),
        aggregate_id=aggregate_id, log=log, partition=partition, offset=offset, epoch=epoch, state=state,
    )  # fmt: skip
    return Kept(key=key, value=codec.encode(record), headers=headers_of(record))


async def write_sliced(port: SnapshotsPort, records: Iterable[Kept]) -> list[int]:
    """Writes records while they are made; the event loop gets its turn in between."""
    offsets: list[int] = []
    batch: list[Kept] = []
    size = 0
    for number, record in enumerate(records, 1):
        batch.append(record)
        size += len(record.value or b"")
        if size > limits.SNAPSHOT_WRITE_BYTES:
            offsets += await port.write(batch)
            batch, size = [], 0
        elif number % limits.SNAPSHOT_SLICE == 0:
            await asyncio.sleep(0)
    if batch:
        offsets += await port.write(batch)
    return offsets
