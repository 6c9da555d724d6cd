"""Handlers that run side by side: of each key one call at a time, in order; what fails waits for its next attempt, its key with it.

The line of a route (`streams.routing.line`) decides what may be called. What is committed is the first record of a partition that is not
settled: after a crash the records behind it come again, also those that were handled.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from datetime import datetime
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from streams.bus.group import COMMIT_INTERVAL_S, GroupSource
from streams.bus.handling import DeadLetters, Handler
from streams.bus.outgoing import Headers
from streams.bus.publisher import Publisher, translated
from streams.bus.selection import Selection
from streams.bus.subscription import Decoder
from streams.concurrency import side_by_side
from streams.errors import BackboneError, InvalidInput, NotFound
from streams.kafka import Kafka
from streams.log.kafka_log import RANGE_OPTIONS, read_range, stored_of
from streams.log.ports import Stored
from streams.records import from_micros
from streams.routing.bounds import SWEEP_JUMP
from streams.routing.items import Failure, Item, line_key
from streams.routing.letters import HISTORY, redriven_of
from streams.routing.line import Line
from streams.routing.routes import RetryPolicy

#: How often somebody looks whether a topic is there by now, seconds.
_LOOK_S = 5.0
_PAUSE_S_MAX = 1.0
#: How long a record waits for room before it is left in the log, seconds.
_ROOM_S = 0.1

_log = structlog.get_logger("streams.bus")


class Keyed:
    """See the module. With `redriven` it handles what was put back for its group, and nothing else."""

    def __init__(
        self, kafka: Kafka, source: GroupSource, decoder: Decoder, letters: DeadLetters, *, group: str, handler: Handler,
        selection: Selection, concurrency: int, policy: RetryPolicy, ordered: bool, redriven: bool,
    ) -> None:  # fmt: skip
        if concurrency < 1:
            raise InvalidInput("concurrency.invalid", "A handler runs at least once at a time.")
        self._kafka, self._source, self._decoder, self._letters = kafka, source, decoder, letters
        self._group, self._handler, self._selection = group, handler, selection
        self._concurrency, self._policy, self._ordered, self._redriven = concurrency, policy, ordered, redriven
        self._lines: dict[int, Line[Stored]] = {}
        self._generation = 0
        self._topic = ""  # name on the broker
        self._moved: set[int] = set()  # partitions of which more is settled than was noted
        self._calls: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._wake, self._room, self._hungry = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._failed: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Until cancelled. Raises what ends it: a dead letter that cannot be written, Kafka."""
        await self._source.open()
        self._failed = asyncio.get_running_loop().create_future()
        try:
            await side_by_side(self._fetch(), self._call_on(), self._sweep_on(), self._commit_on(), self._watch())
        finally:
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)
            # What has been handled is committed, so that it does not come again.
            self._note()
            await asyncio.shield(self._source.close())

    async def _watch(self) -> None:
        assert self._failed is not None
        await self._failed

    # --- records ---

    async def _fetch(self) -> None:
        while (fetched := await self._source.fetch()) is not None:
            self._begin()
            for raw in fetched:
                if self._source.generation != self._generation:
                    break  # rebalanced: the rest comes again, here or elsewhere
                if not self._source.knows(raw):
                    await self._source.learn(raw)
                self._topic = raw.topic
                line = self._lines.get(raw.partition)
                if line is None:
                    line = self._lines[raw.partition] = Line(raw.offset)
                if raw.offset < line.position:
                    continue
                if not self._source.counts(raw) or not self._wants(raw):
                    line.skip_to(raw.offset + 1)
                    self._advance(raw.partition, line)
                    continue
                item = self._item(stored_of(raw))
                if line.would_leave(item.key, item.size):
                    await self._some_room()
                while not line.offer(item) and self._source.generation == self._generation:
                    await self._some_room()
                self._pump()

    async def _some_room(self) -> None:
        """Until something is settled, for a short while."""
        self._room.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_ROOM_S):
                await self._room.wait()

    def _begin(self) -> None:
        if self._source.generation != self._generation:
            self._generation = self._source.generation
            self._lines, self._moved = {}, set()

    def _wants(self, raw: Any) -> bool:
        if not self._redriven:
            return raw.value is not None
        found = redriven_of(raw.headers)
        return found is not None and not found.for_route and found.route == self._group and raw.value is not None

    def _item(self, stored: Stored) -> Item[Stored]:
        key = line_key(stored.key, stored.offset, ordered=self._ordered)
        return Item(stored.offset, key, stored.timestamp_ms, 512 + 4 * len(stored.value or b""), stored)

    async def _sweep_on(self) -> None:
        while True:
            self._hungry.clear()
            for partition, line in list(self._lines.items()):
                if line.sweep_from() is not None:
                    await self._sweep(partition, line)
            await self._hungry.wait()

    async def _sweep(self, partition: int, line: Line[Stored]) -> None:
        end = line.begin_sweep()
        try:
            async with self._kafka.consumer(**RANGE_OPTIONS, isolation_level="read_committed") as consumer:
                while (place := line.sweep_next()) is not None:
                    await self._sweep_to(consumer, partition, line, place, end)
        except KafkaError as error:
            _log.warning("handler.waiting", group=self._group, reason=str(translated(error, self._topic)))
            await asyncio.sleep(_PAUSE_S_MAX)
        finally:
            line.end_sweep()
            self._wake.set()
            if line.hungry():
                self._hungry.set()

    async def _sweep_to(self, consumer: AIOKafkaConsumer, partition: int, line: Line[Stored], start: int, end: int) -> None:
        async with aclosing(read_range(consumer, self._topic, partition, start, end)) as records:
            async for stored in records:
                key = line_key(stored.key, stored.offset, ordered=self._ordered)
                if line.wants(stored.offset, key) and self._wants(stored) and line.refill(self._item(stored)):
                    self._wake.set()
                place = line.sweep_next()
                if place is None or place > stored.offset + SWEEP_JUMP:
                    return
        line.swept(end)

    # --- calls ---

    async def _call_on(self) -> None:
        while True:
            self._wake.clear()
            self._pump()
            now_ms = time.time_ns() // 1_000_000
            due_ms = [due for line in self._lines.values() if (due := line.next_due_ms()) is not None]
            pause_s = min([_PAUSE_S_MAX, *(max(0.001, (due - now_ms) / 1000) for due in due_ms)])
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    def _pump(self) -> None:
        """Begins what can be begun."""
        now_ms = time.time_ns() // 1_000_000
        for partition, line in self._lines.items():
            while self._under_way < self._concurrency and (begun := line.begin(now_ms)) is not None:
                self._under_way += 1
                self._start(self._call(partition, line, *begun))
            if line.hungry():
                self._hungry.set()

    async def _call(self, partition: int, line: Line[Stored], item: Item[Stored], failure: Failure | None) -> None:
        attempts = 1 if failure is None else failure.attempts + 1
        first_ms = time.time_ns() // 1_000_000 if failure is None else failure.first_ms
        stage, error = await self._made(item.work)
        if error is not None:
            code = error.code if isinstance(error, BackboneError) else type(error).__name__
            now_ms = time.time_ns() // 1_000_000
            if stage == "handler" and self._policy.allows(code, True, attempts):
                due_ms = now_ms + self._policy.delay_ms(attempts, f"{self._group}/{self._topic}/{partition}/{item.offset}")
                failed = Failure(attempts=attempts, first_ms=first_ms, due_ms=due_ms, code=code, message=str(error)[:200])
                line.fail(item.key, failed)
                self._under_way -= 1
                self._wake.set()
                return
            await self._bury(item.work, stage, attempts, first_ms, error)
        line.settle(item.key)
        self._advance(partition, line)
        self._under_way -= 1
        self._room.set()
        self._pump()

    async def _made(self, stored: Stored) -> tuple[str, Exception | None]:
        """A call of the handler; the stage at which it failed, and why."""
        stage = "decode"
        try:
            record = await self._decoder.settled(stored.value or b"", self._selection)
            if record is None:
                return stage, None
            stage = "handler"
            result = self._handler(record)
            if inspect.isawaitable(result):
                await result
        except Exception as error:  # whatever a user's handler raises is tried again, or becomes a dead letter
            if stage == "decode" and not isinstance(error, InvalidInput):
                raise
            return stage, error
        return stage, None

    async def _bury(self, stored: Stored, stage: str, attempts: int, first_ms: int, error: Exception) -> None:
        first_time, more, raw = from_micros(first_ms * 1000), list[tuple[str, bytes]](), stored
        found = redriven_of(stored.headers) if self._redriven else None
        if found is not None:
            raw = Stored(
                topic=self._kafka.names.physical(found.topic), partition=found.partition, offset=found.offset,
                timestamp_ms=stored.timestamp_ms, key=stored.key, value=stored.value, headers=found.headers,
            )  # fmt: skip
            attempts, more = attempts + found.attempts, [(HISTORY, found.history)]
            with suppress(ValueError):
                first_time = datetime.fromisoformat(found.first_time)
        _log.warning("record.dead", reason=str(error), stage=stage, group=self._group, partition=raw.partition, offset=raw.offset)
        headers: Headers = more
        await self._letters.write(raw, route=self._group, stage=stage, attempts=attempts, first_time=first_time, error=error, more=headers)

    def _start(self, call: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    # --- commits ---

    def _advance(self, partition: int, line: Line[Stored]) -> None:
        if self._lines.get(partition) is line:
            self._moved.add(partition)

    def _note(self) -> None:
        moved, self._moved = self._moved, set()
        if self._source.generation == self._generation:
            for partition in moved & self._lines.keys():
                self._source.done_to(partition, self._lines[partition].oldest())

    async def _commit_on(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_INTERVAL_S)
            self._note()
            await self._source.commit()


async def when_there(publisher: Publisher, topic: str, work: Callable[[], Awaitable[None]]) -> None:
    """Begins the work as soon as the topic exists."""
    while True:
        try:
            await publisher.partitions(topic)
            break
        except NotFound:
            await asyncio.sleep(_LOOK_S)
    await work()
