"""A machine run in memory, without a broker: feeds inputs, stamps events as the host does, and checks what it may not break.

One partition, one machine. After every decision the fold of the log so far must equal the live state if `checked`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from streams.log.types import Decision, Due, Effect, Entry, Input, Machine, PartitionView, Received
from streams.records import InputPosition, LogEvent, Record, derived_id, to_micros

State = TypeVar("State")


@dataclass(slots=True)
class MachineRunner(Generic[State]):
    """Holds the view, the log and the effects of one machine; time is whatever the caller says."""

    machine: Machine[State]
    view: PartitionView[State] = field(default_factory=PartitionView)
    log: list[Entry] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    epoch: int = 1
    now_us: int = 0
    checked: bool = False  #: fold the whole log again after each input and compare (slow, for property tests)
    check_state: Callable[[State], None] | None = None  #: called with each state that an input left behind
    _sequences: dict[str, int] = field(default_factory=dict)
    _inputs: dict[str, int] = field(default_factory=dict)

    def receive(self, record: Record, *, topic: str | None = None, time_us: int | None = None) -> Decision:
        """Hands over a record as if it lay next in `topic` (default: the machine's first inbox) and folds what is decided."""
        self._advance(time_us)
        topic = topic or self.machine.inboxes[0]
        offset = self._inputs.get(topic, -1) + 1
        self._inputs[topic] = offset
        position = InputPosition(topic=topic, partition=self.view.partition, offset=offset)
        return self.handle(Received(record=record, position=position, time_us=self.now_us))

    def fire(self, aggregate_id: str, *, time_us: int | None = None) -> Decision:
        """Fires the aggregate's timer: now, if it is due, else at the time that it asks for."""
        state = self.view.state(aggregate_id)
        due = None if state is None else self.machine.due(state)
        assert due is not None, f"{aggregate_id} has no timer"
        self._advance(max(due, self.now_us) if time_us is None else time_us)
        return self.handle(Due(aggregate_id=aggregate_id, due_us=due, time_us=self.now_us, now_us=self.now_us))

    def next_due(self) -> tuple[int, str] | None:
        """The earliest timer of all aggregates: when and whose."""
        timers = ((due, aggregate) for aggregate, state in self.view.states() if (due := self.machine.due(state)) is not None)
        return min(timers, default=None)

    def handle(self, input: Input) -> Decision:
        """Decides on `input`, stamps and folds the events, keeps the effects. Returns the decision with stamped events."""
        decision = self.machine.decide(self.view, input)
        stamped = tuple(self._append(event, input) for event in decision.events)
        self.effects.extend(decision.effects)
        if self.checked:
            assert self.replay() == dict(self.view.aggregates), "replay differs from live"
        return replace(decision, events=stamped)

    def take_over(self, entries: Iterable[Entry]) -> None:
        """Goes on from a log that another owner has written: folds it, and claims the next epoch."""
        for entry in entries:
            self.log.append(entry)
            _fold(self.machine, self.view.aggregates, entry)
            for fact in self.machine.remember(entry):
                self.view.remembered[fact.key] = fact
            event = entry.event
            self._sequences[event.aggregate_id or ""] = max(self._sequences.get(event.aggregate_id or "", 0), event.sequence or 0)
            self.epoch = max(self.epoch, (event.epoch or 0) + 1)
            self._advance(to_micros(event.time))

    def take_effects(self) -> list[Effect]:
        """The effects decided since the last call, in order."""
        taken, self.effects = self.effects, []
        return taken

    def events(self, *types: str) -> list[Any]:
        """The events of the log, all or those of the given types."""
        return [entry.event for entry in self.log if not types or entry.event.type in types]

    def replay(self) -> dict[str, State]:
        """The states that the log alone gives: the fold from nothing."""
        states: dict[str, State] = {}
        for entry in self.log:
            _fold(self.machine, states, entry)
        return states

    def _advance(self, time_us: int | None) -> None:
        self.now_us = max(self.now_us, time_us if time_us is not None else self.now_us)

    def _append(self, event: LogEvent, input: Input) -> LogEvent:
        aggregate = event.aggregate_id
        sequence = 0
        if event.sequence != 0 and aggregate is not None:
            sequence = self._sequences[aggregate] = self._sequences.get(aggregate, 0) + 1
        received = input if isinstance(input, Received) else None
        offset = len(self.log)
        stamped = replace(
            event,
            id=event.id or derived_id(self.machine.log, self.view.partition, aggregate, self.epoch, sequence or f"@{offset}"),
            sequence=sequence,
            epoch=self.epoch,
            input=received.position if received else None,
            causation_id=event.causation_id or (received.record.id if received else None),
            correlation_id=event.correlation_id or (received.record.correlation_id if received else ""),
        )
        entry = Entry(event=stamped, position=InputPosition(topic=self.machine.log, partition=self.view.partition, offset=offset))
        self.log.append(entry)
        if sequence:
            _fold(self.machine, self.view.aggregates, entry)
            state = self.view.state(aggregate or "")
            if self.check_state is not None and state is not None:
                self.check_state(state)
        for fact in self.machine.remember(entry):
            self.view.remembered[fact.key] = fact
        return stamped


def _fold(machine: Machine[State], states: dict[str, State], entry: Entry) -> None:
    aggregate = entry.event.aggregate_id
    if aggregate is None or not entry.event.sequence:
        return
    after = machine.evolve(states.get(aggregate), entry)
    if after is None:
        states.pop(aggregate, None)
    else:
        states[aggregate] = after


def timeline(runner: MachineRunner[Any]) -> Iterator[str]:
    """One line per event of the log, for messages of failing tests."""
    for entry in runner.log:
        event = entry.event
        yield f"{event.time.isoformat()} {event.type} {getattr(event, 'step_id', '') or ''} {event.data}"
