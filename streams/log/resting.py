"""Aggregates that live and rest: when there are too many in memory, those to which nothing has happened for longest leave it.

An owner's memory must not grow with what people begin and never end. A state in memory costs some thousand bytes; one that rests costs
the 20 bytes of its entry in an index. It lies in a *block* in the topic of parked states: up to 256 states, compressed, so that all of
them can be read again where a list wants them. The rules:

1. A round of checkpoints chooses, oldest change first, among what `Machine.rests` until the states in memory are within their limit. What
   changed since the round began stays.
2. What rests has no timer and nothing outstanding. A decision that names it loads it; if it changes it is in memory again, and its entry
   is outdated: what is in memory comes first, of several entries the one that lies furthest back in the topic.
3. That topic is deleted by age, so blocks are written anew (`Resting.renew`) in half the time after which they may go, and when
   more entries are outdated than are not. A checkpoint whose blocks may be gone is not used: the log is the truth.
4. Renewals come sooner than an entry of the index of parked aggregates expires, so that nothing comes back which has ended since.

A decision that asks for all aggregates is made in a thread, on a copy of the view (`Whole`): it costs what reading the blocks costs, and
the other partitions of the process do not wait for it. A block has states of one class, so that a list unpacks only what it lists.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from streams.codec.avro import Codec
from streams.log.archive import Archive, Leaving, kept_snapshot
from streams.log.index import Entry as Place
from streams.log.index import Index
from streams.log.lanes import Lane, Refold
from streams.log.memory import Memory, Rested
from streams.log.ports import Stored
from streams.log.snapshot import RESTED, STATE_AT, Frozen, dump_block, dump_state, load_block, thawed
from streams.log.types import Machine

#: Until when the entry of something that rests counts, microseconds since the epoch: the last that an index can tell.
FOREVER_US = (2**32 - 1) * 1_000_000
BLOCK_STATES_MAX = 256
BLOCK_BYTES_MAX = 256 * 1024
#: A round that has to choose goes on until so much of the limit is free, so that it makes few large blocks and not many small ones.
FREE_SHARE = 0.25
#: Outdated entries, and blocks beyond the fewest possible, that are not worth a renewal.
OUTDATED_MAX = 10_000
BLOCKS_SPARE_MAX = 200
#: Blocks with no more other records between them than this are read as one run, for some 0.1 ms each: looking one up by its offset costs
#: 3 ms. A shorter run than `RUN_MIN` is looked up, block by block: reading one costs a connection.
RUN_GAP_MAX, RUN_MIN = 32, 8
#: Between machine and class of states, in the subject of a block.
_RESTING = "/resting/"
#: Entries of an index that a renewal collects before it writes them.
RENEWED_ENTRIES = 32 * 1024


def blocks_of(states: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """States in blocks that are neither too long nor too large."""
    block: list[tuple[str, bytes]] = []
    size = 0
    for each in states:
        block.append(each)
        size += len(each[1])
        if len(block) == BLOCK_STATES_MAX or size > BLOCK_BYTES_MAX:
            yield block
            block, size = [], 0
    if block:
        yield block


@dataclass(frozen=True, slots=True)
class Block:
    """A block as it is read. `kind`: name of the class of all states in it; empty if it does not say (before there were kinds)."""

    place: int
    content: bytes
    kind: str = ""


@dataclass(slots=True)
class Whole(Memory):
    """A copy of a view as it is at one moment, with all that rests: for a decision made in a thread."""

    machine: Machine[Any] | None = None
    blocks: Sequence[Block] = field(default_factory=list)  #: the newest first

    def states(self, *, resting: bool = True, kind: type[Any] | None = None) -> Iterator[tuple[str, Any]]:
        """See `View.states`. What is not of the class is not made a state of: that would be most of the work."""
        for aggregate_id, state in self.aggregates.items():
            if (aggregate_id not in self.revived or aggregate_id in self.awoken) and (kind is None or isinstance(state, kind)):
                yield aggregate_id, state
        assert self.machine is not None
        seen: set[str] = set()  # of several entries in blocks the first is the newest
        for block in self.blocks if resting else ():
            if kind is not None and block.kind not in ("", kind.__name__):
                continue
            place = block.place
            for aggregate_id, content in load_block(block.content):
                if kind is not None and not self.machine.states.may_be(content[STATE_AT], kind):
                    continue  # an aggregate never becomes one of another class
                if aggregate_id in seen or aggregate_id in self.sequences:
                    continue
                seen.add(aggregate_id)
                if len(self.parked) and next(self.parked.find(aggregate_id, self.time_us), -1) > place:
                    continue
                state = thawed(self.machine.states, content).state
                if self.machine.rests(state, self.time_us):
                    yield aggregate_id, state


def _kind_of(frozen: Frozen) -> str:
    return type(frozen.state).__name__


def _places(index: Index) -> set[int]:
    return set().union(*(segment.offsets for segment in index.segments))


def runs_of(offsets: Iterable[int]) -> Iterator[list[int]]:
    """Ascending offsets in runs: no more than `RUN_GAP_MAX` other records lie between neighbours."""
    run: list[int] = []
    for offset in offsets:
        if run and offset - run[-1] > RUN_GAP_MAX + 1:
            yield run
            run = []
        run.append(offset)
    if run:
        yield run


def copied(index: Index) -> Index:
    """An index that stays as it is now."""
    return Index(list(index.segments), list(index.pending))


class Resting:
    """Of one lane."""

    def __init__(self, lane: Lane, codec: Codec) -> None:
        self._lane = lane
        self._codec = codec
        self._archive = Archive(lane, codec)

    # --- leaving ----------------------------------------------------------------------------------------------------

    def choose(self, live_bytes: int) -> list[Leaving]:
        """What is to rest, so that states of at most `live_bytes` (as they are written) stay in memory."""
        fold, view, sizes = self._lane.fold, self._lane.fold.view, self._lane.kept.sizes
        excess = sum(sizes.values()) - live_bytes
        if excess <= 0:
            return []
        excess += int(live_bytes * FREE_SHARE)
        chosen: list[Leaving] = []
        for aggregate_id, size in sizes.items():
            if excess <= 0:
                break
            state = view.aggregates.get(aggregate_id)
            if state is None or aggregate_id in view.changed or not fold.machine.rests(state, fold.time_us):
                continue
            frozen = Frozen(
                state=state, sequence=view.sequences[aggregate_id], born=view.born[aggregate_id], since=view.since_of(aggregate_id)
            )
            chosen.append(Leaving(aggregate_id, frozen, FOREVER_US))
            excess -= size
        return chosen

    async def leave(self, chosen: Sequence[Leaving], *, before: int) -> None:
        """Writes what rests from now on, as it is before an offset of the log, and adds it to the index."""
        if not chosen:
            return
        fold = self._lane.fold
        rested = fold.view.rested
        if not len(fold.view.resting):
            fold.view.rested = rested = Rested(since_us=fold.time_us)
        places: list[Place] = []
        kinds: dict[str, list[Leaving]] = {}
        for each in chosen:
            kinds.setdefault(_kind_of(each.frozen), []).append(each)
        for kind, of_kind in kinds.items():
            for block in blocks_of((each.aggregate_id, dump_state(fold.machine.states, each.frozen)) for each in of_kind):
                places += await self._write(kind, block, before)
                rested.blocks += 1
        rested.aggregates += len(chosen)
        await self._archive.add(fold.view.resting, "resting", places, before=before)

    async def _write(self, kind: str, block: Sequence[tuple[str, bytes]], before: int) -> list[Place]:
        fold = self._lane.fold
        record = kept_snapshot(
            self._codec, f"{fold.log}/{block[0][0]}", RESTED, f"{self._lane.machine.name}{_RESTING}{kind}", log=fold.log,
            partition=fold.view.partition, offset=before, epoch=fold.epoch, state=dump_block(block), time_us=fold.time_us,
        )  # fmt: skip
        (offset,) = await self._lane.parked.write([record])
        await asyncio.sleep(0)
        return [Place(aggregate_id, offset, FOREVER_US) for aggregate_id, _ in block]

    # --- all of it --------------------------------------------------------------------------------------------------

    async def whole(self, time_us: int) -> Whole:
        """The view as it is now, with what rests, for a decision at `time_us`."""
        view = self._lane.fold.view
        for index in (view.resting, view.parked, view.facts):
            await self._archive.complete(index)
        copy = Whole(
            partition=view.partition, partitions=view.partitions, aggregates=dict(view.aggregates), remembered=dict(view.remembered),
            time_us=time_us, sequences=dict(view.sequences), parked=copied(view.parked), facts=copied(view.facts),
            resting=copied(view.resting), absent=set(view.absent), revived=set(view.revived), awoken=set(view.awoken),
            machine=self._lane.machine,
        )  # fmt: skip
        copy.blocks = await self._all_blocks(copy.resting)
        return copy

    async def _all_blocks(self, index: Index) -> list[Block]:
        """All blocks of an index, the newest first. Raises `Refold` if one is gone. They are read as they lie, where they lie together."""
        found: list[Block] = []
        for run in runs_of(sorted(_places(index))):
            if len(run) < RUN_MIN:
                found += [await self._block(offset) for offset in run]
                continue
            wanted = set(run)
            async for stored in self._lane.parked.read(run[0], run[-1] + 1):
                if stored.offset in wanted:
                    wanted.remove(stored.offset)
                    found.append(self._content(stored.offset, stored))
            if wanted:
                raise self._gone(min(wanted))
        return found[::-1]

    async def _blocks(self, index: Index) -> AsyncIterator[Block]:
        """All blocks of an index, the newest first. Raises `Refold` if one is gone."""
        for offset in sorted(_places(index), reverse=True):
            yield await self._block(offset)

    async def _block(self, offset: int) -> Block:
        return self._content(offset, await self._lane.parked.at(offset))

    def _content(self, offset: int, stored: Stored | None) -> Block:
        if stored is None or stored.value is None:
            raise self._gone(offset)
        plain = self._codec.decode_raw(stored.value)[1]
        return Block(offset, plain["state"], plain["aggregate_id"].rpartition(_RESTING)[2] if _RESTING in plain["aggregate_id"] else "")

    def _gone(self, offset: int) -> Refold:
        return Refold(f"a block of aggregates that rest is gone: {self._lane.parked.topic}@{offset}")

    # --- renewal ----------------------------------------------------------------------------------------------------

    def is_due(self, window_us: int) -> bool:
        """Whether blocks may soon be gone, or most of what they and the index have is outdated."""
        view, rested = self._lane.fold.view, self._lane.fold.view.rested
        entries, aggregates = len(view.resting), max(0, rested.aggregates)
        return entries > 0 and (
            self._lane.fold.time_us - rested.since_us > window_us // 2
            or entries > 2 * aggregates + OUTDATED_MAX
            or rested.blocks > 4 * aggregates // BLOCK_STATES_MAX + BLOCKS_SPARE_MAX
        )

    async def renew(self, *, before: int, window_us: int) -> None:
        """Writes all that rests anew, and nothing of what is outdated; what rests no more is parked."""
        view, time_us = self._lane.fold.view, self._lane.fold.time_us
        for index in (view.resting, view.parked):
            await self._archive.complete(index)
        new, rested, places = Index(), Rested(since_us=time_us), list[Place]()
        blocks: dict[str, list[tuple[str, bytes]]] = {}
        ended: list[Leaving] = []
        async for aggregate_id, content in self._current(copied(view.resting)):
            frozen = thawed(self._lane.machine.states, content)
            if not self._lane.machine.rests(frozen.state, time_us):
                ended.append(Leaving(aggregate_id, frozen, time_us + window_us))
                continue
            kind = _kind_of(frozen)
            block = blocks.setdefault(kind, [])
            block.append((aggregate_id, orjson.dumps(content)))
            rested.aggregates += 1
            if len(block) == BLOCK_STATES_MAX or sum(len(raw) for _, raw in block) > BLOCK_BYTES_MAX:
                places += await self._write(kind, blocks.pop(kind), before)
                rested.blocks += 1
            if len(places) > RENEWED_ENTRIES:
                await self._archive.add(new, "resting", places, before=before)
                places = []
        for kind, block in blocks.items():
            places += await self._write(kind, block, before)
            rested.blocks += 1
        await self._archive.add(new, "resting", places, before=before)
        await self._archive.park(ended, before=before)
        view.resting, view.rested = new, rested

    async def _current(self, index: Index) -> AsyncIterator[tuple[str, Any]]:
        """What rested as the round began: of several entries of an aggregate the newest, and nothing that was in memory or has ended."""
        view = self._lane.fold.view
        seen: set[str] = set()
        async for block in self._blocks(index):
            for aggregate_id, content in load_block(block.content):
                if aggregate_id in seen:
                    continue
                seen.add(aggregate_id)
                # What has changed since the round began rested when it did, and counts so for its checkpoint.
                rests = aggregate_id not in view.sequences or aggregate_id in view.revived or aggregate_id in view.changed
                if rests and not await self._has_ended(aggregate_id, block.place):
                    yield aggregate_id, content
            await asyncio.sleep(0)

    async def _has_ended(self, aggregate_id: str, offset: int) -> bool:
        """Whether an aggregate was parked after it had rested at an offset."""
        for place in list(self._lane.fold.view.parked.find(aggregate_id, self._lane.fold.time_us)):
            stored = await self._lane.parked.at(place) if place > offset else None
            if stored is not None and stored.value is not None and self._codec.decode_raw(stored.value)[1]["aggregate_id"] == aggregate_id:
                return True
        return False
