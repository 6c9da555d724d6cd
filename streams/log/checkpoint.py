"""Checkpoints of one lane: what changed is written beside the log, and then one record that says so.

A round: (1) in one step, without giving way, the references to all states that changed are taken, with the offset X that the next event
will get; (2) when everything before X is acknowledged and its effects are handed on, what ended is parked and the other states are
written; (3) then the checkpoint; (4) only after that what it made superfluous is deleted, and what was parked leaves memory.
States are immutable, so decisions go on meanwhile. A round that fails (the broker is away, the disk is full) leaves the last
checkpoint as it is; what it had captured is captured again by the next.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import structlog

from streams import limits
from streams.errors import BackboneError, Defect
from streams.log.archive import Archive, Leaving, kept_snapshot, write_sliced
from streams.log.lanes import Lane, Ownership, Ports
from streams.log.memory import Captured
from streams.log.ports import Kept
from streams.log.resting import Resting
from streams.log.snapshot import CHECKPOINTED, SNAPSHOTTED, Checkpoint, Frozen, checkpoint_key, dump_checkpoint, dump_state, state_key

_log = structlog.get_logger("log.checkpoint")

#: Pause after a round that failed, seconds.
RETRY_S = 2.0


@dataclass(slots=True)
class _Sorted:
    """What changed: still in memory, and what leaves it."""

    live: list[tuple[str, Frozen]]
    leaving: list[Leaving]


class Checkpointer:
    """Writes the checkpoints of one lane as long as it runs."""

    def __init__(self, lane: Lane, owned: Ownership, ports: Ports) -> None:
        self._lane = lane
        self._owned = owned
        self._ports = ports
        self._archive = Archive(lane, ports.codec)
        self._resting = Resting(lane, ports.codec)

    async def run(self) -> None:
        """Until cancelled."""
        settings = self._ports.checkpointing
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.interval_ms / 1000):
                    await self._lane.until_done(self._lane.checkpoint_offset + settings.records)
            if self._lane.done <= self._lane.checkpoint_offset:
                continue
            try:
                await self.write()
                self._ended(failed=False)
            except Defect:
                raise
            except (BackboneError, OSError, TimeoutError) as error:
                self._ended(failed=True)
                _log.warning("checkpoint.failed", log=self._lane.fold.log, partition=self._owned.partition, reason=str(error))
                await asyncio.sleep(RETRY_S)

    def _ended(self, *, failed: bool) -> None:
        self._lane.checkpoint_late = failed
        self._owned.work.set()  # the decider may have waited for it

    async def write(self) -> None:
        """One round."""
        lane, fold = self._lane, self._lane.fold
        offset, time_us, positions = fold.next_offset, fold.time_us, self._positions()
        captured = fold.view.capture()
        try:
            await lane.until_done(offset)
            await self._ports.effects.settled()
            changed = await self._sort(captured)
            await self._archive.park(changed.leaving, before=offset)
            await self._archive.index_facts(captured.facts, before=offset)
            await write_sliced(lane.snapshots, self._states(changed, offset))
            resting = await self._rest(offset)
            checkpoint = Checkpoint(
                epoch=fold.epoch, offset=offset, time_us=time_us, positions=positions,
                live=len(lane.kept.states.keys() - resting), gone=self._gone(resting),
                epochs=tuple(sorted({*lane.kept.states.values(), fold.epoch})),
                parked=tuple(fold.view.parked.places()), facts=tuple(fold.view.facts.places()),
                resting=tuple(fold.view.resting.places()), rested=fold.view.rested.numbers(),
            )  # fmt: skip
            await lane.snapshots.write([self._record(checkpoint)])
        except BaseException:
            fold.view.restore(captured)
            raise
        lane.checkpoint_offset = offset
        for each in changed.leaving:
            fold.evict(each.aggregate_id, each.frozen.sequence, offset)
        for aggregate_id, sequence in resting.items():
            lane.kept.drop(aggregate_id)
            fold.evict(aggregate_id, sequence, offset)
        fold.view.forget_facts(captured.facts)
        await self._tombstone()

    async def make_room(self, offset: int) -> None:
        """While a long log is replayed: everything that may leave memory does, as at a checkpoint that is never written."""
        lane, fold = self._lane, self._lane.fold
        captured = fold.view.capture()
        try:
            changed = await self._sort(captured)
            await self._archive.park(changed.leaving, before=offset)
            await self._archive.index_facts(captured.facts, before=offset)
            for each in changed.leaving:
                lane.kept.drop(each.aggregate_id)
                fold.evict(each.aggregate_id, each.frozen.sequence, offset)
            fold.view.forget_facts(captured.facts)
            for number, (aggregate_id, frozen) in enumerate(changed.live, 1):
                lane.kept.sizes.pop(aggregate_id, None)
                lane.kept.sizes[aggregate_id] = len(dump_state(fold.machine.states, frozen))
                if number % limits.SNAPSHOT_SLICE == 0:
                    await asyncio.sleep(0)
            for aggregate_id, sequence in (await self._rest(offset)).items():
                lane.kept.drop(aggregate_id)
                fold.evict(aggregate_id, sequence, offset)
            # What stays has no snapshot yet: the first checkpoint writes it.
            fold.view.changed.update((aggregate_id, None) for aggregate_id, _ in changed.live if aggregate_id in fold.view.sequences)
        except BaseException:
            fold.view.restore(captured)
            raise

    async def _rest(self, offset: int) -> dict[str, int]:
        """Aggregates that leave memory though they live, with their sequences."""
        settings = self._ports.checkpointing
        if self._resting.is_due(settings.window_us):
            await self._resting.renew(before=offset, window_us=settings.window_us)
        chosen = self._resting.choose(settings.live_bytes)
        await self._resting.leave(chosen, before=offset)
        return {each.aggregate_id: each.frozen.sequence for each in chosen}

    def _positions(self) -> dict[str, int]:
        """Input positions; of other lanes' logs up to the first event that waits, also where none is an input of ours."""
        fold = self._lane.fold
        positions = dict(fold.positions)
        for source in self._owned.lanes.values():
            if source.machine.log in self._lane.machine.source_logs:
                positions[source.fold.log] = self._owned.source_position(self._lane, source)
        return positions

    async def _sort(self, captured: Captured) -> _Sorted:
        """What ended and has nothing left to do leaves memory, and so does what has no state."""
        window_us = self._ports.checkpointing.window_us
        result = _Sorted([], [])
        for number, (aggregate_id, frozen) in enumerate(captured.aggregates, 1):
            ended_us = self._lane.fold.time_us if frozen.state is None else self._ended_us(frozen.state)
            if ended_us is None:
                result.live.append((aggregate_id, frozen))
            else:
                # Entries of when it rested must not outlive this one (see `resting`).
                rested = self._lane.fold.view.resting.may_have(aggregate_id, self._lane.fold.time_us)
                last_us = self._lane.fold.time_us if rested else ended_us
                result.leaving.append(Leaving(aggregate_id, frozen, last_us + window_us))
            if number % (8 * limits.SNAPSHOT_SLICE) == 0:
                await asyncio.sleep(0)
        return result

    def _ended_us(self, state: Any) -> int | None:
        machine = self._lane.machine
        ended_us = machine.ended(state)
        if ended_us is None or machine.due(state) is not None:
            return None
        # Effects that the broker has are done; what was handed over in memory is done when the log shows it.
        if any(self._owned.is_local(send, self._ports.names) for send in machine.outstanding(state)):
            return None
        return ended_us

    def _states(self, changed: _Sorted, offset: int) -> Iterator[Kept]:
        fold, kept = self._lane.fold, self._lane.kept
        for each in changed.leaving:
            kept.drop(each.aggregate_id)
        for aggregate_id, frozen in changed.live:
            key = state_key(fold.epoch, aggregate_id)
            before = kept.states.get(aggregate_id, fold.epoch)
            if before != fold.epoch:
                kept.stale.add(state_key(before, aggregate_id))
            # Noted first: whether or not it is acknowledged, it may be there.
            kept.states[aggregate_id] = fold.epoch
            kept.stale.discard(key)
            state = dump_state(fold.machine.states, frozen)
            kept.sizes.pop(aggregate_id, None)  # the last one to have changed comes last
            kept.sizes[aggregate_id] = len(state)
            yield self._snapshot(SNAPSHOTTED, key, aggregate_id, offset, state)

    def _gone(self, resting: Collection[str]) -> tuple[str, ...]:
        ids = {key.partition("/")[2] for key in self._lane.kept.stale}
        return tuple(sorted((ids - self._lane.kept.states.keys()).union(resting)))

    def _record(self, checkpoint: Checkpoint) -> Kept:
        key = checkpoint_key(checkpoint.epoch, self._owned.partition)
        content = dump_checkpoint(checkpoint, self._lane.machine.states.version)
        return self._snapshot(CHECKPOINTED, key, key.partition("/")[2], checkpoint.offset, content)

    def _snapshot(self, record_type: str, key: str, aggregate_id: str, offset: int, content: bytes) -> Kept:
        fold = self._lane.fold
        return kept_snapshot(
            self._ports.codec, key, record_type, aggregate_id, log=fold.log, partition=self._owned.partition,
            offset=offset, epoch=fold.epoch, state=content, time_us=fold.time_us,
        )  # fmt: skip

    async def _tombstone(self) -> None:
        """Deletes what the checkpoint made superfluous. Until that is done the next checkpoints name it as gone."""
        stale = self._lane.kept.stale
        keys = sorted(stale)
        await write_sliced(self._lane.snapshots, (Kept(key=key, value=None) for key in keys))
        stale.difference_update(keys)
