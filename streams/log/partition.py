"""One owned partition: taken over, then its inputs decided, until it is lost or given up.

Per machine there is a *lane*: its fold, its hold on its log partition, and the decisions not yet appended. The decider runs
ahead of the acknowledgements; a lane's flusher (`appending`) appends whole decisions in order, one append in flight, and only
then performs their effects and hands local deliveries over; its checkpointer (`checkpoint`) writes beside the log what changed.
Any unknown outcome ends all lanes of the partition: everything in memory is thrown away, and the partition is claimed and
recovered anew (`takeover`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import structlog
from aiokafka.errors import KafkaError

from streams.causation import depth_of
from streams.concurrency import cancelled
from streams.errors import BackboneError, Defect
from streams.log.appending import Appending
from streams.log.archive import Archive
from streams.log.checkpoint import Checkpointer
from streams.log.fenced import UnknownOutcome
from streams.log.fold import Decided
from streams.log.inputs import Arrived, Source
from streams.log.lanes import (
    Cause,
    Checkpointing,
    Lane,
    Lost,
    Observer,
    Ownership,
    Ports,
    Prepare,
    Refold,
    Unwritable,
    Waiting,
    cause_of,
)
from streams.log.memory import NotInMemory
from streams.log.ports import Stored, position_of
from streams.log.resting import Resting
from streams.log.takeover import take_over
from streams.log.types import NOTHING, Decision, Input, Machine, Received
from streams.records import Record
from streams.topics import FORWARDED_HEADER, home_of, partition_of

_log = structlog.get_logger("log.partition")

FETCH_TIMEOUT_MS = 500
#: Decisions that may wait for their append before the decider pauses: they are encoded in one go, and meanwhile nothing else goes on.
DECISIONS_AHEAD_MAX = 500
#: Inputs at hand per inbox before it is paused.
INBOX_BACKLOG_MAX = 5000
#: How long appends in flight may take to end when a rebalance left us the partition.
RESUME_TIMEOUT_S = 5.0
#: Inputs decided, and microseconds passed, before the event loop gets its turn: what else runs in it (appends, checkpoints, the group)
#: needs several turns for each thing that it does, and waits for the slices of all partitions in each of them.
SLICE_INPUTS = 64
SLICE_US = 5_000
#: How long nothing is decided at most because a checkpoint is not written yet: until it is, nothing waits for it again.
CHECKPOINT_PATIENCE_S = 5.0
#: Longest pause before a partition that was lost is claimed again.
RECLAIM_PAUSE_S_MAX = 5.0
#: Inputs of which it is kept that the log never takes what is decided on them.
UNWRITABLE_MAX = 1000


class PartitionRunner:
    """Runs all machines of a host on one partition. `run` ends when it is cancelled or the partition is given up."""

    def __init__(self, machines: Sequence[Machine[Any]], ports: Ports, *, partition: int, partitions: int) -> None:
        self._machines = machines
        self._ports = ports
        self._readers = {ports.names.physical(inbox): machine.name for machine in machines for inbox in machine.inboxes}
        self._partition = partition
        self._partitions = partitions
        self._owned = Ownership(partition, partitions, self._readers)
        self._appending = Appending(self._owned, ports, asyncio.Event())
        self._room = asyncio.Event()
        self._active = asyncio.Event()
        self._active.set()
        self._unwritable: dict[Cause, BackboneError] = {}
        self.taken = asyncio.Event()  #: set once the partition is taken over: it decides
        self.serving = asyncio.Event()  #: set once what had arrived by then is decided, and what was unanswered performed again

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Takes the partition over and serves it; begins again after an unknown outcome, with growing pauses until appends succeed."""
        failures = 0
        whole = False
        while True:
            taken: dict[str, int] = {}
            try:
                await self._take_over(whole)
                whole = False
                taken = {name: lane.done for name, lane in self._owned.lanes.items()}
                await self._serve()
            except (BackboneError, Lost, OSError, KafkaError) as error:
                if isinstance(error, Defect):
                    raise
                self._fell()
                whole = whole or isinstance(error, Refold)
                if isinstance(error, Unwritable):
                    self._note_unwritable(error)
                progressed = any(lane.done > taken[name] for name, lane in self._owned.lanes.items() if name in taken)
                failures = 1 if progressed else failures + 1
                _log.warning("partition.reclaim", partition=self._partition, code=getattr(error, "code", "log.lost"), reason=str(error))
                await asyncio.sleep(min(RECLAIM_PAUSE_S_MAX, 0.05 * 2 ** min(failures, 10)))
            finally:
                self._fell()
                await self._owned.close()

    def _note_unwritable(self, found: Unwritable) -> None:
        """The input has no consequence when it comes again: everything else in the partition would wait for it for ever."""
        if len(self._unwritable) >= UNWRITABLE_MAX:
            self._unwritable.pop(next(iter(self._unwritable)))
        self._unwritable[found.cause] = found.error

    def _fell(self) -> None:
        self.taken.clear()
        self.serving.clear()

    def suspend(self) -> None:
        """Decides nothing more until `resume` (a rebalance is under way); what is in flight may end."""
        self._active.clear()

    async def resume(self) -> None:
        """Goes on after a rebalance that left us the partition: with the same epoch, unless somebody else appended."""
        for lane in self._owned.lanes.values():
            try:
                async with asyncio.timeout(RESUME_TIMEOUT_S):
                    while lane.waiting:
                        await lane.idle.wait()
                    ours = await lane.log.still_ours()
            except (TimeoutError, UnknownOutcome):
                ours = False
            if not ours:
                await lane.log.close()  # the decider sees that the hold is gone, and the partition is claimed anew
        self._active.set()
        self._owned.work.set()

    async def _take_over(self, whole: bool) -> None:
        self._owned = Ownership(self._partition, self._partitions, self._readers)
        self._appending = Appending(self._owned, self._ports, self._active)
        self._owned.taken_us = self._ports.clock.now_us()
        await take_over(self._owned, self._machines, self._ports, whole=whole)
        self.taken.set()

    async def _serve(self) -> None:
        lanes = self._owned.lanes.values()
        running = [self._fetch(), self._decide(), self._appending.tell_positions()]
        running += [self._appending.flush(lane) for lane in lanes]
        running += [Checkpointer(lane, self._owned, self._ports).run() for lane in lanes]
        tasks = [asyncio.create_task(each) for each in running]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:  # in their order: a set's order would make a run under a seed differ from the next
                if task.done():
                    task.result()
            raise Lost("a task of the partition ended")
        finally:
            await cancelled(*tasks)

    # --- inputs -----------------------------------------------------------------------------------------------------

    async def _fetch(self) -> None:
        inboxes, inputs = self._owned.inboxes, self._owned.inputs
        assert inboxes is not None
        paused: set[str] = set()
        while True:
            for stored in await inboxes.fetch(FETCH_TIMEOUT_MS):
                source = inputs.sources[stored.topic]
                source.queue.append(await self._arrived(stored))
                if len(source.queue) > INBOX_BACKLOG_MAX and stored.topic not in paused:
                    inboxes.pause(stored.topic)
                    paused.add(stored.topic)
            for topic, end in self._owned.ends.items():
                if inputs.sources[topic].behind and inboxes.position(topic) >= end:
                    inputs.sources[topic].behind = False
            for topic in [topic for topic in paused if len(inputs.sources[topic].queue) < INBOX_BACKLOG_MAX // 2]:
                inboxes.resume(topic)
                paused.discard(topic)
            self._owned.work.set()
            if paused and inputs.waiting > INBOX_BACKLOG_MAX:
                self._room.clear()
                await self._room.wait()

    async def _arrived(self, stored: Stored) -> Arrived:
        record: Record | None = None
        fault: tuple[str, str] | None = None
        try:
            record = self._ports.codec.decode(stored.value or b"")
            if self._ports.prepare is not None:
                record = await self._ports.prepare(record)
        except BackboneError as error:
            if error.exit_code == 3:  # a server is away: the input waits, it is not refused
                raise
            fault = (error.code, error.message)
        time_us = stored.timestamp_ms * 1000
        return Arrived(
            lane=self._readers[stored.topic], time_us=time_us, record=record, position=position_of(stored), stored=stored, fault=fault,
            depth=depth_of(stored.headers),
        )  # fmt: skip

    # --- deciding ---------------------------------------------------------------------------------------------------

    async def _decide(self) -> None:
        owned = self._owned
        inputs, lanes = owned.inputs, owned.lanes.values()
        slice_left, slice_end_us = SLICE_INPUTS, 0
        while True:
            await self._active.wait()
            if any(not lane.log.held for lane in lanes):
                raise Lost("the log of the partition is not held any more")
            now_us = self._ports.clock.now_us()
            timer = min((due for lane in lanes if (due := lane.fold.next_due()) is not None), default=None)
            if not self.serving.is_set() and owned.caught_up(timer[0] if timer else None, now_us):
                await self._appending.resume_effects()
                self.serving.set()
            choice = inputs.choose(timer[0] if timer else None, now_us)
            if isinstance(choice, Source):
                # It leaves the queue when it is decided: a checkpoint that comes in between must see that it waits.
                await self._decide_arrived(choice.queue[0], now_us)
                choice.queue.popleft()
                self._room.set()
            elif choice is not None:
                await self._fire(choice, now_us)
            else:
                self._check_age(now_us)
                await self._pause(timer[0] if timer else None, now_us)
                slice_left = SLICE_INPUTS
                continue
            slice_left -= 1
            if slice_left == SLICE_INPUTS - 1:
                slice_end_us = now_us + SLICE_US
            elif slice_left <= 0 or now_us >= slice_end_us:
                slice_left = SLICE_INPUTS
                self._check_age(now_us)
                await asyncio.sleep(0)
            while any(len(lane.waiting) > DECISIONS_AHEAD_MAX for lane in lanes):
                owned.work.clear()
                await owned.work.wait()
            for lane in lanes:
                if lane.outruns(self._ports.checkpointing):
                    await self._until_checkpointed(lane)

    async def _until_checkpointed(self, lane: Lane) -> None:
        """Decides nothing until a checkpoint contains most of what was decided; not for long, if it cannot be written."""
        try:
            async with asyncio.timeout(CHECKPOINT_PATIENCE_S):
                while lane.log.held and lane.outruns(self._ports.checkpointing):
                    self._owned.work.clear()
                    await self._owned.work.wait()
        except TimeoutError:
            lane.checkpoint_late = True

    def _check_age(self, now_us: int) -> None:
        if now_us - self._owned.taken_us > self._ports.checkpointing.window_us // 2:
            # An id may be used again after the window, and ids of events derive from epoch and sequence.
            raise Lost("the epoch is as old as half the deduplication window")

    async def _pause(self, due_us: int | None, now_us: int) -> None:
        """Waits for work, or until the next timer is due."""
        work = self._owned.work
        work.clear()
        if due_us is None or not self._owned.inputs.caught_up:
            await work.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, (due_us - now_us) / 1e6)):
                await work.wait()

    async def _decide_arrived(self, arrived: Arrived, now_us: int) -> None:
        lane = self._owned.lanes[arrived.lane]
        stored = arrived.stored
        if stored is not None and not await self._belongs(stored, arrived, lane):
            return
        assert arrived.record is not None
        time_us = max(arrived.time_us, *(each.fold.time_us for each in self._owned.lanes.values()))
        received = Received(record=arrived.record, position=arrived.position, time_us=time_us, depth=arrived.depth)
        if (error := self._unwritable.get(cause_of(received))) is None:
            await self._run(lane, received, now_us)
            return
        self._say_unwritable(lane, received, error)
        if stored is not None:
            await self._ports.effects.dead_letter(stored, error.code, error.message)
        lane.fold.conclude(received, NOTHING)

    def _say_unwritable(self, lane: Lane, input: Input, error: BackboneError) -> None:
        _log.error(
            "decision.unwritable", partition=self._partition, machine=lane.machine.name, cause=cause_of(input),
            code=error.code, reason=error.message,
        )  # fmt: skip

    async def _belongs(self, stored: Stored, arrived: Arrived, lane: Lane) -> bool:
        """Whether the record is to be decided here; if not it was forwarded or put to the dead letters."""
        if lane.fold.handled(stored.topic, stored.offset):
            return False
        fault = arrived.fault
        if fault is None and stored.key is None:
            fault = ("key.missing", "A record of an inbox needs its home as key.")
        if (
            fault is None
            and stored.key is not None
            and partition_of(home_of(stored.key.decode(errors="replace")), self._partitions) != self._partition
        ):
            if any(name == FORWARDED_HEADER for name, _ in stored.headers):
                fault = ("home.misplaced", "The record was forwarded to the partition of its home, yet it is not there.")
            else:
                await self._ports.effects.forward(stored)
                lane.fold.skip(stored.topic, stored.offset)
                return False
        if fault is not None:
            await self._ports.effects.dead_letter(stored, *fault)
            lane.fold.skip(stored.topic, stored.offset)
            return False
        return True

    async def _fire(self, due_us: int, now_us: int) -> None:
        lanes = self._owned.lanes.values()
        lane = next(lane for lane in lanes if (due := lane.fold.next_due()) is not None and due[0] == due_us)
        due = lane.fold.next_due()
        assert due is not None
        latest = max(each.fold.time_us for each in lanes)
        timer = lane.fold.due_of(due_us, due[1], max(due_us, latest), now_us)
        if (error := self._unwritable.get(cause_of(timer))) is not None:
            self._say_unwritable(lane, timer, error)
            lane.fold.drop_timer(due[1])
            return
        decided = await self._run(lane, timer, now_us)
        if not decided and lane.fold.next_due() == due:
            _log.error("timer.no-effect", partition=self._partition, machine=lane.machine.name, aggregate_id=due[1])
            lane.fold.drop_timer(due[1])

    async def _run(self, lane: Lane, input: Input, now_us: int) -> Decided:
        """Decides. What is parked and needed is loaded first; nothing else is decided meanwhile, so that inputs keep their order."""
        while True:
            try:
                decided = lane.fold.decide(input)
                break
            except NotInMemory as missing:
                if missing.kind == "all":
                    decided = await self._decide_on_all(lane, input)
                    break
                await Archive(lane, self._ports.codec).load(missing)
        view = lane.fold.view
        if view.revived or view.recalled:
            lane.fold.release()
        if decided:
            self._appending.enqueue(lane, Waiting(decided, now_us, cause=cause_of(input)))
        return decided

    async def _decide_on_all(self, lane: Lane, input: Input) -> Decided:
        """Decides what asks for all aggregates, also those that rest: in a thread, for the sake of the other partitions."""
        archive, resting = Archive(lane, self._ports.codec), Resting(lane, self._ports.codec)
        decision: Decision | None = None
        while True:
            try:
                if decision is None:
                    decision = await asyncio.to_thread(lane.machine.decide, await resting.whole(input.time_us), input)
                return lane.fold.conclude(input, decision)
            except NotInMemory as missing:
                await archive.load(missing)

    def figures(self) -> dict[str, int]:
        """Aggregates in memory per machine, inputs that wait, and by how much the earliest timer is overdue, milliseconds.

        A timer that stays overdue is what a stuck workflow looks like from here.
        """
        lanes = self._owned.lanes.values()
        earliest = min((due[0] for lane in lanes if (due := lane.fold.next_due()) is not None), default=None)
        overdue_us = 0 if earliest is None else max(0, self._ports.clock.now_us() - earliest)
        counts = {lane.machine.name: len(lane.fold.view.aggregates) for lane in lanes}
        return {**counts, "waiting": self._owned.inputs.waiting, "overdue_ms": overdue_us // 1000}

    def positions(self) -> dict[str, int]:
        """Offset of the next record to decide, per inbox (name on the broker): what lag tools want to know."""
        lanes = self._owned.lanes
        return {topic: lanes[name].fold.positions.get(topic, -1) + 1 for topic, name in self._readers.items() if name in lanes}


__all__ = ["Checkpointing", "Lost", "Observer", "PartitionRunner", "Ports", "Prepare"]
