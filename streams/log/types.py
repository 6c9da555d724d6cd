"""What a machine is: pure `decide` and `evolve` over aggregates, and the values that go in and out.

A machine never sees a broker, a clock or randomness. The host (`streams.log.host`) owns log partitions, feeds inputs to
machines one by one, appends what they decide, and performs the effects after the acknowledgement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from streams.log.freeze import StateFormat
from streams.records import InputPosition, LogEvent, Record

State = TypeVar("State")
State_co = TypeVar("State_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record with its place in a log: what `evolve` folds. `event` is complete (id, sequence, epoch, input)."""

    event: LogEvent
    position: InputPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """An input: a record from an inbox topic, from another machine's log, or handed over in memory.

    `position` is where it lies (of a local delivery: the log event that contains or caused it); `time_us` is the
    decision time, microseconds since the epoch: never less than that of an earlier decision of the partition.
    """

    record: Record
    position: InputPosition | None
    time_us: int
    depth: int = 0  #: how far it is from what was not started by itself (`streams.causation`)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """An input: the timer of an aggregate that was due at `due_us` (its `Machine.due`) fires at decision time `time_us`."""

    aggregate_id: str
    due_us: int
    time_us: int
    now_us: int = 0  #: the host's clock: how late it is. What is decided by it must stand in the events.


Input: TypeAlias = Received | Due


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """An effect: hand `record` to whoever reads logical `topic`, keyed by `key`.

    If a machine of the same host reads that inbox and `key` belongs to the same partition, it is handed over in memory;
    otherwise it is produced. Either way only after the events decided with it are acknowledged, at least once.
    """

    topic: str
    key: str
    record: Record
    #: Which event of the decision it belongs to (index): its place is the `position` of a local delivery. Default: the last.
    caused_by: int = -1
    #: False: always produce it, since the reader is outside of the host (the answer to a caller that waits at the topic).
    hand_over: bool = True
    #: Headers of the record besides those that it has anyway.
    headers: tuple[tuple[str, bytes], ...] = ()
    #: True: the effects after it are performed only when the broker has it (with `hand_over=False`).
    awaited: bool = False


Effect: TypeAlias = Send

#: `Send.topic` of an effect on the owner itself: when what was decided with it is performed, it throws away what it has in memory of the
#: partition, and folds its logs anew without looking at checkpoints. The record says who wants it.
REFOLD = "owner/refold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What follows from one input: events (one atomic batch) and effects.

    Events come with `aggregate_id`, `time` and their own fields set; the host fills `id`, `sequence`, `epoch`, `input`,
    and `causation_id` and `correlation_id` where they are empty. An event with `sequence=0` belongs to no aggregate (a refusal).
    """

    events: tuple[LogEvent, ...] = ()
    effects: tuple[Effect, ...] = ()
    #: How far all this is from what was not started by itself (`streams.causation`), at least as far as the input: a header of the
    #: records of events, and of effects that have none of their own.
    depth: int = 0


NOTHING = Decision()


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """A fact of an event under a key, found by `View.recall` until `expires_us` (answers to repeats)."""

    key: str
    value: Any
    expires_us: int


class View(Protocol[State_co]):
    """What `decide` may see of its partition: states as they are after all earlier decisions."""

    partition: int
    partitions: int

    def state(self, aggregate_id: str) -> State_co | None:
        """The aggregate's state, None if it does not exist."""

    def states(self, *, resting: bool = True, kind: type[Any] | None = None) -> Iterator[tuple[str, State_co]]:
        """All aggregates of the partition, or those of one class; each as often as there is one.

        With `resting=False` those that may not rest, and perhaps some that may (`Machine.rests`).
        """

    def recall(self, key: str) -> Any | None:
        """The value remembered under `key`, None if there is none (any more)."""

    def is_local(self, home: str) -> bool:
        """Whether `home` belongs to this partition."""


class Machine(Protocol[State]):
    """A deterministic state machine over the aggregates of a partition. All methods are pure and total.

    `source_logs` are other machines' logs whose valid events are inputs, after `concerns` said so.
    """

    name: str
    log: str  #: logical topic of its log
    snapshots: str  #: logical topic of its snapshots
    inboxes: tuple[str, ...]  #: logical topics
    source_logs: tuple[str, ...]
    states: StateFormat[State]  #: how its states are written into snapshots

    def decide(self, view: View[State], input: Input) -> Decision:
        """Events and effects that follow from `input`. An input already handled gives nothing new."""

    def evolve(self, state: State | None, entry: Entry) -> State | None:
        """State of `entry.event.aggregate_id` after the event; None: nothing is left to keep."""

    def due(self, state: State) -> int | None:
        """When its next timer is due, microseconds since the epoch; None: no timer."""

    def outstanding(self, state: State) -> Iterable[Send]:
        """Effects that the log does not show as answered: a new owner performs them again."""

    def ended(self, state: State) -> int | None:
        """When the aggregate ended, microseconds since the epoch; None: it lives.

        One that ended has no timer, and leaves memory: it is *parked*, and comes back when an input asks for it within the
        deduplication window.
        """

    def rests(self, state: State, time_us: int) -> bool:
        """Whether an aggregate that lives may leave memory until an input names it, or asks for all of them.

        It has no timer that matters, and nothing outstanding. What rests no more though nothing happened to it (it was only to be
        found for some time) is found by its id for the deduplication window, and not among `View.states`.
        """

    def remember(self, entry: Entry) -> Iterable[Remembered]:
        """Facts of the event to keep for `View.recall`. The host keeps where the event lies, and asks again when a fact is needed."""

    def concerns(self, record: Record) -> bool:
        """Whether an event of a source log is an input of this machine."""


@dataclass(slots=True)
class PartitionView(Generic[State]):
    """`View` over plain dictionaries; the host's own, also used by tests."""

    partition: int = 0
    partitions: int = 1
    aggregates: dict[str, State] = field(default_factory=dict)
    remembered: dict[str, Remembered] = field(default_factory=dict)

    def state(self, aggregate_id: str) -> State | None:
        """See `View.state`."""
        return self.aggregates.get(aggregate_id)

    def states(self, *, resting: bool = True, kind: type[Any] | None = None) -> Iterator[tuple[str, State]]:
        """See `View.states`."""
        return ((name, state) for name, state in self.aggregates.items() if kind is None or isinstance(state, kind))

    def recall(self, key: str) -> Any | None:
        """See `View.recall`."""
        found = self.remembered.get(key)
        return None if found is None else found.value

    def is_local(self, home: str) -> bool:
        """See `View.is_local`."""
        from streams.topics import partition_of

        return partition_of(home, self.partitions) == self.partition
