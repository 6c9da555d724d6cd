"""One partition of the log of blocks as its owner has it: the hold on it, what it said, and notes that wait to be appended.

An insert may only begin while the hold is known to be ours: at an append that was acknowledged, or asked for, less than `LEASE_S` ago. A
block that another sink inserts meanwhile has the same token; the windows of the tables are so large that in two leases fewer
blocks are inserted than they remember. So a sink that wakes up late inserts nothing that another has inserted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial

from services.history import blocks
from services.history.blocks import INSERT_SECONDS_MAX, Progress, Span
from services.history.ports import Feed, Place, Ports
from streams.errors import BackboneError
from streams.log.fenced import FencedLog, LogRecord, UnknownOutcome
from streams.log.rule import Verdict
from streams.records import Record, now
from streams.topics import BLOCKS

#: How long after the hold was last confirmed an insert may begin, seconds. After a longer pause the log is asked first.
LEASE_S = 60.0
#: Records at the end of the log that a successor reads. What they do not speak of was inserted long ago, and the tables say how far.
TAIL_RECORDS = 20_000

_Note = tuple[str, Callable[[int, datetime], Record]]


class BlockLog:
    """A hold on one partition of the log of blocks. `append`s and `confirm`s of several tasks follow each other."""

    def __init__(self, ports: Ports, number: int, history: str) -> None:
        """`history`: identity of the tables."""
        self._ports, self._number, self._history = ports, number, history
        self._log: FencedLog = ports.open_log(number)
        self._notes: list[_Note] = []
        self._confirmed_s = self._claimed_s = self._noted_s = 0.0
        self._one = asyncio.Lock()
        self.progress: dict[Place, Progress] = {}

    async def claim(self, feed: Feed) -> None:
        """Claims it, and takes over what its end says. Raises `UnknownOutcome`, `Unavailable`, `KafkaError`."""
        place = (self._ports.names.physical(BLOCKS), self._number)
        first, end = (await feed.starts([place]))[place], (await feed.ends([place]))[place]
        start = max(first, end - TAIL_RECORDS)
        epoch = await feed.epoch_at(BLOCKS, self._number, start) if start else 0
        began_s = _now_s()
        await self._log.claim(self._fold, start=start, start_epoch=epoch)
        self._confirmed_s, self._claimed_s = began_s, _now_s()

    def _fold(self, record: LogRecord) -> None:
        if record.verdict is Verdict.VALID:
            blocks.fold(self.progress, self._ports.codec.decode(record.value), self._history)

    async def decide(self, spans: Iterable[Span]) -> None:
        """Appends the decisions, and with them the notes that wait. Raises `UnknownOutcome`: then nothing may be inserted."""
        for span in spans:
            self._notes.append((span.topic, partial(self._decision, span)))
        await self.flush()

    def note_inserted(self, span: Span, rows: int) -> None:
        """Notes that a block is in ClickHouse; it is appended with the next decisions, or by `flush`."""
        if not self._notes:
            self._noted_s = _now_s()
        self._notes.append((span.topic, partial(self._inserted, span, rows)))

    @property
    def notes_age_s(self) -> float:
        """How long the oldest note has waited, seconds; 0 without one."""
        return _now_s() - self._noted_s if self._notes else 0.0

    async def flush(self) -> None:
        """Appends what waits."""
        async with self._one:
            notes, self._notes = self._notes, []
            if not notes:
                return
            at, began_s = now(), _now_s()
            await self._log.append([(key, make(self._log.epoch, at)) for key, make in notes])
            self._confirmed_s = began_s

    async def confirm(self) -> float:
        """How long an insert may still begin, seconds; asks the log if the hold was not confirmed for a while.

        Raises `UnknownOutcome` if the hold is lost, or in doubt.
        """
        left_s = self._confirmed_s + LEASE_S - _now_s()
        if left_s > LEASE_S / 2:
            return left_s
        async with self._one:
            began_s = _now_s()
            if not await self._log.still_ours():
                raise UnknownOutcome("log.not-held", "Another sink has taken over during a pause.")
            self._confirmed_s = began_s
            return began_s + LEASE_S - _now_s()

    @property
    def outwaited(self) -> bool:
        """Whether no insert that an earlier owner began can be under way any more."""
        return _now_s() >= self._claimed_s + LEASE_S + INSERT_SECONDS_MAX

    async def outwait(self) -> None:
        """Returns when no insert that an earlier owner began can be under way any more."""
        await asyncio.sleep(max(0.0, self._claimed_s + LEASE_S + INSERT_SECONDS_MAX - _now_s()))

    async def close(self) -> None:
        """Gives the hold up; what was noted spares the successor work, without it the successor asks the tables."""
        try:
            async with asyncio.timeout(1):
                if self._log.held:
                    await self.flush()
        except (BackboneError, TimeoutError):
            self._notes.clear()
        await self._log.close()

    def _decision(self, span: Span, epoch: int, at: datetime) -> Record:
        return blocks.block_record(span, history=self._history, epoch=epoch, time=at, source=self._ports.owner)

    def _inserted(self, span: Span, rows: int, epoch: int, at: datetime) -> Record:
        return blocks.inserted_record(span, history=self._history, rows=rows, epoch=epoch, time=at, source=self._ports.owner)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
