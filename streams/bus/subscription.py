"""A subscription: an asynchronous iterator over the records of a topic that a selection lets through.

How it ends, and when the connection behind it is closed:

- `async for … in bus.subscribe(…)`: leaving the loop by `break`, `return`, an exception or cancellation closes it;
- `async with bus.subscribe(…) as subscription`: positions are fixed on entering (so nothing published inside the block is
  missed), and leaving the block closes it; a loop inside may be left and taken up again;
- `await subscription.aclose()`, or `await bus.unsubscribe(subscription)`, from anywhere: a waiting loop ends.

With a group, a record is acknowledged when the next one is asked for; the one in hand when it is closed is not.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

import structlog

from streams.bus.group import GroupSource
from streams.bus.selection import EVERYTHING, Selection
from streams.bus.sources import Source
from streams.codec.avro import Codec, record_from_plain
from streams.codec.registry import load_schemas
from streams.errors import BackboneError, InvalidInput, Refused
from streams.kafka import Kafka
from streams.records import RECORDS, Record

Item = TypeVar("Item")

#: An unknown schema id makes a reader ask the registry again, at most this often, seconds.
RELOAD_INTERVAL_S = 5.0

_log = structlog.get_logger("streams.bus")
#: Records that cannot be read of which each is named. A topic may be full of them, and what is said of one is soon known.
_SKIPPED_NAMED_MAX = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """A record and where it lies."""

    record: Record
    topic: str  #: logical name
    partition: int
    offset: int
    timestamp_ms: int  #: Kafka's


class Decoder:
    """Decodes values; a schema id that is not known yet is looked for in the registry once more."""

    def __init__(self, kafka: Kafka, codec: Codec) -> None:
        self._kafka = kafka
        self._codec = codec
        self._reloaded_at = float("-inf")

    def record(self, value: bytes, selection: Selection) -> Record | None:
        """The record, None if it is not wanted. Raises as `Codec.decode`, and `schema.foreign` for a record that is not one of ours."""
        if selection is EVERYTHING:
            return self._codec.decode(value)  # a third of the price: nothing has to be known of the record before it is made
        name, plain = self._codec.decode_raw(value)
        if name not in RECORDS:
            raise InvalidInput("schema.foreign", f"{name} is not one of our records.")
        if not selection.wants_plain(plain):
            return None
        record = record_from_plain(name, plain)
        return record if selection.wants(record) else None

    async def refresh(self, error: InvalidInput) -> bool:
        """Whether it is worth trying again: a schema was unknown, and the registry was asked since."""
        if error.code != "schema.unknown" or time.monotonic() - self._reloaded_at < RELOAD_INTERVAL_S:
            return False
        self._reloaded_at = time.monotonic()
        self._codec.learn(await load_schemas(self._kafka))
        return True

    async def settled(self, value: bytes, selection: Selection) -> Record | None:
        """As `record`, with a second try after a look into the registry."""
        try:
            return self.record(value, selection)
        except InvalidInput as error:
            if not await self.refresh(error):
                raise
        return self.record(value, selection)


class Subscription(Generic[Item]):
    """See the module's text. `skipped` counts records that could not be read; each is reported by a warning with its place."""

    def __init__(
        self,
        source: Source,
        decoder: Decoder,
        topic: str,
        selection: Selection,
        project: Callable[[Delivered], Item],
        *,
        key: str | None = None,
        on_close: Callable[[Subscription[Any]], None] | None = None,
    ) -> None:
        self.topic = topic
        self.skipped = 0
        self._source = source
        self._decoder = decoder
        self._selection = selection
        self._project = project
        self._key = None if key is None else key.encode()
        self._buffer: deque[Any] = deque()
        self._generation = 0
        self._in_hand: Any | None = None
        self._opened = self._closed = self._entered = False
        self._on_close = on_close

    async def start(self) -> None:
        """Connects and fixes the positions now, not when the first record is asked for."""
        if self._closed:
            raise Refused("subscription.closed", "This subscription is closed; subscribe again.")
        if not self._opened:
            self._selection.check()
            self._opened = True
            try:
                await self._source.open()
            except BaseException:
                await self.aclose()
                raise

    async def __aenter__(self) -> Subscription[Item]:
        self._entered = True
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncGenerator[Item, None]:
        # A generator, because Python closes one that is left by `break`, and nothing else.
        try:
            while True:
                try:
                    item = await self.__anext__()
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if not self._entered:
                await self.aclose()

    async def __anext__(self) -> Item:
        if not self._opened:
            await self.start()
        if self._in_hand is not None:
            done, self._in_hand = self._in_hand, None
            if self._current(self._generation):
                await self._source.acknowledge(done)
        while not self._closed:
            while self._buffer and self._current(self._generation):
                # The record leaves the buffer only when we know what it is: a cancelled call loses nothing.
                raw = self._buffer[0]
                delivered = await self._accept(raw)
                if not self._buffer or self._buffer[0] is not raw:
                    continue  # a rebalance emptied the buffer meanwhile
                self._buffer.popleft()
                if delivered is not None:
                    self._in_hand = raw
                    return self._project(delivered)
                await self._source.acknowledge(raw)
            self._buffer.clear()
            fetched = await self._source.fetch()
            if fetched is None:
                break
            self._generation = getattr(self._source, "generation", 0)
            self._buffer.extend(fetched)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Ends the iteration and disconnects. May be called more than once, from any task."""
        if not self._closed:
            self._closed = True
            self._buffer.clear()
            if self._on_close is not None:
                self._on_close(self)
            await self._source.close()

    @property
    def unanswered(self) -> int:
        """Partitions of which the broker has told nothing since they were begun; 0 once it is closed."""
        return self._source.unanswered()

    def _current(self, generation: int) -> bool:
        return not isinstance(self._source, GroupSource) or self._source.generation == generation

    async def _accept(self, raw: Any) -> Delivered | None:
        if not self._source.knows(raw):
            await self._source.learn(raw)
        if not self._source.counts(raw) or raw.value is None or (self._key is not None and raw.key != self._key):
            return None
        try:
            record = await self._decoder.settled(raw.value, self._selection)
        except InvalidInput as error:
            self.refused(raw, error)
            return None
        if record is None:
            return None
        return Delivered(record=record, topic=self.topic, partition=raw.partition, offset=raw.offset, timestamp_ms=raw.timestamp)

    def refused(self, raw: Any, error: BackboneError) -> None:
        """Reports a record that cannot be read, of many the first and each time that their number doubles; the next one is read."""
        self.skipped += 1
        if self.skipped > _SKIPPED_NAMED_MAX and self.skipped & (self.skipped - 1):
            return
        _log.warning(
            "record.skipped",
            code=error.code,
            reason=error.message,
            topic=self.topic,
            partition=raw.partition,
            offset=raw.offset,
            skipped=self.skipped,
        )
