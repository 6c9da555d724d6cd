"""What an owner has in memory of its partition, what it has parked, and what changed since the last checkpoint. Pure.

An aggregate is *live* (its state is in memory), or *parked*: it ended, or nothing but its sequence is left of it. A parked one
is an entry of an index, 20 bytes, that says where its state lies. One that lives and to which nothing happens may *rest*, which is the
same in an index of its own. Facts (`Machine.remember`) leave memory likewise: their entry says which event of the log they are of.
When a machine asks for something that is not in memory, `NotInMemory` is raised; the host loads it and asks the machine
again, so that a decision is the same whether or not something was parked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from streams.log.index import Entry as Place
from streams.log.index import Index
from streams.log.snapshot import Frozen
from streams.log.types import PartitionView, Remembered


class NotInMemory(Exception):
    """Something is needed that may be parked. `kind` says what `key` names; `all`: every aggregate of the partition."""

    def __init__(self, kind: Literal["aggregate", "fact", "all"], key: str) -> None:
        super().__init__(f"{kind} {key}")
        self.kind = kind
        self.key = key


@dataclass(slots=True)
class Rested:
    """What is known of the aggregates that rest without looking at them."""

    aggregates: int = 0  #: how many they are, about
    blocks: int = 0  #: in how many blocks they lie
    since_us: int = 0  #: when the oldest block may have been written, microseconds since the epoch

    def numbers(self) -> tuple[int, int, int]:
        """As a checkpoint has them."""
        return self.aggregates, self.blocks, self.since_us


@dataclass(slots=True)
class Memory(PartitionView[Any]):
    """The `View` of the host. `time_us` is that of the decision being made: what expires, expires by it."""

    time_us: int = 0
    sequences: dict[str, int] = field(default_factory=dict)  #: last sequence, of every aggregate that is not parked
    born: dict[str, int] = field(default_factory=dict)  #: offset of the first event
    since: dict[str, int] = field(
        default_factory=dict
    )  #: offset from which on it has been in memory without a break, where that is not `born`
    parked: Index = field(default_factory=Index)
    facts: Index = field(default_factory=Index)
    resting: Index = field(default_factory=Index)
    rested: Rested = field(default_factory=Rested)
    absent: set[tuple[str, str]] = field(default_factory=set)  #: looked for (kind, key) since the last checkpoint, and not there
    changed: dict[str, None] = field(default_factory=dict)  #: aggregates with events since the last checkpoint, in order
    revived: set[str] = field(default_factory=set)  #: parked aggregates that are in memory again, as they were parked
    awoken: set[str] = field(default_factory=set)  #: those of them that rest
    recalled: set[str] = field(default_factory=set)  #: facts that are in memory again
    recent: dict[str, int] = field(default_factory=dict)  #: facts since the last checkpoint: key → offset of the event

    def state(self, aggregate_id: str) -> Any | None:
        """See `View.state`. Raises `NotInMemory`."""
        found = self.aggregates.get(aggregate_id)
        if found is None:
            self.sequence(aggregate_id)
        return found

    def states(self, *, resting: bool = True, kind: type[Any] | None = None) -> Iterator[tuple[str, Any]]:
        """See `View.states`. Raises `NotInMemory`."""
        if resting and len(self.resting):
            raise NotInMemory("all", "")
        return ((name, state) for name, state in self.aggregates.items() if kind is None or isinstance(state, kind))

    def sequence(self, aggregate_id: str) -> int:
        """The aggregate's last sequence, 0 if it is new. Raises `NotInMemory`."""
        found = self.sequences.get(aggregate_id)
        if found is not None:
            return found
        self._look("aggregate", aggregate_id, self.parked)
        self._look("aggregate", aggregate_id, self.resting)
        return 0

    def recall(self, key: str) -> Any | None:
        """See `View.recall`. Raises `NotInMemory`."""
        found = self.remembered.get(key)
        if found is not None:
            return found.value if found.expires_us >= self.time_us else None
        self._look("fact", key, self.facts)
        return None

    def _look(self, kind: Literal["aggregate", "fact"], key: str, index: Index) -> None:
        if (index.segments or index.pending) and (kind, key) not in self.absent and index.may_have(key, self.time_us):
            raise NotInMemory(kind, key)

    # --- coming back ------------------------------------------------------------------------------------------------

    def revive(self, aggregate_id: str, frozen: Frozen, *, rested: bool = False) -> None:
        """Puts a parked aggregate, or one that `rested`, back. Until it changes it counts as parked."""
        if rested:
            self.awoken.add(aggregate_id)
        self.sequences[aggregate_id] = frozen.sequence
        self.born[aggregate_id] = frozen.born
        if frozen.state is not None:
            self.aggregates[aggregate_id] = frozen.state
        self.revived.add(aggregate_id)

    def recollect(self, fact: Remembered) -> None:
        """Puts a fact back."""
        self.remembered[fact.key] = fact
        self.recalled.add(fact.key)

    # --- leaving ----------------------------------------------------------------------------------------------------

    def capture(self) -> Captured:
        """What changed since the last checkpoint; from now on changes count for the next one."""
        aggregates = [
            (id_, Frozen(state=self.aggregates.get(id_), sequence=self.sequences[id_], born=self.born[id_], since=self.since_of(id_)))
            for id_ in self.changed
        ]
        facts = [Place(key, offset, self.remembered[key].expires_us) for key, offset in self.recent.items()]
        self.changed, self.recent = {}, {}
        return Captured(aggregates=aggregates, facts=facts)

    def restore(self, captured: Captured) -> None:
        """Gives back what a checkpoint that failed had captured."""
        self.changed = {id_: None for id_, _ in captured.aggregates if id_ in self.sequences} | self.changed
        self.recent = {place.key: place.offset for place in captured.facts if place.key in self.remembered} | self.recent

    def note_change(self, aggregate_id: str, sequence: int, offset: int) -> None:
        """Notes an event of an aggregate: its sequence, and the offset at which it lies."""
        if sequence == 1:
            self.born[aggregate_id] = offset
        if aggregate_id in self.revived:
            self.revived.discard(aggregate_id)
            self.since[aggregate_id] = offset
            if aggregate_id in self.awoken:
                self.awoken.discard(aggregate_id)
                self.rested.aggregates -= 1
        self.sequences[aggregate_id] = sequence
        self.changed[aggregate_id] = None

    def evict(self, aggregate_id: str, sequence: int, before: int) -> None:
        """Drops an aggregate that is parked as it was `before` an offset; if something has happened to it since, it is in memory anew."""
        last = self.sequences.get(aggregate_id)
        if last == sequence:
            self._drop(aggregate_id)
            self.absent.clear()
        elif last is not None:
            self.since[aggregate_id] = before

    def forget_facts(self, facts: list[Place]) -> None:
        """Drops facts that are in the index now."""
        for place in facts:
            if place.key not in self.recent:
                self.remembered.pop(place.key, None)
                # Before it was a fact it may have been looked for in vain.
                self.absent.discard(("fact", place.key))

    def release(self) -> None:
        """Drops what came back for a decision and is still as it was parked: what changes is taken out of these sets at once."""
        for key in self.revived:
            self._drop(key)
        for key in self.recalled:
            self.remembered.pop(key, None)
        self.revived.clear()
        self.awoken.clear()
        self.recalled.clear()

    def _drop(self, aggregate_id: str) -> None:
        self.aggregates.pop(aggregate_id, None)
        for known in (self.sequences, self.born, self.since):
            known.pop(aggregate_id, None)

    def since_of(self, aggregate_id: str) -> int:
        """See `Frozen.since`."""
        return self.since.get(aggregate_id, self.born[aggregate_id])


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """What changed between two checkpoints."""

    aggregates: list[tuple[str, Frozen]]
    facts: list[Place]
