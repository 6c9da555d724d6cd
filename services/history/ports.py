"""What the sink needs of the world, as interfaces: topics to read, tables to fill, a group to share the work in. Pure.

Kafka and ClickHouse are one set of adapters (`kafka_feed`, `membership`, `store`), the simulation another.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from services.history.blocks import Span
from services.history.container import Row
from services.history.rows import Raw, Rows, build_rows
from streams.codec.avro import Codec
from streams.log.fenced import FencedLog
from streams.topics import TopicNames

#: A partition: topic by its name on the broker, number.
Place: TypeAlias = tuple[str, int]


class BlockRefused(Exception):
    """ClickHouse could not read a container: a body in it is not what it says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a fetch brought of one partition."""

    place: Place
    records: Sequence[Raw]
    position: int  #: offset that is read next; 0: not asked
    end: int = 0  #: end of the partition as last seen; 0: not asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the tables have of a partition."""

    first: int  #: lowest offset
    last: int  #: highest offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Incarnation:
    """Which topic the rows of a partition are of: a topic that is deleted and made again under its name is another one."""

    topic_id: str
    number: int  #: 0: the first that the history knows

    @property
    def salt(self) -> str:
        """See `Span`."""
        return self.topic_id[:8] if self.number else ""


class Feed(Protocol):
    """Reads partitions without a group. All methods raise `KafkaError`, `OSError` or `Unavailable` when the broker is away."""

    async def topics(self) -> Mapping[str, int]:
        """All topics on the broker with their partition counts."""

    async def topic_ids(self, topics: Collection[str]) -> Mapping[str, str]:
        """Identities of those of the topics that there are; empty if the broker has none."""

    async def starts(self, places: Iterable[Place]) -> Mapping[Place, int]:
        """First offsets."""

    async def ends(self, places: Iterable[Place]) -> Mapping[Place, int]:
        """End offsets."""

    async def epoch_at(self, topic: str, partition: int, offset: int) -> int:
        """The epoch in force before an offset of a log partition (logical name)."""

    def assign(self, positions: Mapping[Place, int]) -> None:
        """Reads these partitions from now on, each from its position."""

    def pause(self, places: Collection[Place]) -> None:
        """Reads all but these."""

    async def fetch(self) -> Sequence[Fetched]:
        """What has arrived, from the position of each partition on; comes back after a while with nothing, too.

        Who calls it takes all of it before it awaits anything: by then `assign` may have moved the positions.
        """

    async def close(self) -> None:
        """Ends reading."""


class Tables(Protocol):
    """The tables. All methods raise `Unavailable` when ClickHouse is away; repeating them later is right."""

    async def identity(self) -> str:
        """Which history it is: stays the same as long as the database does."""

    async def insert(self, span: Span, table: str, rows: Sequence[Row], *, within_s: float, again: int = 0) -> None:
        """Inserts a block's rows of one table; repeats change nothing. It does not begin later than `within_s` from now.

        `again`: how often it was seen that what succeeded was a repeat of an insert that had brought nothing; then it is another one.
        Raises `BlockRefused` if ClickHouse cannot read a body.
        """

    async def offsets_of(self, span: Span) -> Collection[int]:
        """The offsets of a block that are rows of any table."""

    async def kept(self, topics: Collection[str]) -> Mapping[Place, Kept]:
        """What there is of the partitions of these topics (names on the broker)."""

    async def recent_ids(self, topic: str, partition: int, before: int) -> Sequence[tuple[int, bytes]]:
        """Offset and id of the rows in the repeat window before an offset, ascending."""

    async def incarnations(self, places: Collection[Place]) -> Mapping[Place, Incarnation]:
        """Which topics the rows of partitions are of, as far as it was noted."""

    async def note_incarnations(self, incarnations: Mapping[Place, Incarnation]) -> None:
        """Notes which topics the rows of partitions are of from now on."""

    async def set_aside(self, place: Place, incarnation: Incarnation) -> str:
        """Gives the rows of a partition, which are of a topic that is no more, to another name, and returns that. May be repeated."""


class Membership(Protocol):
    """Which partitions of the log of blocks are ours: with them come the partitions of topics whose blocks are decided there."""

    units: frozenset[int] | None  #: None: it is not known yet

    async def run(self, changed: Callable[[], None]) -> None:
        """Takes part until cancelled, and calls `changed` whenever `units` is another. Raises what makes going on impossible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """All of it, for one sink."""

    names: TopicNames
    codec: Codec
    owner: str  #: who it is, in fences and records
    tables: Tables
    open_feed: Callable[[], Awaitable[Feed]]
    open_log: Callable[[int], FencedLog]  #: a hold on a partition of the log of blocks
    membership: Callable[[int], Membership]  #: given the number of partitions of the log of blocks
    in_thread: Callable[..., Awaitable[Any]]  #: runs a function that takes long
    alone: bool  #: no other process can fill the tables
    build: Callable[..., Rows] = build_rows  #: makes rows of records; in place of it one that leaves out what was erased
