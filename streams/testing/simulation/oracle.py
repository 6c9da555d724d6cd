"""What must be true, said without the kernel: a plain sequential reading of the logs, and a plain model of the machines.

The oracle is told of every batch at the moment when the broker stores it. It applies the reader's rule, takes each decision
out of the log, finds the input that it names, and asks the model what had to follow at that place. Whatever differs is a
violation with the name of the invariant. Inputs that left nothing in the log must be such that the model, at some place
between their neighbours, would have done nothing either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from streams.codec.avro import Codec
from streams.errors import InvalidInput
from streams.log.fold import LogFold
from streams.log.ports import Stored
from streams.records import InputPosition, Position, Record, to_micros
from streams.testing.simulation.model import CounterModel, FlowModel, Legit, Model, description
from streams.topics import COMMANDS, MESSAGES, REQUESTS, RESPONSES, TRANSITIONS, home_of, partition_of

Violate = Callable[[str, str], None]


@dataclass(slots=True)
class Lane:
    """What the oracle knows of one log partition, and of the inputs of its machine."""

    topic: str
    partition: int
    model: Model
    inboxes: tuple[str, ...]
    position: int = 0
    epoch: int = 0
    time_us: int = 0
    verdicts: list[str] = field(default_factory=list)  #: per offset
    events: dict[int, Any] = field(default_factory=dict)  #: valid events, by offset, without repeats
    ids: dict[str, Any] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)
    handled: dict[str, int] = field(default_factory=dict)  #: per input topic the highest offset that the log shows as decided
    quiet: dict[str, dict[int, bool]] = field(default_factory=dict)  #: per topic, offsets above: whether nothing had to follow
    barriers: list[tuple[str, int, int]] = field(default_factory=list)  #: a timer fired: (topic, end, due): none older may follow
    takeovers: dict[int, tuple[Mapping[str, int], int]] = field(default_factory=dict)  #: by epoch: ends of inboxes, offset of the fence


class Oracle:
    """Judges a run. `violate(invariant, message)` is called with whatever is wrong."""

    def __init__(self, codec: Codec, partitions: int, violate: Violate, *, resting: bool = False) -> None:
        self._codec = codec
        self._partitions = partitions
        self.violate = violate
        self.records: dict[tuple[str, int], list[Stored]] = {}  #: everything that was ever stored
        self.legit: dict[str, Legit] = {}  #: effects of valid events, by the id of their record
        self.performed: dict[str, Record] = {}
        self.performances = 0
        self.lanes: dict[tuple[str, int], Lane] = {}
        for partition in range(partitions):
            flows = FlowModel(self._is_local(partition))
            counters = CounterModel(self._is_local(partition), resting=resting)
            self.lanes[TRANSITIONS, partition] = Lane(TRANSITIONS, partition, flows, (COMMANDS, RESPONSES, MESSAGES))
            self.lanes[MESSAGES, partition] = Lane(MESSAGES, partition, counters, (REQUESTS,))
        for lane in self.lanes.values():
            lane.handled = dict.fromkeys(lane.inboxes, -1)
            lane.quiet = {topic: {} for topic in lane.inboxes}

    def _is_local(self, partition: int) -> Callable[[str], bool]:
        return lambda home: partition_of(home_of(home), self._partitions) == partition

    # --- the log ----------------------------------------------------------------------------------------------------

    def stored(self, topic: str, number: int, records: list[Stored]) -> None:
        """The broker has stored a batch."""
        self.records.setdefault((topic, number), []).extend(records)
        lane = self.lanes.get((topic, number))
        if lane is None:
            return
        fresh: list[tuple[int, Any]] = []
        for record in records:
            verdict, event = self._judge(lane, record)
            lane.verdicts.append(verdict)
            if verdict in ("valid", "position"):
                fresh.append((record.offset, event))
        while fresh:
            if isinstance(fresh[0][1], Position):
                for at in fresh.pop(0)[1].positions:
                    self._window_ends(lane, at, inclusive=True)
                continue
            count = self._decision(lane, fresh)
            if not count:
                return
            fresh = fresh[count:]

    def _judge(self, lane: Lane, record: Stored) -> tuple[str, Any]:
        headers = dict(record.headers)
        kind, epoch = headers.get("ce_type", b""), int(headers.get("mplp_epoch", b"-1"))
        if kind == b"log.fenced":
            if epoch <= lane.epoch:
                return "ignored", None
            lane.epoch = epoch
            return "fence", None
        if epoch != lane.epoch:
            if epoch > lane.epoch:
                self.violate("epochs", f"{_at(record)} has epoch {epoch}, but {lane.epoch} is in force")
            return "void", None
        event = self._codec.decode(record.value)
        if isinstance(event, Position):
            return "position", event
        known = lane.ids.get(event.id)
        if known is not None:
            if known != event:
                self.violate("decided-once", f"{_at(record)}: two different events have the id of {description(event)}")
            return "repeat", None
        lane.ids[event.id] = event
        return "valid", event

    def _decision(self, lane: Lane, fresh: list[tuple[int, Any]]) -> int:
        """Takes the next decision out of the log and compares it with the model; returns how many events it has (0: violated)."""
        first = fresh[0][1]
        where = f"{lane.topic}/{lane.partition}@{fresh[0][0]}"
        self._note_quiet(lane)
        try:
            request = self._input(lane, first, where)
            expected, effects = lane.model.decide(request, to_micros(first.time), first)
        except _Violated as error:
            self.violate(error.invariant, f"{where}: {error}")
            return 0
        found = [event for _, event in fresh[: len(expected)]]
        shown = [lane.model.essence(event) for event in found]
        if shown != expected or not expected:
            self.violate("as-the-oracle", f"{where}: {shown or description(first)} was decided, not {expected}")
            return 0
        for offset, event in fresh[: len(expected)]:
            if not self._in_order(lane, event, first, f"{lane.topic}/{lane.partition}@{offset}"):
                return 0
            lane.events[offset] = event
            lane.model.evolve(event)
        for effect in effects:
            self.legit.setdefault(effect.id, effect)
        if first.input is not None:
            self._window_ends(lane, first.input, inclusive=False)
        return len(expected)

    def _in_order(self, lane: Lane, event: Any, first: Any, where: str) -> bool:
        time_us = to_micros(event.time)
        if event.input != first.input or event.time != first.time:
            self.violate("one-input-one-batch", f"{where}: the events of one decision differ in input or time")
            return False
        if time_us < lane.time_us:
            self.violate("time-never-goes-back", f"{where}: decided at {time_us} after {lane.time_us}")
            return False
        lane.time_us = time_us
        if event.aggregate_id is not None and event.sequence:
            last = lane.sequences.get(event.aggregate_id, 0)
            if event.sequence != last + 1:
                self.violate("sequences-gapless", f"{where}: {event.aggregate_id} goes from {last} to {event.sequence}")
                return False
            lane.sequences[event.aggregate_id] = event.sequence
        return True

    # --- inputs -----------------------------------------------------------------------------------------------------

    def _input(self, lane: Lane, event: Any, where: str) -> Record | None:
        """The input that an event names; None for a timer."""
        at = event.input
        if at is None or (at.topic not in lane.inboxes):
            # A timer, or something handed over in memory: then it is the effect of an event that counts.
            if event.causation_id is None:
                due = lane.model.due(event.aggregate_id)
                if due is None or to_micros(event.time) < due:
                    raise _Violated("timers", f"a timer of {event.aggregate_id} fired that is due at {due}")
                self._barrier(lane, event.epoch, due)
                return None
            cause = self.legit.get(event.causation_id)
            if cause is None:
                raise _Violated("effects-of-valid-events", f"{event.causation_id} was handed over, yet no valid event asked for it")
            return cause.record
        if at.offset <= lane.handled[at.topic]:
            raise _Violated("decided-once", f"{at.topic}@{at.offset} was decided before")
        for topic, end, due_us in lane.barriers:
            if topic == at.topic and at.offset < end and self._time_us(topic, lane, at.offset) < due_us:
                raise _Violated("timers", f"{topic}@{at.offset} came before a timer due at {due_us} and is decided after it")
        if at.topic == MESSAGES:
            found = self.lanes[MESSAGES, lane.partition].events.get(at.offset)
            if found is None:
                raise _Violated("void-never-seen", f"{at.topic}@{at.offset} does not count, yet it was an input")
            return found  # type: ignore[no-any-return]
        stored = self.records[at.topic, lane.partition][at.offset]
        return self._codec.decode(stored.value)

    def _time_us(self, topic: str, lane: Lane, offset: int) -> int:
        if topic == MESSAGES:
            event = self.lanes[MESSAGES, lane.partition].events.get(offset)
            return to_micros(event.time) if event is not None else 1 << 62
        return self.records[topic, lane.partition][offset].timestamp_ms * 1000

    def _barrier(self, lane: Lane, epoch: int, due_us: int) -> None:
        ends, fence = lane.takeovers.get(epoch, ({}, 0))
        for topic in lane.inboxes:
            lane.barriers.append((topic, fence if topic == MESSAGES else ends.get(topic, 0), due_us))

    def _note_quiet(self, lane: Lane) -> None:
        """Notes which inputs that are not decided yet would have no consequence here."""
        for topic in lane.inboxes:
            quiet = lane.quiet[topic]
            for offset in range(lane.handled[topic] + 1, len(self.records.get((topic, lane.partition), ()))):
                if not quiet.get(offset):
                    quiet[offset] = self._no_consequence(lane, topic, offset)

    def _no_consequence(self, lane: Lane, topic: str, offset: int) -> bool:
        if topic == MESSAGES:
            event = self.lanes[MESSAGES, lane.partition].events.get(offset)
            return event is None or event.kind != "response" or not lane.model.decide(event, 0, None)[0]
        stored = self.records[topic, lane.partition][offset]
        if stored.key is None or partition_of(home_of(stored.key.decode()), self._partitions) != lane.partition:
            return True
        try:
            record = self._codec.decode(stored.value)
        except InvalidInput:
            return True
        return not lane.model.decide(record, 0, None)[0]

    def _window_ends(self, lane: Lane, at: InputPosition, *, inclusive: bool) -> None:
        """The log shows that everything below `at` (and `at` itself) was decided: what left nothing must have had to."""
        if at.topic not in lane.inboxes:
            return
        if inclusive:
            self._note_quiet(lane)
        quiet = lane.quiet[at.topic]
        for offset in range(lane.handled[at.topic] + 1, at.offset + inclusive):
            if not quiet.get(offset):
                self.violate("no-input-skipped", f"{at.topic}/{lane.partition}@{offset} had to be decided before {at.offset}")
        lane.handled[at.topic] = max(lane.handled[at.topic], at.offset)
        lane.quiet[at.topic] = {}

    # --- what owners do ---------------------------------------------------------------------------------------------

    def took_over(self, partition: int, epochs: Mapping[str, int], ends: Mapping[str, int], fence: int) -> None:
        """An owner has folded the logs (their epochs are given) and has opened its inboxes, which ended at `ends`."""
        for topic, epoch in epochs.items():
            self.lanes[topic, partition].takeovers[epoch] = (ends, fence)

    def positions_differ(self, fold: LogFold) -> Iterator[tuple[str, str]]:
        """Where an owner that has decided nothing yet would go on reading at a wrong place."""
        lane = self.lanes[fold.log, fold.view.partition]
        self._note_quiet(lane)
        for topic in lane.inboxes:
            known, handled = fold.positions.get(topic, -1), lane.handled[topic]
            if known < handled:
                yield "decided-once", f"{topic}/{lane.partition} goes on after {known}, though the log shows {handled} as decided"
            for offset in range(handled + 1, known + 1):
                if not lane.quiet[topic].get(offset):
                    yield "no-input-skipped", f"{topic}/{lane.partition} goes on after {known}, though {offset} is not decided"

    def acknowledged(self, topic: str, partition: int, offset: int, count: int) -> None:
        """An owner takes an append for acknowledged: its records must count."""
        verdicts = self.lanes[topic, partition].verdicts[offset : offset + count]
        if len(verdicts) != count or any(verdict not in ("valid", "position") for verdict in verdicts):
            self.violate("acknowledged-is-kept", f"{topic}/{partition}@{offset} was acknowledged, but the records are {verdicts}")

    def effect(self, key: str, topic: str, record: Record) -> None:
        """An owner performs an effect."""
        self.performances += 1
        legit = self.legit.get(record.id)
        if legit is None:
            self.violate("effects-of-valid-events", f"{description(record)} was performed, yet no event of the log asks for it")
        elif (topic, key, description(record)) != (legit.topic, legit.key, description(legit.record)):
            self.violate("effects-of-valid-events", f"{description(record)} for {key} was performed instead of {legit}")
        if self.performed.setdefault(record.id, record) != record:
            self.violate("effects-are-identical", f"{description(record)} differs from what was performed before")


class _Violated(Exception):
    def __init__(self, invariant: str, message: str) -> None:
        super().__init__(message)
        self.invariant = invariant


def _at(record: Stored) -> str:
    return f"{record.topic}/{record.partition}@{record.offset}"
