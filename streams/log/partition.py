"""One owned partition: takes it over, then decides its inputs, appends, and performs effects, until it is lost or given up.

Per machine there is a *lane*: its fold, its hold on its log partition, and the decisions not yet appended. The decider runs
ahead of the acknowledgements; a lane's flusher appends whole decisions in order, one append in flight, and only then
performs their effects and hands local deliveries over. Any unknown outcome ends all lanes of the partition: everything in
memory is thrown away and the partition is claimed and folded anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from streams import limits, topics
from streams.codec.avro import Codec
from streams.errors import BackboneError, Defect
from streams.log.fenced import FencedLog, LogRecord
from streams.log.fold import Decided, LogFold
from streams.log.inputs import RANK_ANSWER, RANK_COMMAND, RANKS, Arrived, Inputs, Source
from streams.log.ports import Clock, EffectsPort, InboxPort, Outgoing, SnapshotsPort, Stored, position_of
from streams.log.rule import POSITIONED, Verdict
from streams.log.types import Input, Machine, Received, Send
from streams.records import InputPosition, LogEvent, Position, Record, derived_id, from_micros, to_micros
from streams.topics import FORWARDED_HEADER, TopicNames, home_of, partition_of

_log = structlog.get_logger("log.partition")

FETCH_TIMEOUT_MS = 500
#: Decisions that may wait for their append before the decider pauses.
DECISIONS_AHEAD_MAX = 2000
#: Bytes of one append.
APPEND_BYTES_MAX = 4 * 1024 * 1024
#: Inputs at hand per inbox before it is paused.
INBOX_BACKLOG_MAX = 5000
#: How long appends in flight may take to end when a rebalance left us the partition.
RESUME_TIMEOUT_S = 5.0
#: Inputs decided before the event loop gets its turn.
SLICE_INPUTS = 64


class Lost(Exception):
    """The partition belongs to somebody else now, or may; it must be claimed anew while the group gives it to us."""


class Prepare(Protocol):
    """Makes an input ready before it is decided (e.g. stores a workflow definition); may wait."""

    def __call__(self, record: Record) -> Awaitable[Record]: ...  # noqa: D102


class Observer(Protocol):
    """What the host measures."""

    def decided(self, machine: str, events: int, latency_us: int) -> None:
        """A decision was acknowledged `latency_us` after its input was at hand."""


@dataclass(slots=True)
class _Waiting:
    """A decision on its way into the log; a `Position` is one without entries."""

    decided: Decided
    at_hand_us: int
    position: Position | None = None


@dataclass(slots=True)
class Lane:
    """One machine of the partition."""

    machine: Machine[Any]
    fold: LogFold
    log: FencedLog
    waiting: deque[_Waiting] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything that a partition needs of the world."""

    codec: Codec
    names: TopicNames
    clock: Clock
    effects: EffectsPort
    open_log: Callable[[str, int], FencedLog]  #: logical topic, partition → a log not yet held
    open_inboxes: Callable[[Sequence[str], int], InboxPort]  #: names on the broker, partition
    open_snapshots: Callable[[str, int], SnapshotsPort]  #: logical topic (of snapshots or of parked states), partition
    prepare: Prepare | None = None
    observer: Observer | None = None


