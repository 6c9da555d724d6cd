"""The process of a user's module: takes requests from the module's topic, calls its operations, answers.

Theory of operation. The workers of a module share its topic in the consumer group `<prefix>-module-<name>`. Requests run side
by side up to a limit and may end in any order; committed is only what lies before the lowest unfinished one, and a request is
finished when the broker has its answer. So nothing is lost, and after a crash or a rebalance some requests come again: the
operation sees the same request id, the caller takes the first answer. A request that is running here when it comes again is
not begun twice.

Reading goes on while all places are taken, and while the process drains (see `backlog`): notices of callers that have given up overtake the
requests that wait. One that gives up a request that waits here takes it out before it has begun.

An operation ends early when nobody waits for it any more: its caller says so, its deadline passes, or the orchestrator answers a heartbeat
that way. An async one is cancelled; a plain function learns it from its `Call`, and keeps its place until it returns.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from services.modules import answers
from services.modules.backlog import Backlog, Waiting
from services.modules.carrying import EXPIRED, UNWANTED, Carrying, Running
from services.modules.inbox import make_inbox
from services.modules.operation import Refusal
from services.modules.outlet import BusOutlet
from services.modules.presence import HUB, Presence
from services.modules.progress import Progress
from services.modules.registration import INTERVAL_S, expired_event, registration_event
from services.modules.sending import GroupSender
from services.modules.user_module import Module
from streams.bus.executions import Executions
from streams.bus.handling import DeadLetters
from streams.bus.messages import receipt
from streams.bus.publisher import Publisher
from streams.bus.selection import Selection
from streams.bus.subscription import Decoder
from streams.codec.registry import connect_codec
from streams.errors import BackboneError, InvalidInput, Unavailable
from streams.kafka import Kafka, start
from streams.records import Json, ModuleMessage, now, to_micros
from streams.settings import Settings
from streams.topics import REQUESTS, RESPONSES, SYSTEM_EVENTS, module_requests

_log = structlog.get_logger("modules.worker")

COMMIT_INTERVAL_S = 1.0
#: How long the group and the hub may take to let the process go.
LEAVE_S = 3.0
#: Longest pause before an answer is tried again that Kafka did not take.
RETRY_PAUSE_S_MAX = 5.0
#: Operations run as tasks beside the fetching; how long one of them takes is its own affair, not the group's.
POLL_INTERVAL_MS_MAX = 24 * 3600 * 1000
#: Records that are read before those of other partitions get their turn.
RECORDS_AT_A_TIME = 200
#: End of the type of the notification that a caller has given up a request; its cause is the request.
CANCELLED_SUFFIX = ".cancelled"


class ModuleWorker(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """One process's share of a module's requests."""

    def __init__(self, module: Module, settings: Settings) -> None:
        self._module = module
        self._settings = settings
        self._kafka = Kafka(settings)
        self._topic = module_requests(module.name)
        self._group = f"{settings.topic_prefix}-module-{module.name}"
        self._slots = asyncio.Semaphore(settings.module_concurrency)
        self._executor = ThreadPoolExecutor(max_workers=settings.module_concurrency, thread_name_prefix=f"module-{module.name}")
        self._progress: dict[TopicPartition, Progress] = {}
        self._backlog = Backlog()
        self._serving = asyncio.Event()  #: not set: nothing is begun, by wish of the hub
        self._serving.set()
        self._running: dict[str, Running] = {}  #: by request id
        self._tasks: set[asyncio.Task[None]] = set()
        self._abandoned = 0  #: plain functions that go on although nobody waits for them
        self._draining = False

    async def run(self, ready: Callable[[], None] | None = None) -> None:
        """Serves until cancelled. See `Module.run`."""
        codec = await connect_codec(self._kafka)
        await make_inbox(self._kafka, self._topic)
        self._publisher = Publisher(self._kafka, codec)
        self._answers = GroupSender(self._publisher, codec, RESPONSES)
        self._decoder = Decoder(self._kafka, codec)
        self._hub = Executions(self._kafka, codec, self._publisher, self._decoder)
        self._presence = Presence(self._module, self._hub)
        self._carrying = Carrying(self._module, self._hub, self._presence.instance, self._executor, BusOutlet(self._publisher, self._hub))
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._dead_letters = DeadLetters(self._kafka, self._publisher, self._topic)
        self._consumer = self._new_consumer()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        keeping: list[asyncio.Task[None]] = []
        taking: list[asyncio.Task[None]] = []
        sending = asyncio.create_task(self._answers.run())
        try:
            await self._announce()
            await start(self._consumer)
            self._consumer.subscribe([self._kafka.names.physical(self._topic)], listener=self)
            taking = [asyncio.create_task(self._fetch(ready)), asyncio.create_task(self._begin())]
            present = self._presence.run(self._told, self._detail)
            keeping = [asyncio.create_task(each) for each in (self._keep_committing(), self._keep_announcing(), present)]
            ends = [*taking, *keeping, sending, self._failed, self._stopped]
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for beginning in taking[1:]:
                beginning.cancel()
            await asyncio.shield(self._end([*taking, *keeping], sending))

    async def _end(self, keeping: list[asyncio.Task[None]], sending: asyncio.Task[None]) -> None:
        """What runs may end within `module_drain_ms`; what does not is cancelled, and comes again, here or elsewhere.

        Reading goes on meanwhile, so that what runs learns that nobody waits for it.
        """
        self._draining = True
        if self._tasks:
            _log.info("module.draining", module=self._module.name, running=len(self._running))
            _, late = await asyncio.wait(self._tasks, timeout=self._settings.module_drain_ms / 1000)
            for running in self._running.values():
                running.lifeline.cancel()
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
        sending.cancel()
        await self._commit()
        with contextlib.suppress(KafkaError, TimeoutError):
            await asyncio.wait_for(self._consumer.stop(), LEAVE_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._presence.leave(), LEAVE_S)
        await self._hub.close()
        await self._publisher.close()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _new_consumer(self) -> AIOKafkaConsumer:
        return self._kafka.new_consumer(
            group_id=self._group,
            session_timeout_ms=self._settings.group_session_timeout_ms,
            heartbeat_interval_ms=max(300, self._settings.group_session_timeout_ms // 10),
            max_poll_interval_ms=POLL_INTERVAL_MS_MAX,
            rebalance_timeout_ms=10_000,
        )

    def _detail(self) -> dict[str, Json]:
        """What the hub knows of this process beside its lease."""
        limit = self._settings.module_concurrency
        return {"running": len(self._running), "limit": limit, "abandoned": self._abandoned, "draining": self._draining}

    async def _announce(self) -> None:
        await self._publisher.publish_one(SYSTEM_EVENTS, self._module.name, registration_event(self._module), ())

    async def _keep_announcing(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                await self._announce()
            except Unavailable as error:
                _log.warning("module.not-announced", module=self._module.name, code=error.code, reason=error.message)

    # --- taking requests --------------------------------------------------------------------------------------------

    async def _fetch(self, ready: Callable[[], None] | None) -> None:
        """Reads: requests into the backlog as long as there is room, notices at once."""
        while True:
            await self._backlog.room()
            fetched = await self._consumer.getmany(timeout_ms=200, max_records=RECORDS_AT_A_TIME)
            if ready is not None and self._consumer.assignment():
                ready()
                ready = None
            for partition, records in fetched.items():
                progress = self._progress.get(partition)
                if progress is None:
                    continue  # revoked meanwhile: whoever has it now gets them
                for raw in records:
                    progress.begin(raw.offset)
                for raw in records:
                    message = await self._message(raw)
                    if self._progress.get(partition) is not progress:
                        break
                    if message is not None and message.kind != "notification":
                        self._backlog.add(message, (progress, raw.offset), len(raw.value or b""))
                        continue
                    if message is not None:
                        self._cancel(message.causation_id or "")
                    progress.end(raw.offset)

    async def _begin(self) -> None:
        """Gives requests their places, in their order."""
        while True:
            await self._slots.acquire()
            waiting: Waiting | None = None
            while waiting is None:
                await self._serving.wait()
                await self._backlog.some()
                waiting = self._backlog.first() if self._serving.is_set() else None
            task = asyncio.create_task(self._take(waiting))
            self._tasks.add(task)
            task.add_done_callback(self._taken)

    def _told(self, wish: str) -> None:
        """The hub says what this process is to do."""
        if wish == "stopped" and not self._stopped.done():
            _log.info("module.stopping", module=self._module.name, why="the hub was told to stop the module")
            self._stopped.set_result(None)
        elif wish == "draining":
            self._serving.clear()
        elif wish == "serving":
            self._serving.set()

    def _taken(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _take(self, waiting: Waiting) -> None:
        """One request from its beginning to the end of its place."""
        thread: Future[Any] | None = None
        request = waiting.request
        try:
            running = self._running.get(request.id)
            if running is not None:
                running.places += waiting.places
                return
            running = self._running[request.id] = Running.of(self._module, request, waiting.places)
            try:
                await self._handle(request, running)
                for progress, offset in running.places:
                    progress.end(offset)
            finally:
                del self._running[request.id]
                thread = running.lifeline.thread
        finally:
            if thread is None or thread.done():
                self._slots.release()
            else:
                self._abandon(thread)

    def _abandon(self, thread: Future[Any]) -> None:
        """A plain function does not end although nobody waits for it: its place is free when it does."""
        loop = asyncio.get_running_loop()
        self._abandoned += 1

        def returned() -> None:
            self._abandoned -= 1
            self._slots.release()

        def tell(_: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
                loop.call_soon_threadsafe(returned)

        thread.add_done_callback(tell)

    async def _message(self, raw: Any) -> ModuleMessage | None:
        """The request, or the notice of a caller that has given one up, that a record is; what is neither goes to the dead letters."""
        try:
            record = await self._decoder.settled(raw.value or b"", Selection())
            if isinstance(record, ModuleMessage) and self._takes(record):
                return record
            raise InvalidInput("message.no-request", f"Modules take requests, not {type(record).__name__}.")
        except InvalidInput as error:
            fault = error
        _log.warning("request.dead", module=self._module.name, code=fault.code, reason=fault.message, offset=raw.offset)

        async def bury() -> None:
            await self._dead_letters.write(raw, route=self._group, stage="decode", attempts=1, first_time=now(), error=fault)

        await self._persist(bury, None)
        return None

    def _takes(self, message: ModuleMessage) -> bool:
        match message.kind:
            case "request":
                return True
            case "broadcast":
                return self._module.listener(message.type) is not None
            case _:
                return message.kind == "notification" and message.type.endswith(CANCELLED_SUFFIX)

    async def _persist(self, work: Callable[[], Awaitable[None]], request: ModuleMessage | None) -> None:
        """Does `work` until Kafka took what it sends."""
        pause = 0.1
        while True:
            try:
                await work()
                return
            except Unavailable as error:
                _log.warning("kafka.wait", module=self._module.name, code=error.code, request=request.id if request else None)
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_PAUSE_S_MAX)

    # --- answering --------------------------------------------------------------------------------------------------

    async def _handle(self, request: ModuleMessage, running: Running) -> None:
        if _is_late(request.deadline):
            await self._persist(lambda: self._tell_expired(request), request)
            return
        answer = await self._carrying.carry(request, running)
        if answer is EXPIRED:
            await self._persist(lambda: self._tell_expired(request), request)
        elif answer is not UNWANTED:
            await self._persist(lambda: self._send(request, answer), request)

    def _cancel(self, request_id: str) -> None:
        """The caller gave up a request: if it runs here its operation ends, if it waits here it is not begun."""
        running = self._running.get(request_id)
        if running is not None:
            running.cancel()
        elif self._backlog.cancel(request_id):
            _log.info("operation.not-begun", module=self._module.name, request=request_id)

    async def _send(self, request: ModuleMessage, answer: Json | Refusal) -> None:
        if request.kind == "broadcast":
            await self._receipt(request, answer)
            return
        if request.reply_to is None:
            return
        response = answers.response_event(request, answer, None, to_micros(now()))
        response = replace(response, id=answers.response_id(request.id))
        try:
            await self._answers.send(request.reply_to, response)
        except Unavailable:
            raise
        except BackboneError as error:  # what the operation returned cannot be written: too deep, too large, broken text
            _log.warning("answer.refused", module=self._module.name, operation=request.operation, code=error.code, reason=error.message)
            code = error.code if error.code.startswith("payload.") else "internal"  # it is not the caller's fault
            refusal = Refusal(code=code, message=f"The result cannot be sent: {error.message}")
            response = replace(answers.response_event(request, refusal, None, to_micros(now())), id=response.id)
            await self._answers.send(request.reply_to, response)

    async def _receipt(self, message: ModuleMessage, answer: Json | Refusal) -> None:
        """Tells the hub that a broadcast was received; one whose listener failed was not."""
        if isinstance(answer, Refusal):
            _log.warning("broadcast.failed", module=self._module.name, type=message.type, code=answer.code, reason=answer.message)
            return
        await self._publisher.publish_one(REQUESTS, HUB, receipt(message, self._module.name), ())

    async def _tell_expired(self, request: ModuleMessage) -> None:
        """Nobody waits any more, and that is on record."""
        _log.warning("request.expired", module=self._module.name, operation=request.operation, request=request.id)
        event = expired_event(request, self._module.name)
        await self._publisher.publish_one(SYSTEM_EVENTS, event.subject, event, ())

    # --- positions --------------------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Commits what has ended; what runs ends without a place, and comes again to the next owner."""
        await self._commit()
        for partition in revoked:
            progress = self._progress.pop(partition, None)
            if progress is not None:
                self._backlog.lose(progress)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Begins to count anew: the consumer goes on at what was committed."""
        for partition in assigned:
            self._progress[partition] = Progress()
        _log.info("module.assigned", module=self._module.name, partitions=sorted(partition.partition for partition in assigned))

    async def _keep_committing(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_INTERVAL_S)
            await self._commit()

    async def _commit(self) -> None:
        moved = {partition: offset for partition, progress in self._progress.items() if (offset := progress.to_commit()) is not None}
        if not moved:
            return
        try:
            await self._consumer.commit(moved)
        except (CommitFailedError, IllegalStateError, KafkaError) as error:
            # The group has moved on, or the broker is away: the requests come again, which operations must bear anyway.
            _log.warning("module.not-committed", module=self._module.name, reason=str(error))
            return
        for partition, offset in moved.items():
            if partition in self._progress:
                self._progress[partition].committed(offset)


def _is_late(deadline: datetime | None) -> bool:
    return deadline is not None and deadline < now()
