"""A hold on one log partition: claim it by a fence, append to it while nobody else does, lose it when in doubt.

Rules, in the order in which they matter:

1. A claim reads the log to its end, appends `Fence(epoch = last seen + 1)`, and appends nothing else before it has read its
   own fence back. Of two equal claims the first in the log wins; the other reads on and claims again.
2. The holder knows the offset that its next append must get. An append that ends in anything else (an error, a time-out, −1,
   another offset) has an *unknown outcome*: the appender is thrown away and the hold is lost. Whoever had state derived from
   what was appended throws it away too and claims again; events of the old epoch are never sent a second time.
3. One append is in flight at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from streams.codec.avro import Codec, headers_of
from streams.errors import BackboneError, TooLarge
from streams.kafka import Kafka
from streams.log.kafka_log import KafkaLog
from streams.log.ports import Appender, BatchTooLarge, LogPort, Outgoing, Stored
from streams.log.rule import FENCED, ReadersRule, Verdict, type_and_epoch
from streams.records import Fence, InputPosition, Record, derived_id, now, to_micros

APPEND_TIMEOUT_S = 30.0
CLAIMS_MAX = 20
#: Records folded before the event loop gets its turn.
SLICE_RECORDS = 128


class UnknownOutcome(BackboneError):
    """An append did not end as expected; the hold on the partition is lost and must be claimed anew."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record of a log as `claim` shows it: not decoded, with the reader's verdict on it."""

    record_type: str
    verdict: Verdict
    stored: Stored

    @property
    def value(self) -> bytes:
        """The record's bytes; empty for a tombstone."""
        return self.stored.value or b""

    @property
    def key(self) -> bytes | None:
        """The record's key."""
        return self.stored.key

    @property
    def offset(self) -> int:
        """Its offset."""
        return self.stored.offset

    @property
    def timestamp_ms(self) -> int:
        """Its Kafka timestamp."""
        return self.stored.timestamp_ms

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Its headers."""
        return self.stored.headers


class FencedLog:
    """One owner's hold on one log partition. Not safe for concurrent `append`s: the caller serialises them."""

    def __init__(
        self, kafka: Kafka | None, codec: Codec, *, topic: str, partition: int, owner: str,
        port: LogPort | None = None, clock: Callable[[], datetime] = now,
    ) -> None:  # fmt: skip
        """`port` stands for Kafka, `clock` for the wall clock (it dates fences; nothing is decided by it)."""
        if port is None:
            assert kafka is not None
            port = KafkaLog(kafka, topic, partition)
        self._port = port
        self._codec = codec
        self._owner = owner
        self._now = clock
        self._appender: Appender | None = None
        self.partition = partition
        self.topic = port.topic
        self.epoch = 0  #: epoch of the hold; 0 before the first claim
        self.next_offset = 0  #: offset that the next append must get
        self.fences: dict[int, int] = {}  #: offset of each fence that the last claim read, by epoch

    @property
    def held(self) -> bool:
        """Whether appends are possible (as far as this process knows)."""
        return self._appender is not None

    async def claim(
        self, fold: Callable[[LogRecord], Awaitable[None] | None] | None = None, *, start: int = 0, start_epoch: int = 0
    ) -> None:
        """Takes the partition. `fold` gets every record from `start` on, in order, up to and including our own fence.

        `start_epoch` is the epoch in force at `start`. Raises `UnknownOutcome` (`log.contended`) if others keep winning.
        """
        await self.close()
        rule, position = ReadersRule(start_epoch), start
        found: list[tuple[int, int, str]] = []  # (offset, epoch, owner) of the fences that counted

        async def read_to(end: int) -> None:
            nonlocal position
            async for stored in self._port.read(position, end):
                record_type, epoch = type_and_epoch(stored.headers)
                verdict = rule.judge(record_type, epoch)
                if verdict is Verdict.FENCE:
                    found.append((stored.offset, rule.epoch, _owner_of(stored)))
                folding = None if fold is None else fold(LogRecord(record_type, verdict, stored))
                if folding is not None:
                    await folding
                if stored.offset % SLICE_RECORDS == 0:
                    await asyncio.sleep(0)
                position = stored.offset + 1
            position = max(position, end)

        appender = await self._port.open()
        try:
            for attempt in range(CLAIMS_MAX):
                await read_to(await self._port.end())
                wanted = rule.epoch + 1
                claim_id = derived_id("fence", self.topic, self.partition, wanted, self._owner, attempt, to_micros(self._now()))
                fence = self._fence(wanted, claim_id)
                offset = await self._append_fence(appender, fence)
                if offset is None:
                    await appender.close()
                    appender = await self._port.open()
                    continue
                await read_to(offset + 1)
                if self._won(found, offset, wanted):
                    self.epoch, self.next_offset = wanted, offset + 1
                    await self._port.write_fences(
                        [(self._fence_key(epoch), self._index_entry(at, epoch, owner)) for at, epoch, owner in found]
                    )
                    self.fences = {epoch: at for at, epoch, _ in found}
                    self._appender = appender
                    return
        except BaseException:
            await appender.close()
            raise
        await appender.close()
        raise UnknownOutcome("log.contended", f"Others keep claiming {self.topic}/{self.partition}.")

    def read(self, start: int, end: int) -> AsyncIterator[Stored]:
        """See `LogPort.read`."""
        return self._port.read(start, end)

    async def append(self, records: Sequence[tuple[str, Record]]) -> int:
        """Appends (key, record)s of this epoch as one atomic batch; returns the offset of the first.

        Raises `TooLarge` (`batch.too-large`; nothing was sent, the hold stays) and `UnknownOutcome` (the hold is lost).
        """
        return await self.append_encoded([self.outgoing(key, record) for key, record in records])

    def outgoing(self, key: str, record: Record, headers: Sequence[tuple[str, bytes]] = ()) -> Outgoing:
        """A record as it is appended: encoded, with headers (its own, then these) and its own time as timestamp."""
        return Outgoing(
            key=key.encode(),
            value=self._codec.encode(record),
            headers=[*headers_of(record), *headers],
            timestamp_ms=max(0, to_micros(record.time) // 1000),
        )

    def numbered(
        self, record: Record, aggregate_id: str, sequence: int, cause: InputPosition, *, timestamp_ms: int,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> Outgoing:  # fmt: skip
        """A record as it is appended under its aggregate's id, with the fields of the log that it lacks; else as `outgoing`."""
        fields = {"aggregate_id": aggregate_id, "sequence": sequence, "epoch": self.epoch, "input": cause}
        return Outgoing(
            key=aggregate_id.encode(), value=self._codec.encode(record, fields),
            headers=[*headers_of(record, self.epoch), *headers], timestamp_ms=timestamp_ms,
        )  # fmt: skip

    def stored(self, outgoing: Outgoing, offset: int) -> Stored:
        """A record as it lies in the log after its append."""
        return Stored(
            topic=self.topic, partition=self.partition, offset=offset, timestamp_ms=outgoing.timestamp_ms, key=outgoing.key,
            value=outgoing.value, headers=outgoing.headers,
        )  # fmt: skip

    async def append_encoded(self, batch: Sequence[Outgoing]) -> int:
        """As `append`, for records already encoded by `outgoing`."""
        appender = self._appender
        if appender is None:
            raise UnknownOutcome("log.not-held", f"{self.topic}/{self.partition} is not held.")
        try:
            async with asyncio.timeout(APPEND_TIMEOUT_S):
                offset = await appender.append(batch)
        except BatchTooLarge as error:
            raise TooLarge("batch.too-large", str(error)) from error
        except Exception as error:  # every other end of an append is an unknown outcome
            await self.close()
            raise UnknownOutcome(
                "log.append-failed", f"An append to {self.topic}/{self.partition} ended in {type(error).__name__}: {error}"
            ) from error
        except BaseException:
            await self.close()
            raise
        if not self._as_expected(offset):
            await self.close()
            raise UnknownOutcome(
                "log.offset-unexpected", f"An append to {self.topic}/{self.partition} got offset {offset} instead of {self.next_offset}."
            )
        self.next_offset += len(batch)
        return offset

    def _won(self, found: Sequence[tuple[int, int, str]], offset: int, epoch: int) -> bool:
        """Whether our own fence, read back, is the last that counted (`found`: offset, epoch and owner of those that did)."""
        return bool(found) and found[-1][:2] == (offset, epoch)

    def _as_expected(self, offset: int) -> bool:
        """Whether an append got the offset that it had to get: nobody else has appended since we read the log."""
        return offset == self.next_offset

    async def still_ours(self) -> bool:
        """Whether nobody has appended since: the log ends where we think it does. Only while no append is in flight.

        A broker that cannot be asked gives the hold up: whoever calls this must not be left without an answer.
        """
        if not self.held:
            return False
        try:
            end = await self._port.end()
        except Exception as error:  # an error of any kind leaves in doubt whose the log is
            await self.close()
            raise UnknownOutcome("log.end-unknown", f"The end of {self.topic}/{self.partition} cannot be read: {error}") from error
        return end == self.next_offset

    async def close(self) -> None:
        """Gives the hold up (without telling anyone: the next owner fences)."""
        appender, self._appender = self._appender, None
        if appender is not None:
            await appender.close()

    def _fence(self, epoch: int, claim_id: str) -> Fence:
        return Fence(
            id=claim_id, type=FENCED, source="mplp/log", subject=f"{self.topic}/{self.partition}", time=self._now(),
            log=self.topic, partition=self.partition, epoch=epoch, owner=self._owner,
        )  # fmt: skip

    async def _append_fence(self, appender: Appender, fence: Fence) -> int | None:
        """Offset of the fence, None if that is unknown (the loop then reads on and claims again, with a higher epoch if need be)."""
        try:
            async with asyncio.timeout(APPEND_TIMEOUT_S):
                offset = await appender.append([self.outgoing(f"fence/{self.partition}", fence)])
        except (TimeoutError, OSError):
            return None
        except Exception as error:
            raise UnknownOutcome(
                "log.fence-failed", f"{self.topic}/{self.partition} could not be fenced: {type(error).__name__}: {error}"
            ) from error
        return offset if offset >= 0 else None

    def _fence_key(self, epoch: int) -> str:
        return fence_key(self.topic, self.partition, epoch)

    def _index_entry(self, offset: int, epoch: int, owner: str) -> Outgoing:
        entry = Fence(
            id=derived_id("fence-index", self.topic, self.partition, epoch),
            type=FENCED,
            source="mplp/log",
            subject=f"{self.topic}/{self.partition}",
            time=self._now(),
            log=self.topic,
            partition=self.partition,
            epoch=epoch,
            owner=owner,
            offset=offset,
        )
        return self.outgoing(self._fence_key(epoch), entry)


def fence_key(topic: str, partition: int, epoch: int) -> str:
    """Key of an entry of the index of fences in the snapshots topic."""
    return f"fence/{topic}/{partition}/{epoch}"


def _owner_of(stored: Stored) -> str:
    return next((value.decode(errors="replace") for name, value in stored.headers if name == "ce_source"), "")
