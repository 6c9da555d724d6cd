"""Both stages without a broker: source partitions, match stages, partitions of matches with an owner each, composites; in any order.

What reads and writes Kafka is left out: topics are lists, an append is acknowledged at once. Every reader has a position of its own,
and `step` moves one of them, so that a source of chance plays all interleavings. Records are handed over as bytes where Kafka does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import orjson

from streams.correlation.clock import UNKNOWN_US
from streams.correlation.composites import Link, composite_plain, composite_rows
from streams.correlation.index import Hit, RuleIndex
from streams.correlation.level_clocks import LevelMark
from streams.correlation.parse import parse_rule
from streams.correlation.partition import CorrelatePartition
from streams.correlation.rows import RowsWriter
from streams.correlation.rules import ActiveRule, aggregate_of
from streams.matching.matchers import RecordView
from streams.records import CompositeEvent
from streams.topics import CHAIN_HEADER, COMPOSITES, SYSTEM_EVENTS, partition_of


@dataclass
class Reader:
    """The match stage of one source partition."""

    topic: str
    partition: int
    position: int = 0
    time_us: int = UNKNOWN_US


@dataclass
class Logged:
    """A composite in its log."""

    composite: CompositeEvent
    link: bytes | None
    plain: bytes


@dataclass
class Checkpoint:
    state: bytes
    groups: dict[tuple[str, str], bytes]
    position: int


@dataclass
class Owner:
    """The correlate stage of one partition."""

    state: CorrelatePartition
    position: int = 0
    marks: Sequence[LevelMark] = ()
    checkpoint: Checkpoint | None = None
    said: set[tuple[str, int]] = field(default_factory=set)  # what the log has, while replaying


class Cluster:
    """`documents` are in force from the beginning on; `sources` source partitions, `partitions` of matches and composites."""

    def __init__(self, documents: Iterable[dict[str, Any]], *, sources: int, partitions: int, chance: Random) -> None:
        self.chance = chance
        self.rules = [ActiveRule(rule=parse_rule(of), version=1, order=number) for number, of in enumerate(documents)]
        self.index = RuleIndex(self.rules)
        self.partitions = partitions
        self.records: list[list[tuple[int, dict[str, Any]]]] = [[] for _ in range(sources)]  # (Kafka timestamp, record)
        self.matches: list[list[tuple[str, bytes]]] = [[] for _ in range(partitions)]
        self.composites: list[list[Logged]] = [[] for _ in range(partitions)]
        self.owners = [Owner(CorrelatePartition()) for _ in range(partitions)]
        self.readers = [Reader(SYSTEM_EVENTS, p) for p in range(sources)] + [Reader(COMPOSITES, p) for p in range(partitions)]
        self._arrived = 0
        for active in self.rules:
            self.change(active)

    # --- what goes in ---

    def change(self, active: ActiveRule) -> None:
        """The marker of a rule, to every partition."""
        plain = {
            "rule_id": active.id, "rule_version": active.order, "deleted": False, "data": '{"version": 1}',
            "content": orjson.dumps(active.rule.document).decode(),
        }  # fmt: skip
        for partition in range(self.partitions):
            self._write(partition, "RuleChange", plain)

    def arrive(self, partition: int, plain: dict[str, Any]) -> None:
        """A record arrives in a source partition, behind all that have arrived."""
        self._arrived += 1
        self.records[partition].append((self._arrived, plain))

    # --- what happens ---

    def step(self) -> None:
        """Something happens."""
        kind = self.chance.random()
        if kind < 0.4:
            self.read(self.chance.choice(self.readers))
        elif kind < 0.8:
            self.correlate(self.chance.choice(self.owners))
        elif kind < 0.9:
            self.tell(self.chance.sample(self.readers, self.chance.randint(1, len(self.readers))))
        elif kind < 0.96:
            self.tell_levels(self.chance.sample(self.owners, self.chance.randint(1, len(self.owners))))
        elif kind < 0.98:
            self.save(self.chance.choice(self.owners))
        else:
            self.take_over(self.chance.randrange(self.partitions))

    def settle(self, *, idle: bool = False) -> None:
        """Everything is read and told until nothing more happens."""
        for _ in range(4 * (2 + len(self.rules))):
            for reader in self.readers:
                while self.read(reader):
                    pass
            self.tell(self.readers, idle=idle)
            for owner in self.owners:
                while self.correlate(owner):
                    pass
            self.tell_levels(self.owners)

    def read(self, reader: Reader) -> bool:
        """The match stage handles the next record of a source partition; whether there was one."""
        if reader.topic == COMPOSITES:
            log = self.composites[reader.partition]
            if reader.position == len(log):
                return False
            logged = log[reader.position]
            if logged.link is not None:
                plain = orjson.loads(logged.plain)
                rows = composite_rows(self.index, plain, Link.load(logged.link), retracted=plain["retracted"])
                for ordinal, (hit, view, extra) in enumerate(rows):
                    self._match(reader, hit, view, ordinal, extra)
        else:
            records = self.records[reader.partition]
            if reader.position == len(records):
                return False
            timestamp, plain = records[reader.position]
            view = RecordView(plain)
            for ordinal, hit in enumerate(self.index.hits(SYSTEM_EVENTS, view)):
                self._match(reader, hit, view, ordinal, {"at": timestamp})
            reader.time_us = max(reader.time_us, plain["time"])
        reader.position += 1
        return True

    def tell(self, readers: Sequence[Reader], *, idle: bool = False) -> None:
        """A watermark of some source partitions."""
        marks = [
            {"topic": of.topic, "partition": of.partition, "time": of.time_us, "offset": of.position,
             "idle": idle and of.topic != COMPOSITES}
            for of in readers
        ]  # fmt: skip
        content = {"partitions": {SYSTEM_EVENTS: len(self.records)}, "composites": self.partitions}
        self._write_all("Watermark", {"level": 0, "marks": marks, "data": orjson.dumps(content).decode()})

    def tell_levels(self, owners: Sequence[Owner]) -> None:
        """Watermarks of the levels of some owners."""
        levels: dict[int, list[dict[str, Any]]] = {}
        for owner in owners:
            for mark in owner.marks:
                plain = {"topic": COMPOSITES, "partition": mark.partition, "time": mark.clock_us, "offset": mark.offset, "idle": False}
                levels.setdefault(mark.level + 1, []).append(plain)
        for level, marks in sorted(levels.items()):
            self._write_all("Watermark", {"level": level, "marks": marks, "data": "{}"})

    def correlate(self, owner: Owner) -> bool:
        """An owner applies the next record of its partition; whether there was one."""
        partition = self.owners.index(owner)
        log = self.matches[partition]
        if owner.position == len(log):
            return False
        name, content = log[owner.position]
        for composite in owner.state.apply(name, orjson.loads(content), owner.position):
            if (composite.id, composite.revision) in owner.said:
                continue
            plain = {**composite_plain(composite), "retracted": composite.retracted}
            link = dict(owner.state.headers_of(composite)).get(CHAIN_HEADER)
            self.composites[partition].append(Logged(composite, link, orjson.dumps(plain)))
        owner.position += 1
        owner.marks = owner.state.marks(partition, len(self.composites[partition]))
        return True

    def save(self, owner: Owner) -> None:
        """A checkpoint."""
        engine = owner.state.engine
        groups = {group: orjson.dumps(engine.dump_group(*group)) for group in engine.groups()}
        owner.checkpoint = Checkpoint(orjson.dumps(owner.state.dump()), groups, owner.position)

    def take_over(self, partition: int) -> None:
        """The owner dies; another begins from its checkpoint, muted by what the log has. The match stages repeat some of their work."""
        former = self.owners[partition]
        owner = Owner(CorrelatePartition(), checkpoint=former.checkpoint)
        if former.checkpoint is not None:
            owner.state.load(orjson.loads(former.checkpoint.state))
            for group, state in former.checkpoint.groups.items():
                owner.state.engine.load_group(*group, orjson.loads(state))
            owner.position = former.checkpoint.position
        owner.said = {(logged.composite.id, logged.composite.revision) for logged in self.composites[partition]}
        self.owners[partition] = owner
        while owner.position < former.position:
            self.correlate(owner)
        owner.said = set()
        # Not the groups: an eager one settles when it is looked at, which after a load is at another time.
        assert owner.state.dump() == former.state.dump(), "a successor knows what its predecessor knew"
        reader = self.chance.choice(self.readers)
        reader.position = self.chance.randint(max(0, reader.position - 3), reader.position)

    def said(self) -> list[CompositeEvent]:
        """All composites, each partition in its order."""
        return [logged.composite for log in self.composites for logged in log]

    def _match(self, reader: Reader, hit: Hit, view: RecordView, ordinal: int, extra: dict[str, Any]) -> None:
        rows = RowsWriter()
        assert rows.add(hit, view, reader.position, ordinal, more=extra)
        key = aggregate_of(hit.active.id, hit.group_key)
        plain = {"topic": reader.topic, "partition": reader.partition, "data": rows.text()}
        self._write(partition_of(key, self.partitions), "MatchBatch", plain)

    def _write(self, partition: int, name: str, plain: dict[str, Any]) -> None:
        self.matches[partition].append((name, orjson.dumps(plain)))

    def _write_all(self, name: str, plain: dict[str, Any]) -> None:
        for partition in range(self.partitions):
            self._write(partition, name, plain)
