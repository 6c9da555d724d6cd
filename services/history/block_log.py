"""The log of blocks as one sink has it: holds on the partitions that it needs, what they said, and notes that wait to be appended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial

from aiokafka import AIOKafkaConsumer, TopicPartition

from services.history import blocks
from services.history.blocks import Progress, Span
from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.log.fenced import FencedLog, LogRecord, UnknownOutcome
from streams.log.reader import epoch_at
from streams.log.rule import Verdict
from streams.records import Record, now
from streams.topics import BLOCKS, partition_of

#: A sink that has not appended for longer than this looks whether its holds are still its own before it goes on, seconds.
PAUSE_S = 60.0


class BlockLog:
    """Not safe for concurrent appends: the one task that writes does them."""

    def __init__(self, kafka: Kafka, codec: Codec, *, owner: str, partitions: int) -> None:
        """`partitions`: of the topic of blocks."""
        self._kafka, self._codec, self._owner = kafka, codec, owner
        self._partitions = partitions
        self._holds: dict[int, FencedLog] = {}
        self._was_cut: set[int] = set()
        self._notes: dict[int, list[tuple[str, Callable[[int, datetime], Record]]]] = {}
        self._appended_s = time.monotonic()
        self.progress: dict[tuple[str, int], Progress] = {}  #: (topic on the broker, partition) → what the log says

    async def hold(self, topics: Iterable[str], asker: AIOKafkaConsumer) -> None:
        """Claims what the blocks of these topics need, and takes over what it says. Raises `UnknownOutcome`, `Unavailable`."""
        wanted = sorted({self._partition(topic) for topic in topics} - set(self._holds))
        await asyncio.gather(*(self._hold(partition, asker) for partition in wanted))

    async def _hold(self, partition: int, asker: AIOKafkaConsumer) -> None:
        hold = FencedLog(self._kafka, self._codec, topic=BLOCKS, partition=partition, owner=self._owner)
        tp = TopicPartition(self._kafka.names.physical(BLOCKS), partition)
        start = int((await asker.beginning_offsets([tp]))[tp])
        start_epoch = await epoch_at(self._kafka, self._codec, BLOCKS, partition, start) if start else 0
        await hold.claim(self._fold, start=start, start_epoch=start_epoch)
        if start:
            self._was_cut.add(partition)
        self._holds[partition] = hold

    def _fold(self, record: LogRecord) -> None:
        if record.verdict is Verdict.VALID:
            blocks.fold(self.progress, self._codec.decode(record.value))

    def was_cut(self, topic: str) -> bool:
        """Whether retention has taken the beginning of what the log said of a topic."""
        return self._partition(topic) in self._was_cut

    async def decide(self, spans: Iterable[Span]) -> None:
        """Appends the decisions, and with them the notes that wait. Raises `UnknownOutcome`: then nothing may be inserted."""
        for span in spans:
            self._note(span, partial(self._decision, span))
        await self.flush()
        # Blocks that an earlier sink decided are inserted without an append of ours: after a pause it must be asked.
        if time.monotonic() - self._appended_s > PAUSE_S:
            for hold in self._holds.values():
                if not await hold.still_ours():
                    raise UnknownOutcome("log.not-held", "Another sink has taken over during a pause.")
            self._appended_s = time.monotonic()

    def note_inserted(self, span: Span, rows: int) -> None:
        """Notes that a block is in ClickHouse; it is appended with the next decisions, or by `flush`."""
        self._note(span, partial(self._inserted, span, rows))

    def _decision(self, span: Span, epoch: int, at: datetime) -> Record:
        return blocks.block_record(span, epoch=epoch, time=at, source=self._owner)

    def _inserted(self, span: Span, rows: int, epoch: int, at: datetime) -> Record:
        return blocks.inserted_record(span, rows=rows, epoch=epoch, time=at, source=self._owner)

    @property
    def has_notes(self) -> bool:
        """Whether notes wait."""
        return bool(self._notes)

    async def flush(self) -> None:
        """Appends what waits."""
        notes, self._notes = self._notes, {}
        at = now()
        for partition, makers in notes.items():
            hold = self._holds[partition]
            await hold.append([(key, make(hold.epoch, at)) for key, make in makers])
            self._appended_s = time.monotonic()

    async def close(self) -> None:
        """Gives all holds up."""
        for hold in self._holds.values():
            await hold.close()
        self._holds.clear()

    def _note(self, span: Span, make: Callable[[int, datetime], Record]) -> None:
        self._notes.setdefault(self._partition(span.topic), []).append((span.topic, make))

    def _partition(self, topic: str) -> int:
        return partition_of(topic, self._partitions)
