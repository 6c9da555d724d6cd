"""Which offset of a partition may be committed: only what lies before the first chunk that is not acknowledged. Pure.

Rules:

1. A *session* of a partition begins when the partition is assigned or its consumer seeks. Chunks of earlier sessions are
   strangers: their acknowledgements count for nothing (the chunk is fetched again, by us or by another worker).
2. Chunks are delivered in the order of their offsets, each beginning where the one before ended. Offsets that the broker does
   not have (compacted, control records) belong to the chunk behind them: it begins where the fetch began.
   A chunk that begins anywhere else means that records were lost on the way: `ChunkLost`.
3. Chunks are acknowledged in any order. What may be committed is the end of the longest acknowledged prefix.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from streams import limits
from streams.errors import Defect

#: Chunks of a topic of which the next fetch is not begun: one is handled, one waits.
_CHUNKS_MAX = 2

Partition = TypeVar("Partition", bound=Hashable)


class ChunkLost(Defect):
    """A fetched chunk never reached its Faust agent. Going on would commit past it."""


class Fetched(Protocol):
    """A record as the client's parser gives it: it does not know its topic and partition."""

    @property
    def offset(self) -> int:
        """Its offset."""

    @property
    def timestamp(self) -> int:
        """Its Kafka timestamp, milliseconds."""

    @property
    def key(self) -> bytes | None:
        """Its key."""

    @property
    def value(self) -> bytes | None:
        """Its value; None: a tombstone."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Its headers."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A record with its topic (name on the broker) and partition; the other fields as in `Fetched`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Records of one partition, fetched together; the value of a Faust event. Identity matters, not content."""

    topic: str  #: name on the broker
    partition: int
    start: int  #: first offset that it stands for
    end: int  #: offset after the last that it stands for
    records: tuple[Fetched, ...]  #: with offsets in [start, end)
    session: int
    size: int = 0  #: bytes of the values

    def placed(self, record: Fetched) -> Placed:
        """One of the records, as others want to have it."""
        return Placed(self.topic, self.partition, record.offset, record.timestamp, record.key, record.value, record.headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is handed out and not yet acknowledged."""

    records: int
    size: int  #: bytes of their values
    chunks: int  #: of the topic that has most

    @property
    def full(self) -> bool:
        """Whether nothing more is to be handed out. While a chunk waits behind another the next ones grow instead of getting more."""
        return (
            self.chunks >= _CHUNKS_MAX
            or self.records >= limits.CHUNK_RECORDS_MAX * limits.CHUNK_BACKLOG_MAX
            or self.size >= limits.CHUNK_BACKLOG_BYTES_MAX
        )


@dataclass(slots=True)
class _Delivered:
    session: int
    end: int | None = None  #: where the next chunk must begin; None: the first decides
    cut: int | None = None  #: end of the last chunk that is made, delivered or not
    outstanding: OrderedDict[Chunk, float] = field(default_factory=OrderedDict)  #: chunk → when it was delivered
    done: set[Chunk] = field(default_factory=set)  #: acknowledged, but behind one that is not
    committable: int | None = None


class CommitPrefix(Generic[Partition]):
    """The bookkeeping for all partitions of a consumer."""

    def __init__(self) -> None:
        self._partitions: dict[Partition, _Delivered] = {}
        self._sessions = 0

    def begin(self, partition: Partition) -> None:
        """A new session: the partition was assigned, or its consumer went to another offset."""
        self._sessions += 1
        self._partitions[partition] = _Delivered(session=self._sessions)

    def forget(self, partition: Partition) -> None:
        """The partition is no longer ours."""
        self._partitions.pop(partition, None)

    def session(self, partition: Partition) -> int | None:
        """The partition's session; None: it is not ours."""
        state = self._partitions.get(partition)
        return None if state is None else state.session

    def cut(self, partition: Partition, end: int) -> None:
        """Chunks up to `end` are made; they are under way, also while they wait to be delivered."""
        self._partitions[partition].cut = end

    def deliver(self, partition: Partition, chunk: Chunk, now: float) -> bool:
        """The chunk is handed out; False if it belongs to an earlier session and must not be. Raises `ChunkLost`."""
        state = self._partitions.get(partition)
        if state is None or state.session != chunk.session:
            return False
        if state.end is not None and chunk.start != state.end:
            raise ChunkLost(
                "chunk.lost", f"{chunk.topic}/{chunk.partition}: a chunk begins at {chunk.start}, but the last one ended at {state.end}."
            )
        state.end = chunk.end
        state.cut = chunk.end if state.cut is None else max(state.cut, chunk.end)
        state.outstanding[chunk] = now
        return True

    def acknowledge(self, partition: Partition, chunk: Chunk) -> bool:
        """The chunk's output is acknowledged. False: it is a stranger (an earlier session) and counts for nothing."""
        state = self._partitions.get(partition)
        if state is None or chunk not in state.outstanding:
            return False
        state.done.add(chunk)
        while state.outstanding and (first := next(iter(state.outstanding))) in state.done:
            state.done.discard(first)
            del state.outstanding[first]
            state.committable = first.end
        return True

    def committable(self, partition: Partition) -> int | None:
        """The offset that may be committed; None: nothing was acknowledged in this session."""
        state = self._partitions.get(partition)
        return None if state is None else state.committable

    def waits(self, partition: Partition) -> bool:
        """Whether a chunk of the partition is made and not acknowledged."""
        state = self._partitions.get(partition)
        return state is not None and (bool(state.outstanding) or state.cut != state.end)

    def handled(self, partition: Partition) -> int | None:
        """The offset before which everything delivered in this session was acknowledged; None: nothing was delivered."""
        state = self._partitions.get(partition)
        if state is None:
            return None
        return next(iter(state.outstanding)).start if state.outstanding else state.end

    def load(self) -> Load:
        """What is handed out and not yet acknowledged."""
        chunks = [chunk for state in self._partitions.values() for chunk in state.outstanding]
        by_topic = Counter(chunk.topic for chunk in chunks)
        return Load(
            records=sum(len(chunk.records) for chunk in chunks), size=sum(chunk.size for chunk in chunks),
            chunks=max(by_topic.values(), default=0),
        )  # fmt: skip

    def partitions(self) -> list[Partition]:
        """The partitions that are ours."""
        return list(self._partitions)

    def oldest(self) -> float | None:
        """When the chunk that has waited longest for its acknowledgement was delivered; None: none waits."""
        waiting = [next(iter(state.outstanding.values())) for state in self._partitions.values() if state.outstanding]
        return min(waiting, default=None)
