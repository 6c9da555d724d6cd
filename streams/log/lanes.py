"""What the parts of an owned partition share: its ports, its lanes (one per machine), and why it can be lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from streams import limits
from streams.codec.avro import Codec
from streams.errors import BackboneError
from streams.log.fenced import FencedLog
from streams.log.fold import Decided, LogFold
from streams.log.inputs import Inputs
from streams.log.ports import Clock, EffectsPort, InboxPort, SnapshotsPort
from streams.log.snapshot import state_key
from streams.log.types import Input, Machine, Received, Send
from streams.records import InputPosition, Position, Record
from streams.topics import TopicNames, home_of, partition_of


class Lost(Exception):
    """The partition belongs to somebody else now, or may; it must be claimed anew while the group gives it to us."""


class Refold(Lost):
    """What the owner has beside the log is not to be relied on, or somebody asked for it: the partition is folded from the log alone."""


class Unwritable(Lost):
    """A decision that the log never takes: one of its records is none (too large, say). What was folded of it is to be forgotten."""

    def __init__(self, cause: Cause, error: BackboneError) -> None:
        super().__init__(str(error))
        self.cause = cause
        self.error = error
        self.code = error.code


#: The input of a decision: the id of its record, or an aggregate and when its timer was due.
Cause: TypeAlias = str | tuple[str, int]


def cause_of(input: Input) -> Cause:
    """The same for the same input, also when it comes again after a takeover."""
    return input.record.id if isinstance(input, Received) else (input.aggregate_id, input.due_us)


class Prepare(Protocol):
    """Makes an input ready before it is decided (e.g. stores a workflow definition); may wait."""

    def __call__(self, record: Record) -> Awaitable[Record]: ...  # noqa: D102


class Observer(Protocol):
    """What the host measures."""

    def decided(self, machine: str, events: int, latency_us: int) -> None:
        """A decision was acknowledged `latency_us` after its input was at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointing:
    """When an owner writes checkpoints, and how long what ended is kept."""

    records: int = limits.CHECKPOINT_RECORDS  #: of the log since the last one
    interval_ms: int = limits.CHECKPOINT_INTERVAL_MS  #: since the last one, if anything changed
    behind_max: int = limits.CHECKPOINTS_BEHIND_MAX  #: how many times `records` may lie behind the last one: then it is waited for
    window_us: int = limits.DEDUPLICATION_WINDOW_MS * 1000
    live_bytes: int = limits.LIVE_STATE_BYTES  #: of states, as they are written, that stay in memory although they may rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything that a partition needs of the world."""

    codec: Codec
    names: TopicNames
    clock: Clock
    effects: EffectsPort
    open_log: Callable[[str, int], FencedLog]  #: logical topic, partition → a log not yet held
    open_inboxes: Callable[[Sequence[str], int], InboxPort]  #: names on the broker, partition
    #: Logical topic, partition. A topic of snapshots, that of parked states, or a log (only `at` is used of that).
    open_snapshots: Callable[[str, int], SnapshotsPort]
    prepare: Prepare | None = None
    observer: Observer | None = None
    checkpointing: Checkpointing = field(default_factory=Checkpointing)


@dataclass(slots=True)
class Waiting:
    """A decision on its way into the log; a `Position` is one without entries."""

    decided: Decided
    at_hand_us: int
    position: Position | None = None
    cause: Cause | None = None


@dataclass(slots=True)
class Kept:
    """What a lane knows of its states in the topic of snapshots."""

    states: dict[str, int] = field(default_factory=dict)  #: epoch under which each aggregate's state lies
    stale: set[str] = field(default_factory=set)  #: keys that the next checkpoint makes superfluous
    sizes: dict[str, int] = field(default_factory=dict)  #: bytes of each state, the one that was written longest ago first

    def drop(self, aggregate_id: str) -> None:
        """Forgets a state whose aggregate leaves memory."""
        self.sizes.pop(aggregate_id, None)
        epoch = self.states.pop(aggregate_id, None)
        if epoch is not None:
            self.stale.add(state_key(epoch, aggregate_id))