class PartitionRunner:
    """Runs all machines of a host on one partition. `run` ends when it is cancelled or the partition is given up."""

    def __init__(self, machines: Sequence[Machine[Any]], ports: Ports, *, partition: int, partitions: int) -> None:
        self._machines = machines
        self._ports = ports
        self._partition = partition
        self._partitions = partitions
        self._lanes: dict[str, Lane] = {}
        self._readers = {ports.names.physical(inbox): machine.name for machine in machines for inbox in machine.inboxes}
        self._inboxes: InboxPort | None = None
        self._inputs = Inputs()
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._active = asyncio.Event()
        self._active.set()
        self._ends: dict[str, int] = {}
        self._resumable: dict[str, Send] = {}
        self.serving = asyncio.Event()  #: set once the partition is taken over and its backlog decided

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Takes the partition over and serves it; begins again after an unknown outcome."""
        failures = 0
        while True:
            try:
                await self._take_over()
                failures = 0
                await self._serve()
            except (BackboneError, Lost, OSError) as error:
                if isinstance(error, Defect):
                    raise
                failures += 1
                _log.warning("partition.reclaim", partition=self._partition, code=getattr(error, "code", "log.lost"), reason=str(error))
                await asyncio.sleep(min(5.0, 0.05 * 2**failures))
            finally:
                self.serving.clear()
                await self._release()

    def suspend(self) -> None:
        """Decides nothing more until `resume` (a rebalance is under way); what is in flight may end."""
        self._active.clear()

    async def resume(self) -> None:
        """Goes on after a rebalance that left us the partition: with the same epoch, unless somebody else appended."""
        for lane in self._lanes.values():
            try:
                async with asyncio.timeout(RESUME_TIMEOUT_S):
                    while lane.waiting:
                        await lane.idle.wait()
                    ours = await lane.log.still_ours()
            except TimeoutError:
                ours = False
            if not ours:
                await lane.log.close()  # the decider sees that the hold is gone, and the partition is claimed anew
        self._active.set()
        self._work.set()

    async def _release(self) -> None:
        for lane in self._lanes.values():
            await lane.log.close()
        self._lanes = {}
        inboxes, self._inboxes = self._inboxes, None
        if inboxes is not None:
            await inboxes.close()

    # --- takeover ---------------------------------------------------------------------------------------------------

    async def _take_over(self) -> None:
        names = self._ports.names
        self._inputs = inputs = Inputs()
        self._lanes = {}
        # Readers of other machines' logs come first: their positions say which events of those logs are still inputs.
        for machine in sorted(self._machines, key=lambda machine: not machine.source_logs):
            fold = LogFold(machine, log=names.physical(machine.log), partition=self._partition, partitions=self._partitions)
            log = self._ports.open_log(machine.log, self._partition)
            lane = self._lanes[machine.name] = Lane(machine=machine, fold=fold, log=log)
            inputs.add(f"local/{machine.name}", RANK_ANSWER)
            readers = [other for other in self._lanes.values() if machine.log in other.machine.source_logs]
            replayed = {
                other.machine.name: inputs.add(f"{machine.log}/{other.machine.name}", RANKS.get(machine.log, 0)) for other in readers
            }
            await log.claim(lambda record, lane=lane, readers=readers, replayed=replayed: self._replay(record, lane, readers, replayed))  # type: ignore[misc]
            fold.epoch, fold.next_offset = log.epoch, log.next_offset
        await self._open_inboxes()
        self._resumable = {send.record.id: send for lane in self._lanes.values() for send in lane.fold.outstanding()}
        _log.info("partition.taken", partition=self._partition, epochs={name: lane.log.epoch for name, lane in self._lanes.items()})

    def _replay(self, record: LogRecord, lane: Lane, readers: Sequence[Lane], replayed: dict[str, Source]) -> None:
        if record.verdict is Verdict.POSITION:
            position = self._ports.codec.decode(record.value)
            assert isinstance(position, Position)
            lane.fold.replay_position(position)
        if record.verdict is not Verdict.VALID:
            return
        event: LogEvent = self._ports.codec.decode(record.value)  # type: ignore[assignment]
        entry = lane.fold.replay(event, record.offset)
        if entry is None:
            return
        for reader in readers:
            if not reader.fold.handled(lane.fold.log, record.offset) and reader.machine.concerns(event):
                arrived = Arrived(lane=reader.machine.name, time_us=to_micros(event.time), record=event, position=entry.position)
                replayed[reader.machine.name].queue.append(arrived)

    async def _open_inboxes(self) -> None:
        self._inboxes = self._ports.open_inboxes(tuple(self._readers), self._partition)
        positions = {topic: self._lanes[name].fold.positions.get(topic, -1) for topic, name in self._readers.items()}
        ends = await self._inboxes.open(positions)
        self._ends = dict(ends)
        for topic in self._readers:
            behind = self._inboxes.position(topic) < ends[topic]
            self._inputs.add(topic, RANKS.get(self._ports.names.logical(topic), RANK_COMMAND), behind=behind)

    # --- serving ----------------------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        tasks = [asyncio.create_task(self._fetch()), asyncio.create_task(self._decide()), asyncio.create_task(self._tell_positions())]
        tasks += [asyncio.create_task(self._flush(lane)) for lane in self._lanes.values()]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:  # in their order: a set's order would make a run under a seed differ from the next
                if task.done():
                    task.result()
            raise Lost("a task of the partition ended")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self) -> None:
        assert self._inboxes is not None
        paused: set[str] = set()
        while True:
            for stored in await self._inboxes.fetch(FETCH_TIMEOUT_MS):
                source = self._inputs.sources[stored.topic]
                source.queue.append(await self._arrived(stored))
                if len(source.queue) > INBOX_BACKLOG_MAX and stored.topic not in paused:
                    self._inboxes.pause(stored.topic)
                    paused.add(stored.topic)
            for topic, end in self._ends.items():
                if self._inputs.sources[topic].behind and self._inboxes.position(topic) >= end:
                    self._inputs.sources[topic].behind = False
            for topic in [topic for topic in paused if len(self._inputs.sources[topic].queue) < INBOX_BACKLOG_MAX // 2]:
                self._inboxes.resume(topic)
                paused.discard(topic)
            self._work.set()
            if paused and self._inputs.waiting > INBOX_BACKLOG_MAX:
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
            lane=self._readers[stored.topic], time_us=time_us, record=record, position=position_of(stored), stored=stored, fault=fault
        )

    async def _decide(self) -> None:
        slice_left = SLICE_INPUTS
        while True:
            await self._active.wait()
            if any(not lane.log.held for lane in self._lanes.values()):
                raise Lost("the log of the partition is not held any more")
            now_us = self._ports.clock.now_us()
            timer = min((due for lane in self._lanes.values() if (due := lane.fold.next_due()) is not None), default=None)
            choice = self._inputs.choose(timer[0] if timer else None, now_us)
            if isinstance(choice, Source):
                await self._decide_arrived(choice.queue.popleft(), now_us)
                self._room.set()
            elif choice is not None:
                self._fire(choice, now_us)
            else:
                if not self.serving.is_set() and self._inputs.caught_up and not self._inputs.waiting:
                    await self._resume_effects()
                await self._pause(timer[0] if timer else None, now_us)
                slice_left = SLICE_INPUTS
                continue
            slice_left -= 1
            if slice_left <= 0:
                slice_left = SLICE_INPUTS
                await asyncio.sleep(0)
            while any(len(lane.waiting) > DECISIONS_AHEAD_MAX for lane in self._lanes.values()):
                self._work.clear()
                await self._work.wait()

    async def _pause(self, due_us: int | None, now_us: int) -> None:
        """Waits for work, or until the next timer is due."""
        self._work.clear()
        if due_us is None or not self._inputs.caught_up:
            await self._work.wait()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, (due_us - now_us) / 1e6)):
                await self._work.wait()

    async def _decide_arrived(self, arrived: Arrived, now_us: int) -> None:
        lane = self._lanes[arrived.lane]
        stored = arrived.stored
        if stored is not None and not await self._belongs(stored, arrived, lane):
            return
        assert arrived.record is not None
        time_us = max(arrived.time_us, *(each.fold.time_us for each in self._lanes.values()))
        self._run(lane, Received(record=arrived.record, position=arrived.position, time_us=time_us), now_us)

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

    def _fire(self, due_us: int, now_us: int) -> None:
        lane = next(lane for lane in self._lanes.values() if (due := lane.fold.next_due()) is not None and due[0] == due_us)
        due = lane.fold.next_due()
        assert due is not None
        latest = max(each.fold.time_us for each in self._lanes.values())
        decided = self._run(lane, lane.fold.due_of(due_us, due[1], max(due_us, latest)), now_us)
        if not decided and lane.fold.next_due() == due:
            _log.error("timer.no-effect", partition=self._partition, machine=lane.machine.name, aggregate_id=due[1])
            lane.fold.drop_timer(due[1])

    def _run(self, lane: Lane, input: Input, now_us: int) -> Decided:
        decided = lane.fold.decide(input)
        if decided:
            self._enqueue(lane, _Waiting(decided, now_us))
        return decided

    def _enqueue(self, lane: Lane, waiting: _Waiting) -> None:
        lane.waiting.append(waiting)
        lane.idle.clear()
        lane.wake.set()

    # --- appending --------------------------------------------------------------------------------------------------

    async def _flush(self, lane: Lane) -> None:
        while True:
            if not lane.waiting:
                lane.idle.set()
                lane.wake.clear()
                await lane.wake.wait()
            batch, records = self._next_batch(lane)
            if records:
                await lane.log.append_encoded(records)
            acknowledged_us = self._ports.clock.now_us()
            for waiting in batch:
                lane.waiting.popleft()
                await self._after(lane, waiting, acknowledged_us)
            self._work.set()

    def _next_batch(self, lane: Lane) -> tuple[list[_Waiting], list[Outgoing]]:
        batch: list[_Waiting] = []
        records: list[Outgoing] = []
        size = 0
        for waiting in lane.waiting:
            encoded = [lane.log.outgoing(home_of(_key_of(entry.event)), entry.event) for entry in waiting.decided.entries]
            if waiting.position is not None:
                encoded.append(lane.log.outgoing(f"position/{self._partition}", waiting.position))
            size += sum(len(record.value) + 512 for record in encoded)
            if batch and size > APPEND_BYTES_MAX:
                break
            batch.append(waiting)
            records.extend(encoded)
        return batch, records

    async def _after(self, lane: Lane, waiting: _Waiting, acknowledged_us: int) -> None:
        """What follows the acknowledgement: local deliveries and effects."""
        for entry in waiting.decided.entries:
            for other in self._lanes.values():
                if lane.machine.log in other.machine.source_logs and other.machine.concerns(entry.event):
                    self._hand_over(other, entry.event, entry.position, acknowledged_us)
        for send, position in waiting.decided.effects:
            await self._perform(send, position, acknowledged_us)
        if self._ports.observer is not None and waiting.position is None:
            self._ports.observer.decided(lane.machine.name, len(waiting.decided.entries), acknowledged_us - waiting.at_hand_us)

    async def _perform(self, send: Send, position: InputPosition | None, now_us: int) -> None:
        reader = self._readers.get(self._ports.names.physical(send.topic))
        is_local = send.hand_over and partition_of(home_of(send.key), self._partitions) == self._partition
        if reader is not None and is_local:
            self._hand_over(self._lanes[reader], send.record, position, now_us)
        else:
            await self._ports.effects.send(send)

    def _hand_over(self, lane: Lane, record: Record, position: InputPosition | None, now_us: int) -> None:
        arrived = Arrived(lane=lane.machine.name, time_us=now_us, record=record, position=position)
        self._inputs.sources[f"local/{lane.machine.name}"].queue.append(arrived)
        self._work.set()

    async def _resume_effects(self) -> None:
        """Performs again what the log shows as unanswered, now that everything that had arrived was decided."""
        for lane in self._lanes.values():
            for send in lane.fold.outstanding():
                if self._resumable.pop(send.record.id, None) is not None:
                    await self._perform(send, None, self._ports.clock.now_us())
        self._resumable = {}
        self.serving.set()

    async def _tell_positions(self) -> None:
        """Appends a `Position` when positions moved without an event that tells them."""
        while True:
            await asyncio.sleep(limits.POSITION_INTERVAL_MS_MAX / 2000)
            for lane in self._lanes.values():
                positions = lane.fold.moved_positions()
                if positions and self._active.is_set():
                    self._enqueue(lane, _Waiting(Decided(entries=(), effects=()), 0, self._position(lane, positions)))

    def _position(self, lane: Lane, positions: tuple[InputPosition, ...]) -> Position:
        fold = lane.fold
        time_us = max(fold.time_us, self._ports.clock.now_us())
        record = Position(
            id=derived_id("position", fold.log, self._partition, fold.epoch, fold.next_offset), type=POSITIONED, source="mplp/log",
            subject=f"{fold.log}/{self._partition}", time=from_micros(time_us),
            log=fold.log, partition=self._partition, epoch=fold.epoch, positions=positions,
        )  # fmt: skip
        fold.next_offset += 1
        fold.moved.clear()
        return record

    def positions(self) -> dict[str, int]:
        """Offset of the next record to decide, per inbox (name on the broker): what lag tools want to know."""
        return {topic: self._lanes[name].fold.positions.get(topic, -1) + 1 for topic, name in self._readers.items() if name in self._lanes}


def _key_of(event: LogEvent) -> str:
    """What the home of an event is taken from: its aggregate, or what a refusal is about."""
    return event.aggregate_id or event.subject or topics.SYSTEM_EVENTS


__all__ = ["Lost", "Observer", "PartitionRunner", "Ports", "Prepare"]
