"""What one owner knows of one log partition: the fold of its valid events, and how a decision becomes log events. Pure.

`LogFold` is used twice: a takeover feeds it the log (`replay`), and live it feeds itself what its machine decides (`decide`).
Both go through `_apply`, so that the state of a successor equals that of the owner by construction. Live state runs ahead of
the acknowledgement; when an append has an unknown outcome the whole fold is thrown away and built anew from the log.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from streams import limits
from streams.errors import Defect
from streams.log.memory import Memory, Rested
from streams.log.snapshot import Frozen, Usable
from streams.log.types import Decision, Due, Entry, Input, Machine, Received, Remembered, Send
from streams.records import InputPosition, LogEvent, Position, derived_id, to_micros
from streams.topics import home_of

#: Timers that were moved or ended, and still stand in the heap, before it is made anew.
STALE_TIMERS_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision with its events as they will lie in the log."""

    entries: tuple[Entry, ...]
    effects: tuple[tuple[Send, InputPosition | None], ...]  #: with the place of the event that each belongs to
    depth: int = 0  #: see `Decision`

    def __bool__(self) -> bool:
        return bool(self.entries or self.effects)


class LogFold:
    """State of one machine on one partition of its log."""

    def __init__(
        self, machine: Machine[Any], *, log: str, partition: int, partitions: int, window_us: int = limits.DEDUPLICATION_WINDOW_MS * 1000
    ) -> None:
        """`log` is the log's name on the broker, `window_us` how long what ended is kept."""
        self.machine = machine
        self.log = log
        self.window_us = window_us
        self.view = Memory(partition=partition, partitions=partitions)
        self.positions: dict[str, int] = {}  #: highest offset handled, per input topic (name on the broker)
        self.moved: set[str] = set()  #: topics whose position moved without an event since the last one that tells it
        self.epoch = 0
        self.next_offset = 0
        self.time_us = 0  #: time of the latest decision in the log
        self._timers: list[tuple[int, str]] = []
        self._due: dict[str, int] = {}
        self._contained: dict[str, int] = {}  #: of states newer than the checkpoint: the offset before which they have everything

    # --- replay -----------------------------------------------------------------------------------------------------

    def replay(self, event: LogEvent, offset: int) -> Entry | None:
        """Folds a valid event of the log; None if its sequence was seen before (a repeat) and it is ignored.

        Raises `NotInMemory` when the aggregate is parked: load it, and call again.
        """
        aggregate_id, sequence = event.aggregate_id, event.sequence
        self.view.time_us, self.next_offset = to_micros(event.time), offset
        entry = Entry(event=event, position=self.place(offset))
        if aggregate_id is None or not sequence:
            self._apply(entry)
            return entry
        if offset < self._contained.get(aggregate_id, 0):
            self._note(entry)  # its state was written after this event
            return entry
        expected = self.view.sequence(aggregate_id) + 1
        if sequence == 1 < expected and self._is_over(aggregate_id):
            self.evict(aggregate_id, expected - 1, offset)
            expected = 1
        if sequence < expected:
            return None
        if sequence > expected:
            raise Defect(
                "log.gap", f"{self.log}/{self.view.partition}@{offset}: sequence {sequence} of {aggregate_id} follows {expected - 1}."
            )
        self._apply(entry)
        return entry

    def place(self, offset: int) -> InputPosition:
        """An offset of the log as a position."""
        return InputPosition(topic=self.log, partition=self.view.partition, offset=offset)

    def _is_over(self, aggregate_id: str) -> bool:
        """Whether nothing is left of an aggregate, or its deduplication window has passed: its id may be used again."""
        state = self.view.aggregates.get(aggregate_id)
        ended_us = None if state is None else self.machine.ended(state)
        return state is None or (ended_us is not None and ended_us + self.window_us <= self.view.time_us)

    def load(self, found: Usable) -> None:
        """Begins with a checkpoint instead of with nothing: the log is replayed from its offset on."""
        checkpoint, view = found.checkpoint, self.view
        self.positions = dict(checkpoint.positions)
        self.time_us = checkpoint.time_us
        self._contained = dict(found.contained)
        view.parked.pending, view.facts.pending = list(checkpoint.parked), list(checkpoint.facts)
        view.resting.pending, view.rested = list(checkpoint.resting), Rested(*checkpoint.rested)
        for aggregate_id, frozen in found.states.items():
            view.aggregates[aggregate_id] = frozen.state
            view.sequences[aggregate_id] = frozen.sequence
            view.born[aggregate_id] = frozen.born
            if frozen.since != frozen.born:
                view.since[aggregate_id] = frozen.since
            self._set_timer(aggregate_id, frozen.state)

    def revive(self, aggregate_id: str, frozen: Frozen, *, rested: bool = False) -> None:
        """Puts a parked aggregate, or one that `rested`, back into memory."""
        self.view.revive(aggregate_id, frozen, rested=rested)
        if frozen.state is not None:
            self._set_timer(aggregate_id, frozen.state)

    def release(self) -> None:
        """Drops what came back for a decision and has not changed."""
        for aggregate_id in self.view.revived:
            self._due.pop(aggregate_id, None)
        self.view.release()

    def evict(self, aggregate_id: str, sequence: int, before: int) -> None:
        """See `Memory.evict`; what left memory has no timer."""
        self.view.evict(aggregate_id, sequence, before)
        if aggregate_id not in self.view.sequences:
            self._due.pop(aggregate_id, None)

    def replay_position(self, position: Position) -> None:
        """Takes over positions that an earlier owner wrote."""
        for at in position.positions:
            self._move(at.topic, at.offset)
            self.moved.discard(at.topic)

    # --- decide -----------------------------------------------------------------------------------------------------

    def decide(self, input: Input) -> Decided:
        """Asks the machine, turns its answer into log events of the current epoch, and folds them.

        Raises `NotInMemory` when that needs something that is parked: load it, and call again.
        """
        self.view.time_us = input.time_us
        return self.conclude(input, self.machine.decide(self.view, input))

    def conclude(self, input: Input, decision: Decision) -> Decided:
        """Makes the machine's answer to the present input log events, and folds them. Raises as `decide`."""
        position = input.position if isinstance(input, Received) else None
        entries = self._stamp(decision, input, position)
        for entry in entries:
            self._apply(entry)
        self.next_offset += len(entries)
        if position is not None:
            self._move(position.topic, position.offset)
            self.moved.add(position.topic) if not entries else self.moved.discard(position.topic)
        depth = max(decision.depth, input.depth) if isinstance(input, Received) else decision.depth
        return Decided(entries=entries, effects=self._place(decision.effects, entries), depth=depth)

    def _place(self, effects: Sequence[Send], entries: Sequence[Entry]) -> tuple[tuple[Send, InputPosition | None], ...]:
        return tuple((effect, entries[effect.caused_by].position if entries else None) for effect in effects)

    def _stamp(self, decision: Decision, input: Input, position: InputPosition | None) -> tuple[Entry, ...]:
        cause = input.record if isinstance(input, Received) else None
        sequences: dict[str, int] = {}
        entries = []
        for index, event in enumerate(decision.events):
            aggregate_id = event.aggregate_id
            if event.sequence == 0 or aggregate_id is None:
                sequence = 0
                event_id = derived_id("refusal", self.log, self.view.partition, self.epoch, *_origin(input), index)
            else:
                sequence = sequences.get(aggregate_id) or self.view.sequence(aggregate_id)
                sequence += 1
                sequences[aggregate_id] = sequence
                event_id = derived_id(aggregate_id, self.epoch, sequence)
            stamped = _with(
                event,
                id=event_id,
                sequence=sequence,
                epoch=self.epoch,
                input=position,
                causation_id=event.causation_id or (cause.id if cause else None),
                correlation_id=event.correlation_id or (cause.correlation_id if cause else "") or home_of(aggregate_id or event.subject),
            )
            entries.append(Entry(event=stamped, position=self.place(self.next_offset + index)))
        return tuple(entries)

    # --- timers -----------------------------------------------------------------------------------------------------

    def next_due(self) -> tuple[int, str] | None:
        """The earliest timer: (due, microseconds since the epoch; aggregate id)."""
        timers = self._timers
        while timers and self._due.get(timers[0][1]) != timers[0][0]:
            heapq.heappop(timers)
        return timers[0] if timers else None

    def drop_timer(self, aggregate_id: str) -> None:
        """Forgets a timer that fired to no effect, until the aggregate's next event."""
        self._due.pop(aggregate_id, None)

    # --- positions --------------------------------------------------------------------------------------------------

    def handled(self, topic: str, offset: int) -> bool:
        """Whether the record at `offset` of this partition of an input topic was decided on before."""
        return offset <= self.positions.get(topic, -1)

    def skip(self, topic: str, offset: int) -> None:
        """Moves a position past a record that is no input (forwarded, undecodable, of no concern)."""
        self._move(topic, offset)
        self.moved.add(topic)

    def moved_positions(self) -> tuple[InputPosition, ...]:
        """Positions that no event tells yet."""
        return tuple(
            InputPosition(topic=topic, partition=self.view.partition, offset=self.positions[topic]) for topic in sorted(self.moved)
        )

    # --- shared -----------------------------------------------------------------------------------------------------

    def outstanding(self) -> Iterator[Send]:
        """Effects that the log does not show as answered."""
        for state in list(self.view.aggregates.values()):
            yield from self.machine.outstanding(state)

    def due_of(self, due_us: int, aggregate_id: str, time_us: int, now_us: int) -> Due:
        """The input of a timer that fires now."""
        return Due(aggregate_id=aggregate_id, due_us=due_us, time_us=time_us, now_us=now_us)

    def _apply(self, entry: Entry) -> None:
        self._note(entry)
        event, view = entry.event, self.view
        aggregate_id = event.aggregate_id
        if aggregate_id is None or not event.sequence:
            return
        view.note_change(aggregate_id, event.sequence, entry.position.offset)
        aggregates = view.aggregates
        state = self.machine.evolve(aggregates.get(aggregate_id), entry)
        if state is None:
            aggregates.pop(aggregate_id, None)
            self._due.pop(aggregate_id, None)
            return
        aggregates[aggregate_id] = state
        self._set_timer(aggregate_id, state)

    def _note(self, entry: Entry) -> None:
        """What an event says beside its aggregate's state: the time, a position, facts."""
        event = entry.event
        self.time_us = max(self.time_us, to_micros(event.time))
        if event.input is not None:
            self._move(event.input.topic, event.input.offset)
            self.moved.discard(event.input.topic)
        for fact in self.machine.remember(entry):
            self._remember(fact, entry.position.offset)

    def _set_timer(self, aggregate_id: str, state: Any) -> None:
        due = self.machine.due(state)
        if due is None:
            self._due.pop(aggregate_id, None)
        elif self._due.get(aggregate_id) != due:
            self._due[aggregate_id] = due
            heapq.heappush(self._timers, (due, aggregate_id))
            if len(self._timers) > 2 * len(self._due) + STALE_TIMERS_MAX:
                self._timers = [(due, aggregate_id) for aggregate_id, due in self._due.items()]
                heapq.heapify(self._timers)

    def _move(self, topic: str, offset: int) -> None:
        if offset > self.positions.get(topic, -1):
            self.positions[topic] = offset

    def _remember(self, fact: Remembered, offset: int) -> None:
        self.view.remembered[fact.key] = fact
        self.view.recent[fact.key] = offset
        self.view.recalled.discard(fact.key)


def _origin(input: Input) -> tuple[object, ...]:
    """What tells an input from every other: several may come from one place, or from none, at one moment."""
    if isinstance(input, Due):
        return (input.aggregate_id, input.time_us)
    at = input.position
    return (input.record.id, input.time_us) if at is None else (at.topic, at.partition, at.offset, input.record.id)


@cache
def _field_names(cls: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


def _with(event: LogEvent, **stamp: object) -> LogEvent:
    """`dataclasses.replace` at a third of its cost: it is called for every event. The copy is not shared before it is complete."""
    copy = object.__new__(type(event))
    put = object.__setattr__
    fields: tuple[str, ...] = _field_names(type(event))  # type: ignore[arg-type]  # mypy: a union of classes is not hashable
    for name in fields:
        put(copy, name, stamp[name] if name in stamp else getattr(event, name))
    return copy