@dataclass(slots=True)
class Lane:
    """One machine of the partition."""

    machine: Machine[Any]
    fold: LogFold
    log: FencedLog
    snapshots: SnapshotsPort
    parked: SnapshotsPort
    events: SnapshotsPort  #: the log itself, to read an event that a fact is of
    waiting: deque[Waiting] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    done: int = 0  #: log offset before which everything is acknowledged, and its effects are handed on
    done_moved: asyncio.Event = field(default_factory=asyncio.Event)
    kept: Kept = field(default_factory=Kept)
    checkpoint_offset: int = 0  #: of the last checkpoint
    checkpoint_late: bool = False  #: the last round failed, or the present one takes too long: nothing waits for it
    folded: int = 0  #: events of the log behind the checkpoint that the takeover folded
    fences: dict[int, int] = field(default_factory=dict)  #: offset of each fence of the log, by epoch

    def outruns(self, checkpointing: Checkpointing) -> bool:
        """Whether more lies behind the last checkpoint than a takeover should fold.

        One that cannot be written in time holds nothing up: what is decided counts for more.
        """
        return (
            not self.checkpoint_late and self.fold.next_offset - self.checkpoint_offset > checkpointing.behind_max * checkpointing.records
        )

    def epoch_before(self, offset: int) -> int:
        """The epoch in force before an offset of the log."""
        return max((epoch for epoch, at in self.fences.items() if at < offset), default=0)

    def advance(self, offset: int) -> None:
        """Moves `done`."""
        self.done = offset
        self.done_moved.set()

    async def until_done(self, offset: int) -> None:
        """Returns when `done` has reached `offset`."""
        while self.done < offset:
            self.done_moved.clear()
            await self.done_moved.wait()


@dataclass(slots=True)
class Ownership:
    """What is in memory of one owned partition, from a takeover to its end."""

    partition: int
    partitions: int
    readers: Mapping[str, str]  #: machine that reads each inbox (name on the broker)
    inputs: Inputs = field(default_factory=Inputs)
    lanes: dict[str, Lane] = field(default_factory=dict)
    inboxes: InboxPort | None = None
    ends: Mapping[str, int] = field(default_factory=dict)  #: ends of the inboxes seen at the takeover
    resumable: dict[str, Send] = field(default_factory=dict)  #: effects that the log did not show as answered
    refold: bool = False  #: somebody wants it to be folded from the logs alone
    taken_us: int = 0  #: when it was taken, by the host's clock
    read_us: int | None = None  #: when everything that had arrived in the inboxes by the takeover was decided
    work: asyncio.Event = field(default_factory=asyncio.Event)  #: there may be something to decide

    def is_local(self, send: Send, names: TopicNames) -> bool:
        """Whether an effect is handed over in memory."""
        reader = self.readers.get(names.physical(send.topic))
        return send.hand_over and reader is not None and partition_of(home_of(send.key), self.partitions) == self.partition

    def backlog(self) -> int:
        """How many records of the inboxes, of those that had arrived by the takeover, are still to be decided."""
        if self.inboxes is None:
            return 0
        waiting = 0
        for topic, end in self.ends.items():
            head = self._first(topic, topic)
            waiting += max(0, end - (self.inboxes.position(topic) if head is None else head.offset))
        return waiting

    def caught_up(self, due_us: int | None, now_us: int) -> bool:
        """Whether everything is decided that had arrived by the takeover, with what followed from it in memory and the timers due then.

        What has come since may wait: an owner under load always has something to decide. `due_us`: when the first timer is due.
        """
        if self.read_us is None:
            handed = {f"local/{name}" for name in self.lanes}
            replayed = any(source.queue for name, source in self.inputs.sources.items() if name not in self.ends and name not in handed)
            if replayed or not self.inputs.caught_up or self.backlog():
                return False
            self.read_us = now_us
        heads = [source.queue[0].time_us for name in self.lanes if (source := self.inputs.sources[f"local/{name}"]).queue]
        return min([*heads, *([] if due_us is None else [due_us])], default=self.read_us + 1) > self.read_us

    def source_position(self, reader: Lane, source: Lane) -> int:
        """The offset up to which `reader` has decided on the events of another lane's log: up to the first that waits."""
        fold = reader.fold
        pending = [
            position.offset
            for name in (f"local/{reader.machine.name}", f"{source.machine.log}/{reader.machine.name}")
            for position in (self._first(name, source.fold.log),)
            if position is not None
        ]
        return max(fold.positions.get(source.fold.log, -1), (min(pending) if pending else source.done) - 1)

    def _first(self, name: str, topic: str) -> InputPosition | None:
        source = self.inputs.sources.get(name)
        if source is None:
            return None
        positions = (arrived.position for arrived in source.queue)
        return next((position for position in positions if position is not None and position.topic == topic), None)

    async def close(self) -> None:
        """Gives everything up."""
        for lane in self.lanes.values():
            await lane.log.close()
            for port in (lane.snapshots, lane.parked, lane.events):
                await port.close()
        inboxes, self.inboxes = self.inboxes, None
        if inboxes is not None:
            await inboxes.close()
