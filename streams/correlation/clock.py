"""The clock of a correlate partition: how far event time has come over all source partitions, of all workers. Pure.

It is fed the marks that match stages write (`Watermark`), with the Kafka timestamps of those records as the only wall clock, so
that a replay decides the same. Rules: `docs/concepts/rules.md`, Time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from streams.records import Json, to_micros

#: `PartitionMark.time` of a partition in which no record was used yet.
UNKNOWN_US = to_micros(datetime.min.replace(tzinfo=UTC))
#: A partition whose last mark is older than this has no owner, so it is not idle: more than twice the slowest rhythm of marks. For so long
#: after its owner died event time may run ahead of what has come into it since.
STALE_US = 2_500_000

Source = tuple[str, int]  #: (logical topic, partition)


@dataclass(slots=True)
class _Clock:
    """One source partition."""

    time_us: int | None = None  #: greatest event time used, grown while idle; None: none yet
    offset: int = -1
    marked_us: int = 0  #: Kafka timestamp of the last mark
    idle_since_us: int | None = None  #: Kafka timestamp of the first mark of an idle stretch

    def update(self, time_us: int | None, offset: int, idle: bool, marked_us: int) -> None:
        if time_us is not None:
            self.time_us = time_us if self.time_us is None else max(self.time_us, time_us)
        if not idle:
            self.idle_since_us = None
        elif self.idle_since_us is None or marked_us - self.marked_us > STALE_US:
            # Also when nobody has said so for a while: then it had no owner, and what came meanwhile is read now.
            self.idle_since_us = marked_us
        elif self.time_us is not None:
            # Idle: event time is taken to go on at the rate of the wall clock, from where it stood.
            self.time_us += max(0, marked_us - self.marked_us)
        self.offset = max(self.offset, offset)
        self.marked_us = max(self.marked_us, marked_us)


class Clocks:
    """All source partitions that the latest watermark names as existing."""

    def __init__(self) -> None:
        self._partitions: dict[str, int] = {}  # logical topic → number of its partitions
        self._sources: dict[Source, _Clock] = {}

    def update(self, partitions: Mapping[str, int], marks: Iterable[Mapping[str, Any]], now_us: int) -> int | None:
        """A worker's watermark, written at `now_us`; the clock it leads to, None while some partition was never heard of.

        A mark that is behind what is known of its partition comes from a former owner and is ignored.
        """
        self._partitions = dict(partitions)
        for mark in marks:
            source = (mark["topic"], mark["partition"])
            clock = self._sources.setdefault(source, _Clock())
            if mark["offset"] >= clock.offset:
                clock.update(None if mark["time"] == UNKNOWN_US else mark["time"], mark["offset"], mark["idle"], now_us)
        return self.clock(now_us)

    def clock(self, now_us: int) -> int | None:
        """The least time of the partitions that are not idle, or the greatest if all are."""
        known: list[int] = []
        busy: list[int] = []
        for topic, count in self._partitions.items():
            for partition in range(count):
                clock = self._sources.get((topic, partition))
                if clock is None:
                    return None
                idle = clock.idle_since_us is not None and now_us - clock.marked_us <= STALE_US
                if clock.time_us is None and not idle:
                    return None
                if clock.time_us is not None:
                    known.append(clock.time_us)
                    if not idle:
                        busy.append(clock.time_us)
        return min(busy) if busy else max(known, default=None)

    def dump(self) -> Json:
        """As JSON, for checkpoints."""
        sources = [
            [topic, partition, clock.time_us, clock.offset, clock.marked_us, clock.idle_since_us]
            for (topic, partition), clock in self._sources.items()
        ]
        return {"partitions": self._partitions, "sources": sources}

    def load(self, state: Json) -> None:
        """Takes over what `dump` gave."""
        self._partitions = state["partitions"]
        self._sources = {(topic, partition): _Clock(*values) for topic, partition, *values in state["sources"]}
