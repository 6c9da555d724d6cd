"""What lies in the topics, and which table each offset must become a row of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from services.history.container import body_id
from services.history.incarnations import name_aside
from services.history.ports import Incarnation, Place
from services.history.tables import DEAD_LETTERS, LOG_RECORDS
from streams.codec.avro import Codec, SchemaIds, headers_of
from streams.log.ports import Outgoing, Stored
from streams.log.rule import ReadersRule, Verdict
from streams.records import CompositeEvent, Fence, Record, SystemEvent, derived_id, from_micros
from streams.testing.simulation.broker import SimulatedBroker
from streams.topics import COMPOSITES, SYSTEM_EVENTS

DEAD = SYSTEM_EVENTS + ".dlq"
CODEC = Codec(SchemaIds.local())


class Traffic:
    """Producers: of events (some come twice, some are garbage), of a log with owners and zombies, of dead letters."""

    def __init__(self, broker: SimulatedBroker, rate_us: int) -> None:
        """`rate_us`: a batch comes about that often."""
        self._broker, self._scheduler, self._rate_us = broker, broker.scheduler, rate_us
        self._made = 0  #: how often a topic was made again
        self.ids: dict[str, str] = {}  #: identities of topics that were made again
        self.cluster: dict[str, int] = {SYSTEM_EVENTS: 2, COMPOSITES: 2}
        self.all: dict[Place, list[Stored]] = defaultdict(list)  #: everything that was ever stored
        self.good: set[bytes] = set()  #: bodies that are what they say
        self._events: list[Outgoing] = []
        self._epochs = [0, 0]
        self._count = 0
        self.on = True

    def begin(self) -> None:
        """Goes on until `on` is taken away."""
        random = self._scheduler.random.random

        def batch() -> None:
            if not self.on:
                return
            makers: tuple[Callable[[], tuple[str, int, list[Outgoing]]], ...] = (
                self._more_events,
                self._more_of_the_log,
                self._more_letters,
            )
            topic, partition, records = makers[min(2, int(random() * 2.3))]()
            if topic in self.cluster:
                self.store(topic, partition, records)
            self._scheduler.at(int(random() * 2 * self._rate_us), batch)

        self._scheduler.at(0, batch)
        self._scheduler.at(int(random() * 30_000_000), lambda: self.cluster.update({DEAD: 1}))

    def topic_id(self, topic: str) -> str:
        """Which topic there is under a name now."""
        return self.ids.get(topic, f"id of {topic}")

    def remake(self, topic: str) -> None:
        """The topic is deleted and made again: it begins at offset 0. What was in the earlier one is known by the name of its rows."""
        for number in range(self.cluster[topic]):
            self._broker.partitions.pop((topic, number), None)
            aside = name_aside(topic, Incarnation(topic_id=self.topic_id(topic), number=0))
            self.all[aside, number] = self.all.pop((topic, number), [])
        self._made += 1
        self.ids[topic] = f"made-{self._made:03d} again"

    def store(self, topic: str, partition: int, records: list[Outgoing]) -> None:
        """Stores a batch."""
        first = self._broker.store(topic, partition, records)
        self.all[topic, partition] += self._broker.partition(topic, partition).between(first, first + len(records), len(records))

    def _more_events(self) -> tuple[str, int, list[Outgoing]]:
        random = self._scheduler.random.random
        records = []
        for _ in range(1 + int(random() * 5)):
            kind = random()
            if kind < 0.1 and self._events:
                records.append(self._events[-1 - int(random() * min(20, len(self._events)))])
            elif kind < 0.13:
                records.append(self._outgoing(self._event(), garbage=True))
            elif kind < 0.15:
                records.append(Outgoing(key=b"k", value=None, headers=[], timestamp_ms=0))  # type: ignore[arg-type]
            else:
                records.append(self._outgoing(self._event()))
                self._events.append(records[-1])
        return SYSTEM_EVENTS, int(random() * 2), records

    def _event(self) -> Record:
        self._count += 1
        return SystemEvent(type="e", id=derived_id("event", self._count), time=from_micros(self._scheduler.now_us))

    def _more_of_the_log(self) -> tuple[str, int, list[Outgoing]]:
        random = self._scheduler.random.random
        partition = int(random() * 2)
        at = from_micros(self._scheduler.now_us)
        kind = random()
        if kind < 0.15 or not self._epochs[partition]:
            lost = random() < 0.2 and self._epochs[partition] > 0  # a claim that comes second
            epoch = self._epochs[partition] + (0 if lost else 1)
            self._epochs[partition] = epoch
            self._count += 1
            fence = Fence(
                id=derived_id("fence", self._count), type="log.fenced", time=at, log=COMPOSITES, partition=partition, epoch=epoch, owner="o"
            )
            return COMPOSITES, partition, [self._outgoing(fence)]
        epoch = self._epochs[partition] - (1 if kind < 0.3 and self._epochs[partition] > 1 else 0)  # a zombie's
        records = []
        for _ in range(1 + int(random() * 3)):
            self._count += 1
            composite = CompositeEvent(
                type="c", id=derived_id("composite", self._count), time=at, rule_id="r", rule_version=1, correlation_type="event_count",
                window_start=at, window_end=at, event_count=1, epoch=epoch, sequence=1, aggregate_id="r/g",
            )  # fmt: skip
            records.append(self._outgoing(composite))
        return COMPOSITES, partition, records

    def _more_letters(self) -> tuple[str, int, list[Outgoing]]:
        self._count += 1
        return DEAD, 0, [Outgoing(key=b"k", value=b"bytes", headers=[("ce_id", b"%d" % self._count)], timestamp_ms=0)]

    def _outgoing(self, record: Record, *, garbage: bool = False) -> Outgoing:
        value = CODEC.encode(record)
        if garbage:
            value = value[:-4]
        else:
            self.good.add(value[5:])
        return Outgoing(key=b"k", value=value, headers=headers_of(record), timestamp_ms=0)

    def expected(self) -> dict[tuple[Place, int], str]:
        """Table of every offset that was ever stored, by one walk over each partition."""
        tables: dict[tuple[Place, int], str] = {}
        known = {SYSTEM_EVENTS: "system_events", COMPOSITES: "composite_events", DEAD: DEAD_LETTERS}
        for place, records in self.all.items():
            topic = place[0].partition("@")[0]
            if topic not in known:
                continue
            rule, seen = ReadersRule(), set()
            for stored in records:
                table = known[topic]
                if topic == COMPOSITES and rule.judge_headers(stored.headers) is not Verdict.VALID:
                    table = LOG_RECORDS
                elif topic != DEAD:
                    number = body_id(stored.value) if stored.value is not None and stored.value[5:] in self.good else b""
                    table = LOG_RECORDS if not number or number in seen else table
                    seen.add(number)
                tables[place, stored.offset] = table
        return tables
