"""A broker in memory with the semantics that the kernel relies on, and a network that delays, loses and repeats.

What holds always, as on Kafka with `acks=all` and idempotent producers: a batch is stored whole or not at all; offsets have no
gaps; a partition has one order; requests of one connection are handled in order; a record can be read once it is replicated,
and is acknowledged only then. Everything else is weather: how long things take, whether an answer arrives, whether a batch
whose answer was an error was stored nevertheless, or is stored later, or twice (a broker that forgot its producers).
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, TypeVar

from aiokafka.errors import KafkaError

from streams.errors import Unavailable
from streams.log.ports import Outgoing, Stored
from streams.testing.simulation.loop import Life, ProcessLoop, Scheduler

Answer = TypeVar("Answer")
_offset = attrgetter("offset")


class BrokerError(KafkaError):  # type: ignore[misc]  # aiokafka is untyped
    """An error code of the broker: no `OSError`, as with the real client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What may go wrong, as chances per request; times in microseconds."""

    latency_us: int = 1_000  #: of one way, at most
    slow: float = 0.0  #: chance that a way takes up to `slow_us`
    slow_us: int = 500_000
    error: float = 0.0  #: reading, opening and asking for offsets fails
    lost: float = 0.0  #: an append fails and is not stored
    unknown: float = 0.0  #: an append fails, yet it is stored
    late: float = 0.0  #: an append fails and is stored later
    repeat: float = 0.0  #: an append is acknowledged as a repeat, without its offset
    stuck: float = 0.0  #: an append is never answered; stored or not
    doubled: float = 0.0  #: an append is stored twice, the second time at once or later
    snapshots_us: int = 0  #: at most so long a write of snapshots takes longer than others
    lag_us: int = 0  #: at most so long a stored record is not replicated

    def calm(self) -> Weather:
        """The same delays, and nothing fails."""
        return Weather(latency_us=self.latency_us, lag_us=self.lag_us)


@dataclass(slots=True)
class Partition:
    """Records of one partition; offsets below `first` are gone."""

    records: list[Stored] = field(default_factory=list)
    first: int = 0
    end: int = 0
    visible: int = 0  #: the high watermark: what readers get
    waiting: list[Callable[[], None]] = field(default_factory=list)

    def between(self, start: int, end: int, count: int) -> list[Stored]:
        """At most `count` records of [start, end)."""
        at = bisect_left(self.records, start, key=_offset)
        found = self.records[at : at + count]
        while found and found[-1].offset >= end:
            found.pop()
        return found


class SimulatedBroker:
    """Partitions by (topic, partition), and the way to them."""

    def __init__(self, scheduler: Scheduler, weather: Weather, *, append_time: Sequence[str] = ()) -> None:
        self.scheduler = scheduler
        self.weather = weather
        self.partitions: dict[tuple[str, int], Partition] = {}
        self._append_time = frozenset(append_time)  #: topics whose records get the broker's time
        self._last_ms: dict[tuple[str, int], int] = {}
        self.on_stored: Callable[[str, int], None] | None = None
        self.trace: Callable[[str, str], None] | None = None

    def partition(self, topic: str, number: int) -> Partition:
        """The partition, made when it is first asked for."""
        found = self.partitions.get((topic, number))
        if found is None:
            found = self.partitions[topic, number] = Partition()
        return found

    def store(self, topic: str, number: int, batch: Sequence[Outgoing], acknowledged: Callable[[int], None] | None = None) -> int:
        """Stores a batch whole; returns the offset of its first record. `acknowledged` is called once it can be read."""
        partition = self.partition(topic, number)
        first = partition.end
        now_ms = self.scheduler.now_us // 1000
        by_broker = topic in self._append_time
        for index, record in enumerate(batch):
            partition.records.append(
                Stored(
                    topic=topic, partition=number, offset=first + index, timestamp_ms=now_ms if by_broker else record.timestamp_ms,
                    key=record.key, value=record.value, headers=record.headers,
                )
            )  # fmt: skip
        end = partition.end = first + len(batch)
        if self.trace is not None:
            self.trace("broker", f"stored {topic}/{number}@{first}: " + ", ".join(_type_of(record) for record in batch))

        def replicated() -> None:
            partition.visible = max(partition.visible, end)
            waiting, partition.waiting = partition.waiting, []
            for each in waiting:
                each()
            if acknowledged is not None:
                acknowledged(first)

        lag = self.weather.lag_us
        if lag and self.scheduler.random.random() < 0.3:
            self.scheduler.at(self.scheduler.random.randrange(lag), replicated)
        else:
            replicated()
        if self.on_stored is not None:
            self.on_stored(topic, number)
        return first

    def dated(self, topic: str, number: int, offset: int) -> int | None:
        """The time that the broker gave to the record at an offset, milliseconds; None: it keeps its producer's."""
        if topic not in self._append_time:
            return None
        return next(each.timestamp_ms for each in self.partition(topic, number).between(offset, offset + 1, 1))

    def delay(self) -> int:
        """How long one way takes."""
        weather, random = self.weather, self.scheduler.random.random
        if weather.slow and random() < weather.slow:
            return int(random() * weather.slow_us)
        return int(random() * weather.latency_us)

    async def ask(self, loop: ProcessLoop, what: Callable[[], Answer], *, wrapped: bool = False) -> Answer:
        """A request that changes nothing: it is answered with `what()` as it was when the broker got it, or fails.

        `wrapped`: errors of the broker come as the adapter of snapshots gives them.
        """
        if self.scheduler.over:
            raise asyncio.CancelledError
        future: asyncio.Future[Answer] = loop.create_future()
        chance = self.scheduler.random.random
        error: Exception = ConnectionError("connection lost")
        if chance() < 0.2:
            error = Unavailable("kafka.unreachable", "not the leader") if wrapped else BrokerError("not the leader")
        failed = self.weather.error > 0 and chance() < self.weather.error

        def arrived() -> None:
            answer = None if failed else what()
            self.scheduler.at(self.delay(), lambda: self.resolve(loop, future, error if failed else answer))

        self.scheduler.at(self.delay(), arrived)
        return await future

    async def replication(self, loop: ProcessLoop, partition: Partition, offset: int) -> None:
        """Returns when the record at `offset` can be read."""
        if partition.visible > offset:
            return
        future: asyncio.Future[None] = loop.create_future()
        partition.waiting.append(lambda: self.resolve(loop, future, None))
        await future

    def resolve(self, loop: ProcessLoop, future: asyncio.Future[Any], answer: Any) -> None:
        """An answer reaches a process: it lies in its socket until it runs."""
        if loop.life is Life.DEAD or future.done() or self.scheduler.over:
            return
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def compact(self, topic: str, number: int) -> None:
        """Keeps the last record of each key, but for the newest record, as a cleaner does that never touches the active segment."""
        partition = self.partition(topic, number)
        if len(partition.records) < 2:
            return
        last = {record.key: record.offset for record in partition.records}
        newest = partition.records[-1].offset
        partition.records = [
            record
            for record in partition.records
            if record.offset == newest or (last[record.key] == record.offset and record.value is not None)
        ]

    def retain(self, topic: str, number: int, first: int) -> None:
        """Retention takes the records below `first`."""
        partition = self.partition(topic, number)
        partition.first = max(partition.first, min(first, partition.visible))
        partition.records = [record for record in partition.records if record.offset >= partition.first]


def _type_of(record: Outgoing) -> str:
    headers = dict(record.headers)
    return headers.get("ce_type", b"?").decode() + (f"#{headers['mplp_epoch'].decode()}" if "mplp_epoch" in headers else "")


def stormy(random: Callable[[], float]) -> Weather:
    """Weather of one run: a random choice of troubles, each with a rate of its own."""

    def rate(most: float, share: float = 0.5) -> float:
        return most * random() ** 2 if random() < share else 0.0

    weather = Weather(
        latency_us=1 + int(20_000 * random() ** 3),
        slow=rate(0.2), slow_us=int(10 ** (4 + 3 * random())), error=rate(0.05, 0.3),
        lost=rate(0.2, 0.4), unknown=rate(0.2), late=rate(0.2), repeat=rate(0.1, 0.3), stuck=rate(0.05, 0.2), doubled=rate(0.15, 0.3),
        lag_us=int(50_000 * random()) if random() < 0.3 else 0,
        snapshots_us=int(10 ** (4 + 3 * random())) if random() < 0.4 else 0,
    )  # fmt: skip
    return weather if random() < 0.9 else replace(weather.calm(), latency_us=1)
