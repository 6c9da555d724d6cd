"""One standing reader for many waiters: whoever waits for answers in a topic registers by key before asking, and gets what comes.

The first watcher connects at the topic's end; after `IDLE_S` without watchers the reader disconnects. A standing connection
costs nothing when an answer is awaited, while a new one would cost more than the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import structlog

from streams.bus.selection import EVERYTHING
from streams.bus.sources import AssignedSource
from streams.bus.subscription import Decoder
from streams.codec.avro import Codec
from streams.errors import BackboneError, Defect, InvalidInput
from streams.kafka import Kafka
from streams.records import Record

IDLE_S = 30.0


class CaughtUp:
    """Said after the records of a fetch: whatever was appended in one batch with them has been handed on, too."""


CAUGHT_UP = CaughtUp()
#: What a watcher gets: records in order, `CAUGHT_UP` after those of each fetch, or the error that ended the reader.
Feed: TypeAlias = "asyncio.Queue[Record | CaughtUp | BackboneError]"


@dataclass(frozen=True, slots=True, eq=False)
class _Watcher:
    """One that waits; `types` are `ce_type` headers."""

    feed: Feed
    types: frozenset[bytes] | None


_log = structlog.get_logger("streams.bus")


class Follower:
    """Follows a topic from its end; on logs only records that count are handed on."""

    def __init__(self, kafka: Kafka, codec: Codec, decoder: Decoder, topic: str, *, partition: int | None = None) -> None:
        self._kafka, self._codec, self._decoder, self._topic = kafka, codec, decoder, topic
        self._partitions = None if partition is None else [partition]
        self._watchers: dict[bytes, list[_Watcher]] = {}
        self._lock = asyncio.Lock()
        self._source: AssignedSource | None = None
        self._task: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def watch(self, key: str, types: Iterable[str] | None = None) -> AsyncIterator[Feed]:
        """A queue of the records under a Kafka key that are appended after this returned; with `types` only of those."""
        feed: Feed = asyncio.Queue()
        watcher = _Watcher(feed, None if types is None else frozenset(name.encode() for name in types))
        raw_key = key.encode()
        async with self._lock:
            if self._idle is not None:
                self._idle.cancel()
                self._idle = None
            await self._ensure_reading()
            self._watchers.setdefault(raw_key, []).append(watcher)
        try:
            yield feed
        finally:
            watchers = self._watchers[raw_key]
            watchers.remove(watcher)
            if not watchers:
                del self._watchers[raw_key]
            if not self._watchers:
                self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._stop_reading)

    async def close(self) -> None:
        """Disconnects."""
        if self._idle is not None:
            self._idle.cancel()
        self._stop_reading()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _ensure_reading(self) -> None:
        if self._task is not None and not self._task.done() and self._source is not None:
            return
        source = AssignedSource(self._kafka, self._codec, self._topic, "now", partitions=self._partitions)
        try:
            await source.open()
        except BaseException:
            await source.close()
            raise
        self._source = source
        self._task = asyncio.create_task(self._read(source), name=f"follow {self._topic}")

    def _stop_reading(self) -> None:
        self._source = None
        if self._task is not None:
            self._task.cancel()

    async def _read(self, source: AssignedSource) -> None:
        ended: BackboneError = Defect("bus.reader-ended", f"The reader of {self._topic} ended.")
        try:
            while (fetched := await source.fetch()) is not None:
                reached: dict[int, Feed] = {}
                for raw in fetched:
                    for feed in await self._dispatch(source, raw):
                        reached[id(feed)] = feed
                for feed in reached.values():
                    feed.put_nowait(CAUGHT_UP)
        except BackboneError as error:
            ended = error
        except Exception as error:  # noqa: BLE001  the watchers must learn of it, whatever it is
            _log.error("follower.failed", topic=self._topic, exc_info=error)
            ended = Defect("bus.reader-failed", f"The reader of {self._topic} failed: {type(error).__name__}: {error}")
        finally:
            for watchers in self._watchers.values():
                for watcher in watchers:
                    watcher.feed.put_nowait(ended)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(source.close())

    async def _dispatch(self, source: AssignedSource, raw: Any) -> Sequence[Feed]:
        """Hands a record to its watchers; those that got it."""
        if not source.knows(raw):
            await source.learn(raw)
        if not source.counts(raw):
            return ()
        watchers = self._watchers.get(raw.key)
        if not watchers or raw.value is None:
            return ()
        record_type = next((value for name, value in raw.headers if name == "ce_type"), b"")
        feeds = [watcher.feed for watcher in watchers if watcher.types is None or record_type in watcher.types]
        if not feeds:
            return ()  # not even decoded
        try:
            record = await self._decoder.settled(raw.value, EVERYTHING)
        except InvalidInput as error:
            _log.warning(
                "record.skipped", code=error.code, reason=error.message, topic=self._topic, partition=raw.partition, offset=raw.offset
            )
            return ()
        if record is not None:
            for feed in feeds:
                feed.put_nowait(record)
        return feeds
