"""What must hold at every record that is stored, read from the outside: nothing here asks the stages what they did.

For each partition of matches the fold of all its records, from the first on and without interruption, says what is to be said; the
composites that count must be that, in that order, each once. What is fed to that fold is held against the source records.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from streams.codec.avro import Codec
from streams.correlation.clock import UNKNOWN_US
from streams.correlation.composites import Link
from streams.correlation.engine import Engine
from streams.correlation.index import RuleIndex
from streams.correlation.intentions import Headers
from streams.correlation.parse import parse_rule
from streams.correlation.partition import CorrelatePartition
from streams.correlation.rules import ActiveRule, aggregate_of
from streams.correlation.seen import Draft, Seen
from streams.errors import InvalidInput
from streams.limits import AHEAD_MS_MAX
from streams.log.ports import Stored
from streams.matching.matchers import RecordView
from streams.records import CompositeEvent, ControlRecord
from streams.testing.simulation.stages.acts import BY_RULES, WRITTEN, ActionWatch
from streams.testing.simulation.stages.chained import ChainWatch
from streams.topics import (
    ACTIONS_HEADER,
    BY_NAME,
    CHAIN_HEADER,
    COMPOSITES,
    CONTROL_RULES,
    DEPTH_HEADER,
    MATCHES,
    SYSTEM_EVENTS,
    TRANSITIONS,
    partition_of,
)

Place = tuple[str, int]
Version = tuple[str, int]  #: rule and order (offset in the control topic)
Violate = Callable[[str, str], None]


@dataclass(slots=True)
class Source:
    """A source partition: its records that are used, in the order of offsets."""

    offsets: list[int] = field(default_factory=list)
    latest_us: list[int] = field(default_factory=list)  #: greatest event time up to that record
    plains: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0
    end: int = 0

    def latest_before(self, offset: int) -> int:
        """The greatest event time used before an offset."""
        at = bisect_left(self.offsets, offset)
        return self.latest_us[at - 1] if at else UNKNOWN_US


class WatchedEngine(Engine):
    """The engine of an uninterrupted fold; every record fed to it is told."""

    def __init__(self, told: Callable[[ActiveRule, str, Seen, str], None]) -> None:
        super().__init__()
        self._told = told

    def feed_all(self, rule_id: str, fed: Iterable[tuple[str, Seen, tuple[Any, ...]]]) -> list[Draft]:
        """See `Engine.feed_all`."""
        return [draft for group_key, seen, arrival in fed for draft in self.feed(rule_id, group_key, seen, arrival)]

    def feed(self, rule_id: str, group_key: str, seen: Seen, arrival: tuple[Any, ...]) -> list[Draft]:
        """See `Engine.feed`."""
        active, counters = self._rules[rule_id].active, self._rules[rule_id].counters
        late, duplicates = counters.late, counters.duplicates
        drafts = super().feed(rule_id, group_key, seen, arrival)
        if seen.after is None:
            outcome = "late" if counters.late > late else "duplicate" if counters.duplicates > duplicates else "used"
            self._told(active, group_key, seen, outcome)
        return drafts


@dataclass(frozen=True, slots=True)
class Expected:
    """A composite that is to be said."""

    offset: int  #: of the record of the matches that leads to it
    composite: CompositeEvent
    headers: Headers  #: its depth, what it makes rules do, and what those need that read it


@dataclass(slots=True)
class Truth:
    """One partition of matches and of composites, as an uninterrupted reader knows them."""

    number: int
    fold: CorrelatePartition
    offset: int = 0  #: next of the matches
    expected: list[Expected] = field(default_factory=list)
    said: list[CompositeEvent] = field(default_factory=list)  #: what counts in the log
    epoch: int = 0
    fences: int = 0
    void: int = 0
    repeats: int = 0
    values: set[bytes | None] = field(default_factory=set)  #: the bytes of all that counts
    sequences: dict[str, int] = field(default_factory=dict)
    reached: dict[Place, int] = field(default_factory=dict)  #: offsets that marks have told


class StageWatch:
    """See the module."""

    def __init__(self, codec: Codec, partitions: int, violate: Violate) -> None:
        self._codec, self._violate = codec, violate
        self.truths = [self._truth(number) for number in range(partitions)]
        self.sources: dict[Place, Source] = defaultdict(Source)
        self.records: dict[str, tuple[Place, int, dict[str, Any]]] = {}  #: id → place, offset, fields of those that are used
        self.versions: dict[Version, ActiveRule] = {}
        self.latest: dict[str, Version] = {}  #: rule → its last version, also the one that ends it
        self.indexes: dict[Version, RuleIndex] = {}
        self.fed: dict[Version, dict[str, str]] = defaultdict(dict)  #: record → what became of it
        self.fixed: frozenset[str] = frozenset()  #: rules that never change
        self.changing = False  #: whether any rule ever changes
        self.duplicates = 0
        self.chain = ChainWatch(partitions, self.versions, violate)
        self.acts = ActionWatch(codec, violate)
        self._owed: dict[tuple[Place, int], deque[tuple[int, str, str]]] = defaultdict(deque)  # (source, matches partition) → due matches

    def _truth(self, number: int) -> Truth:
        fold = CorrelatePartition()
        fold.engine = WatchedEngine(lambda active, group, seen, outcome: self._told(number, active, group, seen, outcome))
        return Truth(number, fold)

    def stored(self, topic: str, number: int, records: Sequence[Stored]) -> None:
        """Records were stored."""
        for record in records:
            if topic == MATCHES:
                self._match(self.truths[number], record)
            elif topic == COMPOSITES:
                self._composite(self.truths[number], record)
            elif topic in (SYSTEM_EVENTS, TRANSITIONS):
                self._source((topic, number), record)
            elif topic == CONTROL_RULES:
                self._rule(record)
            if topic in WRITTEN:
                self.acts.stored(topic, record)

    # --- sources and rules ------------------------------------------------------------------------------------------

    def _rule(self, record: Stored) -> None:
        found = self._codec.decode(record.value)
        assert isinstance(found, ControlRecord)
        version = self.latest[found.id] = (found.id, record.offset)
        if not found.deleted:
            active = ActiveRule(rule=parse_rule(orjson.loads(found.content)), version=found.version, order=record.offset)
            self.versions[version] = active
            self.indexes[version] = RuleIndex([active])

    def _source(self, place: Place, record: Stored) -> None:
        source = self.sources[place]
        source.end = record.offset + 1
        if BY_NAME[place[0]].log:
            kind, epoch = _kind_and_epoch(record)
            if kind == "log.fenced":
                source.epoch = max(source.epoch, epoch)
                return
            if epoch != source.epoch:
                return  # void
        try:
            _, plain = self._codec.decode_raw(record.value)
        except InvalidInput:
            return
        if plain["time"] > record.timestamp_ms * 1000 + AHEAD_MS_MAX * 1000:
            return
        time_us = UNKNOWN_US if plain["source"].startswith(BY_RULES) else plain["time"]  # what rules emit moves no clock
        source.offsets.append(record.offset)
        source.latest_us.append(max(time_us, source.latest_us[-1] if source.latest_us else UNKNOWN_US))
        source.plains.append(plain)
        self.records[plain["id"]] = (place, record.offset, plain)
        for rule_id in self.fixed:
            for key in self.groups(self.latest[rule_id], place[0], plain):
                number = partition_of(aggregate_of(rule_id, key), len(self.truths))
                self._owed[place, number].append((record.offset, rule_id, plain["id"]))

    def groups(self, version: Version, topic: str, plain: dict[str, Any]) -> list[str]:
        """The groups of a version that a record belongs to."""
        return [hit.group_key for hit in self.indexes[version].hits(topic, RecordView(plain))]

    # --- matches ----------------------------------------------------------------------------------------------------

    def _match(self, truth: Truth, record: Stored) -> None:
        name, plain = self._codec.decode_raw(record.value)
        if name == "Watermark" and plain["level"] == 0:
            for mark in plain["marks"]:
                self._mark(truth, (mark["topic"], mark["partition"]), mark)
        if name == "MatchBatch" and plain["topic"] == COMPOSITES:
            self.chain.matched(truth.number, plain)
        truth.offset = record.offset + 1
        for found in truth.fold.apply(name, plain, record.timestamp_ms * 1000):
            truth.expected.append(Expected(record.offset, found, truth.fold.headers_of(found)))

    def _mark(self, truth: Truth, place: Place, mark: dict[str, Any]) -> None:
        """A clock must not run ahead of the matches that it speaks about."""
        offset = mark["offset"]
        truth.reached[place] = max(offset, truth.reached.get(place, 0))
        if place[0] == COMPOSITES:
            self.chain.reached(truth.number, place[1], offset)
            return
        where = f"{place[0]}/{place[1]}, matches {truth.number}"
        if mark["time"] > self.sources[place].latest_before(offset):
            self._violate("clock-behind-matches", f"{where}: a mark before {offset} says {mark['time']}, which no record there has")
        owed = self._owed[place, truth.number]
        while owed and owed[0][0] < offset:
            at, rule_id, record_id = owed.popleft()
            if record_id not in self.fed[self.latest[rule_id]]:
                self._violate("clock-behind-matches", f"{where}: a mark speaks of {offset}, {rule_id} was not fed {record_id} at {at}")

    def _told(self, number: int, active: ActiveRule, group_key: str, seen: Seen, outcome: str) -> None:
        version = (active.id, active.order)
        found = self.records.get(seen.id)
        if found is None:
            self._violate("only-what-counts", f"{active.id} was fed {seen.id}, which is void, broken or dated ahead")
            return
        place, offset, plain = found
        if group_key not in self.groups(version, place[0], plain):
            self._violate("only-what-matches", f"{active.id} was fed {seen.id} for the group {group_key}")
        if partition_of(aggregate_of(active.id, group_key), len(self.truths)) != number:
            self._violate("only-what-matches", f"{active.id}, {group_key} was fed in partition {number}")
        if seen.id in self.fed[version]:
            self.duplicates += 1
            # What an action emits may lie there twice: then the second one must not be used.
            if not self.changing and not (seen.source.startswith(BY_RULES) and outcome != "used"):
                self._violate("matched-once", f"{active.id} was fed {seen.id} of {place[0]}/{place[1]}@{offset} twice")
            return
        self.fed[version][seen.id] = outcome

    # --- composites -------------------------------------------------------------------------------------------------

    def _composite(self, truth: Truth, record: Stored) -> None:
        kind, epoch = _kind_and_epoch(record)
        if kind == "log.fenced":
            if epoch > truth.epoch:
                truth.epoch = epoch
                truth.fences += 1
            return
        if epoch != truth.epoch:
            truth.void += 1
            return
        if record.value in truth.values:
            truth.repeats += 1  # a batch that was stored twice: a reader that sees an id twice ignores the second
            self._readable(truth, record, repeated=True)
            return
        truth.values.add(record.value)
        composite = self._codec.decode(record.value)
        assert isinstance(composite, CompositeEvent)
        where = f"composites {truth.number}@{record.offset}"
        number = len(truth.said)
        truth.said.append(composite)
        if number >= len(truth.expected):
            self._violate("said-once", f"{where}: {_name(composite)} is said, but nothing more was to be said")
            return
        offset, expected = truth.expected[number].offset, truth.expected[number].composite
        if content(composite) != content(expected):
            invariant = "said-once" if _name(composite) in {_name(said) for said in truth.said[:-1]} else "said-in-order"
            differ = _differences(composite, expected)
            self._violate(invariant, f"{where}: {_name(composite)} is said where {_name(expected)} was due{differ}")
            return
        aggregate, sequence = composite.aggregate_id or "", composite.sequence
        if sequence != truth.sequences.get(aggregate, 0) + 1:
            self._violate("sequences-gapless", f"{where}: {aggregate} has {sequence} after {truth.sequences.get(aggregate, 0)}")
        truth.sequences[aggregate] = sequence or 0
        if composite.input is None or composite.input.offset != offset:
            self._violate("input-is-named", f"{where}: {_name(composite)} names {composite.input}, but {offset} led to it")
        beside = tuple((name, value) for name, value in record.headers if name in _BESIDE)
        if sorted(beside) != sorted(truth.expected[number].headers):
            due = truth.expected[number].headers
            self._violate("said-in-order", f"{where}: along with {_name(composite)} goes {beside}, where {due} was due")
        self.acts.said(composite, record)
        self._readable(truth, record, repeated=False)

    def _readable(self, truth: Truth, record: Stored, *, repeated: bool) -> None:
        """A composite that counts is there: rules may read it."""
        link = dict(record.headers).get(CHAIN_HEADER)
        if link is not None:
            plain = self._codec.decode_raw(record.value)[1]
            self.chain.said(truth.number, record.offset, plain, Link.load(link), repeated=repeated)


#: Headers that follow from a composite's matches.
_BESIDE = frozenset({CHAIN_HEADER, ACTIONS_HEADER, DEPTH_HEADER})
_OF_LOG = {"aggregate_id", "sequence", "epoch", "input"}


def content(composite: CompositeEvent) -> dict[str, Any]:
    """What a composite says, without its place in the log."""
    fields = composite.__dataclass_fields__
    return {name: _plain(getattr(composite, name)) for name in fields if name not in _OF_LOG}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _name(composite: CompositeEvent) -> str:
    return f"{composite.rule_id} {composite.id[:8]}#{composite.revision}"


def _differences(one: CompositeEvent, other: CompositeEvent) -> str:
    if (one.id, one.revision) != (other.id, other.revision):
        return ""
    left, right = content(one), content(other)
    return ": " + ", ".join(f"{name} {left[name]!r} and {right[name]!r}" for name in left if left[name] != right[name])


def _kind_and_epoch(record: Stored) -> tuple[str, int]:
    """Read here once more, so that a mistake in the reader's rule does not hide itself."""
    headers = dict(record.headers)
    return headers.get("ce_type", b"").decode(), int(headers.get("mplp_epoch", b"-1"))
