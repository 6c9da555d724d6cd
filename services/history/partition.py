"""One partition of a sunk topic as the sink sees it: what was read and waits for its block. Pure but for the time it is given."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.history.blocks import BLOCK_BYTES_MAX, BLOCK_OFFSETS_MAX, Span
from services.history.rows import Raw, SeenIds, Source
from services.history.waiting import Waiting

#: What may wait of one partition, in blocks; it is not read on above it, and the others are.
WAITING_BLOCKS_MAX = 3


@dataclass(slots=True, kw_only=True)
class Partition:
    """Buffer and positions of one partition (topic by its name on the broker)."""

    topic: str
    partition: int
    source: Source
    decided: int  #: offset after the last decided block
    epoch: int = 0  #: epoch of the log there
    known: int = 0  #: see `Span`
    topic_id: str = ""  #: see `Span`
    salt: str = ""  #: see `Span`
    pending: deque[Span] = field(default_factory=deque)  #: decided by an earlier sink, perhaps not inserted
    read: int = 0  #: offset after the last that was read, gaps included
    records: Waiting = field(default_factory=Waiting)
    oldest_s: float = 0.0  #: when the first of the waiting offsets was read (monotonic)
    seen: SeenIds | None = None
    busy: bool = False  #: a block of it is being inserted
    under_way: int = 0  #: bytes of the block that was cut last
    after_gap: bool = False  #: the last block ended with offsets that hold no record

    @property
    def start(self) -> int:
        """First offset that has not been taken into a block of ours."""
        return self.pending[0].first if self.pending else self.decided

    @property
    def waiting(self) -> int:
        """Offsets that were read and wait."""
        return max(0, self.read - self.start)

    @property
    def full(self) -> bool:
        """Whether it should not be read on."""
        return self.bytes >= WAITING_BLOCKS_MAX * BLOCK_BYTES_MAX or self.records.count >= WAITING_BLOCKS_MAX * BLOCK_OFFSETS_MAX

    @property
    def bytes(self) -> int:
        """Memory of the records that wait."""
        return self.records.bytes

    def take(self, records: Sequence[Raw], position: int, now_s: float) -> None:
        """Takes what the consumer gave; `position` is the offset that it will read next."""
        if not self.waiting:
            self.oldest_s = now_s
        if records and records[0].offset < self.read:
            records = [record for record in records if record.offset >= self.read]
        self.records.add(records)
        self.read = max(self.read, position, records[-1].offset + 1 if records else 0)

    def due(self, now_s: float, *, age_s: float, hurry: bool, enough_bytes: int = BLOCK_BYTES_MAX) -> bool:
        """Whether there is a block to insert now. `enough_bytes`: are a block."""
        if self.pending:
            return self.read >= self.pending[0].end
        waiting = self.waiting
        large = waiting >= BLOCK_OFFSETS_MAX or self.bytes >= min(enough_bytes, BLOCK_BYTES_MAX)
        return waiting > 0 and (hurry or large or now_s - self.oldest_s >= age_s)

    def cut(self, now_s: float) -> tuple[Span, list[Raw], bool]:
        """The next block, its records, and whether it was decided before (then its boundaries are those)."""
        if self.pending:
            span = self.pending.popleft()
            return span, self._taken(span.first, span.end, None)[0], True
        first = self.decided
        records, end = self._taken(first, min(self.read, first + BLOCK_OFFSETS_MAX), BLOCK_BYTES_MAX)
        self.decided = end
        self.oldest_s = now_s
        span = Span(
            topic=self.topic, partition=self.partition, first=first, end=end, epoch_before=self.epoch, known=self.known,
            topic_id=self.topic_id, salt=self.salt,
        )  # fmt: skip
        return span, records, False

    def _taken(self, first: int, end: int, bytes_max: int | None) -> tuple[list[Raw], int]:
        """Takes the records of [first, end) out, and drops earlier ones; with `bytes_max` perhaps fewer: then also where they end.

        In a log a block of ours ends where offsets are missing: the epoch after them has to be asked for.
        """
        before = self.records.bytes
        until_gap = bytes_max is not None and self.source.is_log
        taken, stopped = self.records.take(first, end, bytes_max, until_gap=until_gap)
        self.under_way = before - self.records.bytes
        return taken, end if stopped is None else stopped
