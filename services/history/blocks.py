"""Blocks: which offsets are one insert, decided in the log before the insert. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from streams.records import Block, Inserted, Record, derived_id
from streams.topics import partition_of

#: Offsets of one block: large enough for ClickHouse, small enough to hold in memory several times.
BLOCK_OFFSETS_MAX = 50_000
#: Bytes of one block: about what one insert may weigh.
BLOCK_BYTES_MAX = 16 * 1024 * 1024
#: How long one insert may take, seconds: then ClickHouse gives it up.
INSERT_SECONDS_MAX = 120

BLOCK_DECIDED = "block.decided"
BLOCK_INSERTED = "block.inserted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The offsets [first, end) of a partition of a topic (name on the broker), and the log's epoch before and after them."""

    topic: str
    partition: int
    first: int
    end: int
    epoch_before: int = 0
    epoch_after: int = 0
    known: int = 0  #: rows below this offset may be in the tables although the log says nothing of them
    topic_id: str = ""  #: identity of the topic; empty: not known
    salt: str = ""  #: of a topic that was made anew under its name: tells its blocks from those of the one before

    @property
    def offsets(self) -> int:
        """How many offsets it has."""
        return self.end - self.first


def token(span: Span, table: str, month: int, again: int = 0) -> str:
    """What ClickHouse recognises the insert by. `again`: how many tokens of it were seen to be remembered without their rows."""
    found = f"{span.topic}/{span.partition}/{span.first}/{span.end}/{table}/{month}" + (f"/{span.salt}" if span.salt else "")
    return f"{found}/again-{again}" if again else found


def unit_of(topic: str, partition: int, units: int) -> int:
    """The partition of the log of blocks where a partition's blocks are decided: those of one topic are spread evenly."""
    return (partition_of(topic, units) + partition) % units


def block_record(span: Span, *, history: str, epoch: int, time: datetime, source: str) -> Block:
    """The decision as it is appended. `history`: identity of the tables that it is for."""
    data: dict[str, Any] = {"epoch_after": span.epoch_after, "known": span.known, "history": history, "topic_id": span.topic_id}
    if span.salt:
        data["salt"] = span.salt
    return Block(
        id=derived_id("block", span.topic, span.partition, span.first, span.end, epoch), type=BLOCK_DECIDED, source=source,
        subject=span.topic, time=time, data=data, topic=span.topic, partition=span.partition, first_offset=span.first,
        end_offset=span.end, epoch=epoch, reader_epoch=span.epoch_before,
    )  # fmt: skip


def inserted_record(span: Span, *, history: str, rows: int, epoch: int, time: datetime, source: str) -> Inserted:
    """The note that a block is in ClickHouse."""
    data = {"history": history, "topic_id": span.topic_id}
    return Inserted(
        id=derived_id("inserted", span.topic, span.partition, span.first, span.end, epoch), type=BLOCK_INSERTED, source=source,
        subject=span.topic, time=time, data=data, topic=span.topic, partition=span.partition, first_offset=span.first,
        end_offset=span.end, epoch=epoch, rows=rows,
    )  # fmt: skip


@dataclass(slots=True)
class Progress:
    """What the log of blocks says of one partition."""

    end: int = 0  #: offset after the last block
    epoch: int = 0  #: epoch of the partition's log there
    known: int = 0  #: see `Span`
    topic_id: str = ""  #: of the topic that the last block is of
    pending: deque[Span] = field(default_factory=deque)  #: decided, not known as inserted; in order


def same_topic(one: str, other: str) -> bool:
    """Whether two identities are of the same topic, as far as they are known."""
    return not one or not other or one == other


def is_of(record: Record, history: str) -> bool:
    """Whether a record of the log of blocks is about these tables. The log outlives them: a database that is made anew begins anew."""
    return isinstance(record.data, dict) and record.data.get("history") == history


def fold(progress: dict[tuple[str, int], Progress], record: Record, history: str) -> None:
    """Takes over one valid record of the log of blocks."""
    match record:
        case Block() if is_of(record, history):
            seen = progress.setdefault((record.topic, record.partition), Progress())
            assert isinstance(record.data, dict)
            epoch_after = int(record.data.get("epoch_after", 0))
            span = Span(
                topic=record.topic, partition=record.partition, first=record.first_offset, end=record.end_offset,
                epoch_before=record.reader_epoch or 0, epoch_after=epoch_after, topic_id=str(record.data.get("topic_id", "")),
                salt=str(record.data.get("salt", "")),
            )  # fmt: skip
            if span.first == 0 or not same_topic(span.topic_id, seen.topic_id):
                # The topic was made anew under its old name: what was decided before is about another one.
                seen.end, seen.pending = 0, deque()
            if span.end > seen.end:
                seen.end, seen.epoch, seen.known, seen.topic_id = span.end, epoch_after, int(record.data.get("known", 0)), span.topic_id
                seen.pending.append(span)
        case Inserted() if is_of(record, history):
            done = progress.get((record.topic, record.partition))
            if done is not None:
                done.pending = deque(span for span in done.pending if (span.first, span.end) != (record.first_offset, record.end_offset))
        case _:
            return


def behind(ends: Iterable[tuple[tuple[str, int], int]], inserted: dict[tuple[str, int], int]) -> int:
    """How many offsets before `ends` are not inserted yet."""
    return sum(max(0, end - inserted.get(place, 0)) for place, end in ends)
