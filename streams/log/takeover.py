"""A takeover: the last usable checkpoint, the log behind it, our own fence, and what is still to be decided or performed.

Per machine: the partition of the topic of snapshots is read once; the best checkpoint is loaded; the log is claimed, which folds it from
the checkpoint's offset on. What a checkpoint says about the log is compared with the log; one that does not agree, or that this
version cannot read, is not used: then an older one is, or the whole log is folded. Readers of other machines' logs come first: their
positions say which events of those logs are still inputs, and from where on those logs are read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import structlog

from streams import limits
from streams.causation import depth_of
from streams.errors import InvalidInput, Unavailable
from streams.log.archive import Archive
from streams.log.checkpoint import Checkpointer
from streams.log.fenced import LogRecord
from streams.log.fold import LogFold
from streams.log.inputs import RANK_ANSWER, RANK_COMMAND, RANKS, Arrived, Source
from streams.log.lanes import Kept, Lane, Ownership, Ports
from streams.log.memory import NotInMemory
from streams.log.ports import Stored
from streams.log.rule import FENCED, Verdict, type_and_epoch
from streams.log.snapshot import Shelf, Usable, usable
from streams.log.types import Machine
from streams.records import LogEvent, Position, to_micros
from streams.topics import PARKED

_log = structlog.get_logger("log.takeover")


#: Log records replayed, in checkpoints' worth, after which what may leave memory does: more than lies behind a checkpoint that is kept up.
ROOM_ROUNDS = 2


class Disagreement(Exception):
    """The log does not show what the checkpoint says."""


async def take_over(owned: Ownership, machines: Sequence[Machine[Any]], ports: Ports, *, whole: bool = False) -> None:
    """Fills `owned`: every lane claimed, inboxes open. `whole`: from the logs alone, without checkpoints."""
    began = time.monotonic()
    for machine in sorted(machines, key=lambda machine: not machine.source_logs):
        await _Recovery(owned, machine, ports, whole).run()
    inboxes = owned.inboxes = ports.open_inboxes(tuple(owned.readers), owned.partition)
    positions = {topic: owned.lanes[name].fold.positions.get(topic, -1) for topic, name in owned.readers.items()}
    owned.ends = dict(await inboxes.open(positions))
    for topic in owned.readers:
        behind = inboxes.position(topic) < owned.ends[topic]
        owned.inputs.add(topic, RANKS.get(ports.names.logical(topic), RANK_COMMAND), behind=behind)
    owned.resumable = {send.record.id: send for lane in owned.lanes.values() for send in lane.fold.outstanding()}
    _log.info(
        "partition.taken", partition=owned.partition, epochs={name: lane.log.epoch for name, lane in owned.lanes.items()},
        from_offsets={name: lane.checkpoint_offset for name, lane in owned.lanes.items()},
        folded={name: lane.folded for name, lane in owned.lanes.items()}, backlog=owned.backlog(),
        seconds=round(time.monotonic() - began, 3),
    )  # fmt: skip


class _Recovery:
    """Of one machine."""

    def __init__(self, owned: Ownership, machine: Machine[Any], ports: Ports, whole: bool) -> None:
        self._whole = whole
        self._owned = owned
        self._machine = machine
        self._ports = ports
        self._readers = [lane for lane in owned.lanes.values() if machine.log in lane.machine.source_logs]
        self._replayed: dict[str, Source] = {}
        self._lane = Lane(
            machine=machine, fold=self._empty(), log=ports.open_log(machine.log, owned.partition),
            snapshots=ports.open_snapshots(machine.snapshots, owned.partition),
            parked=ports.open_snapshots(PARKED, owned.partition), events=ports.open_snapshots(machine.log, owned.partition),
        )  # fmt: skip
        self._archive = Archive(self._lane, ports.codec)
        self._offset = 0  #: of the checkpoint that is tried; 0: none
        self._epoch = 0
        self._agreed = True

    async def run(self) -> None:
        owned, lane, machine = self._owned, self._lane, self._machine
        owned.lanes[machine.name] = lane
        owned.inputs.add(f"local/{machine.name}", RANK_ANSWER)
        for reader in self._readers:
            name = reader.machine.name
            self._replayed[name] = owned.inputs.add(f"{machine.log}/{name}", RANKS.get(machine.log, RANK_ANSWER))
        shelf = await read_shelf(lane, self._ports)
        lane.fences = shelf.fences
        for epoch in () if self._whole else shelf.candidates():
            try:
                found = usable(shelf, epoch, machine.states)
                self._check_blocks(found)
                await self._attempt(shelf, found)
            except (InvalidInput, Disagreement) as refused:
                _log.warning("checkpoint.unusable", log=lane.fold.log, partition=owned.partition, epoch=epoch, reason=str(refused))
            else:
                return
        await self._attempt(shelf, None)

    def _some_rest(self) -> bool:
        fold = self._lane.fold
        return len(fold.view.resting) > 0 or any(self._machine.rests(state, fold.time_us) for state in fold.view.aggregates.values())

    def _check_blocks(self, found: Usable) -> None:
        """Raises `InvalidInput` if what rests may have been deleted by age since nobody was here to write it anew."""
        _, _, since_us = found.checkpoint.rested
        if found.checkpoint.resting and self._ports.clock.now_us() - since_us > self._ports.checkpointing.window_us:
            raise InvalidInput("snapshot.outdated", "A checkpoint names aggregates that rest, and they may be gone by now.")

    async def _attempt(self, shelf: Shelf, found: Usable | None) -> None:
        lane = self._lane
        lane.fold = fold = self._empty()
        lane.kept = Kept()
        lane.folded = 0
        for source in self._replayed.values():
            source.queue.clear()
        self._offset, self._epoch, self._agreed = 0, 0, True
        if found is not None:
            fold.load(found)
            lane.kept.states, lane.kept.sizes = dict(found.kept), dict(found.sizes)
            self._offset, self._epoch, self._agreed = found.checkpoint.offset, found.checkpoint.epoch, False
        # One record before the checkpoint's offset is read too: it shows whether its epoch was in force.
        starts = [max(0, self._offset - 1), *(reader.fold.positions.get(fold.log, -1) + 1 for reader in self._readers)]
        start = min(starts)
        await lane.log.claim(self._fold, start=start, start_epoch=shelf.epoch_before(start))
        lane.fences = {**shelf.fences, **lane.log.fences}
        fold.epoch, fold.next_offset = lane.log.epoch, lane.log.next_offset
        lane.advance(lane.log.next_offset)
        lane.checkpoint_offset = self._offset
        fold.release()  # what a repeat asked for, and what nothing has changed, is parked as before
        if self._epoch != fold.epoch - 1 or self._some_rest():
            # An owner in between may still be about to delete what it takes for outdated: nothing of the older epochs is relied on. Nor
            # is it where the last one may put to rest, and then delete, what has not changed in the log behind its checkpoint.
            fold.view.changed.update(dict.fromkeys(fold.view.sequences))
        kept = {f"{epoch}/{aggregate_id}" for aggregate_id, epoch in lane.kept.states.items()}
        lane.kept.stale = set(shelf.keys()) - kept

    async def _fold(self, record: LogRecord) -> None:
        lane, codec = self._lane, self._ports.codec
        if record.offset < self._offset:
            if record.offset == self._offset - 1:
                epoch = type_and_epoch(record.headers)[1]
                self._agreed = epoch == self._epoch and record.verdict in (Verdict.VALID, Verdict.POSITION, Verdict.FENCE)
            if record.verdict is Verdict.VALID and any(not reader.fold.handled(lane.fold.log, record.offset) for reader in self._readers):
                self._offer(codec.decode(record.value), record)  # type: ignore[arg-type]
            return
        if not self._agreed:
            raise Disagreement(f"before offset {self._offset} of the log another epoch than {self._epoch} was in force")
        if record.verdict is Verdict.POSITION:
            position = codec.decode(record.value)
            assert isinstance(position, Position)
            lane.fold.replay_position(position)
        if record.verdict is not Verdict.VALID:
            return
        event: LogEvent = codec.decode(record.value)  # type: ignore[assignment]
        while True:
            try:
                entry = lane.fold.replay(event, record.offset)
                break
            except NotInMemory as missing:
                await self._archive.load(missing)
        if entry is not None:
            self._offer(event, record)
        lane.folded += 1
        if lane.folded % (ROOM_ROUNDS * self._ports.checkpointing.records) == 0:
            try:
                await Checkpointer(lane, self._owned, self._ports).make_room(record.offset + 1)
            except (OSError, TimeoutError, Unavailable) as error:  # then there is less room until the next time
                _log.warning("takeover.no-room", log=lane.fold.log, partition=self._owned.partition, reason=str(error))

    def _offer(self, event: LogEvent, record: LogRecord) -> None:
        """Gives an event to the machines that read this log and have not decided on it."""
        log, offset = self._lane.fold.log, record.offset
        for reader in self._readers:
            if not reader.fold.handled(log, offset) and reader.machine.concerns(event):
                position = self._lane.fold.place(offset)
                arrived = Arrived(
                    lane=reader.machine.name, time_us=to_micros(event.time), record=event, position=position, depth=depth_of(record.headers)
                )
                self._replayed[reader.machine.name].queue.append(arrived)

    def _empty(self) -> LogFold:
        owned, names = self._owned, self._ports.names
        return LogFold(
            self._machine, log=names.physical(self._machine.log), partition=owned.partition, partitions=owned.partitions,
            window_us=self._ports.checkpointing.window_us,
        )  # fmt: skip


async def read_shelf(lane: Lane, ports: Ports) -> Shelf:
    """Everything in the partition of the topic of snapshots that is of this lane's log. What is unreadable is not there.

    Only the last record of each key is looked at, which is what compaction would leave: what it has not come to yet costs no decoding.
    """
    newest: dict[bytes, Stored] = {}
    async for stored in lane.snapshots.read(0, await lane.snapshots.end()):
        key = stored.key or b""
        if stored.value is None:
            newest.pop(key, None)
        else:
            newest[key] = stored
    shelf = Shelf(lane.fold.log, lane.fold.view.partition)
    for number, (key, stored) in enumerate(newest.items(), 1):
        _take(shelf, key.decode(errors="replace"), stored, ports)
        if number % limits.SNAPSHOT_SLICE == 0:
            await asyncio.sleep(0)  # a host takes over several partitions at a time, and answers its group meanwhile
    return shelf


def _take(shelf: Shelf, key: str, stored: Stored, ports: Ports) -> None:
    try:
        _, plain = ports.codec.decode_raw(stored.value or b"")
    except InvalidInput as error:
        _log.warning("snapshot.unreadable", topic=stored.topic, partition=stored.partition, offset=stored.offset, code=error.code)
        return
    if plain["type"] != FENCED:
        shelf.take(plain["type"], plain, key)
    elif (plain["log"], plain["partition"]) == (shelf.log, shelf.partition):
        shelf.fence(plain["epoch"], plain["offset"] or 0)
