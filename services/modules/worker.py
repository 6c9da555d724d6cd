"""The process of a user's module: takes requests from the module's topic, calls its operations, answers.

Theory of operation. The workers of a module share its topic in the consumer group `<prefix>-module-<name>`. Requests run side
by side up to a limit and may end in any order; committed is only what lies before the lowest unfinished one, and a request is
finished when the broker has its answer. So nothing is lost, and after a crash or a rebalance some requests come again: the
operation sees the same request id, the caller takes the first answer. A request that is running here when it comes again is
not begun twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from services.modules import answers
from services.modules.handling import carry_out
from services.modules.operation import Refusal
from services.modules.presence import HUB, Presence
from services.modules.progress import Progress
from services.modules.registration import INTERVAL_S, registration_event
from services.modules.sending import GroupSender
from services.modules.user_module import Module
from streams.bus.executions import Executions
from streams.bus.handling import DeadLetters
from streams.bus.messages import receipt
from streams.bus.publisher import Publisher
from streams.bus.selection import Selection
from streams.bus.subscription import Decoder
from streams.codec.registry import connect_codec
from streams.errors import BackboneError, InvalidInput, NotFound, Unavailable
from streams.kafka import Kafka, start
from streams.records import Json, ModuleMessage, SystemEvent, derived_id, now, to_micros
from streams.settings import Settings
from streams.topics import BY_NAME, REQUESTS, RESPONSES, SYSTEM_EVENTS, module_requests
from streams.topics_apply import WantedTopic, create_topics

_log = structlog.get_logger("modules.worker")

COMMIT_INTERVAL_S = 1.0
#: How long running operations may go on after the process was told to end.
GRACE_S = 3.0
#: Longest pause before an answer is tried again that Kafka did not take.
RETRY_PAUSE_S_MAX = 5.0
#: Operations run as tasks beside the fetching; how long one of them takes is its own affair, not the group's.
POLL_INTERVAL_MS_MAX = 24 * 3600 * 1000
#: End of the type of the notification that a caller has given up a request; its cause is the request.
CANCELLED_SUFFIX = ".cancelled"


@dataclass(slots=True)
class _Running:
    """A request that is worked on, and the places in the topic where it lies."""

    places: list[tuple[Progress, int]]
    operation: asyncio.Task[Json | Refusal] | None = None
    is_cancelled: bool = False


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
        self._running: dict[str, _Running] = {}  #: by request id
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, ready: Callable[[], None] | None = None) -> None:
        """Serves until cancelled. See `Module.run`."""
        codec = await connect_codec(self._kafka)
        await self._make_topic()
        self._publisher = Publisher(self._kafka, codec)
        self._answers = GroupSender(self._publisher, codec, RESPONSES)
        self._decoder = Decoder(self._kafka, codec)
        self._hub = Executions(self._kafka, codec, self._publisher, self._decoder)
        self._presence = Presence(self._module, self._hub)
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._dead_letters = DeadLetters(self._kafka, self._publisher, self._topic)
        self._consumer = self._new_consumer()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        keeping: list[asyncio.Task[None]] = []
        sending = asyncio.create_task(self._answers.run())
        try:
            await self._announce()
            await start(self._consumer)
            self._consumer.subscribe([self._kafka.names.physical(self._topic)], listener=self)
            present = self._presence.run(self._told, lambda: {"running": len(self._running)})
            work = (self._fetch(ready), self._keep_committing(), self._keep_announcing(), present)
            keeping = [asyncio.create_task(each) for each in work]
            done, _ = await asyncio.wait([*keeping, sending, self._failed, self._stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)
            await asyncio.shield(self._end(sending))

    async def _end(self, sending: asyncio.Task[None]) -> None:
        """What runs may end within `GRACE_S`; what does not comes again, here or elsewhere."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=GRACE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        sending.cancel()
        await self._commit()
        with contextlib.suppress(KafkaError, TimeoutError):
            await asyncio.wait_for(self._consumer.stop(), GRACE_S)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._presence.leave(), GRACE_S)
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

    async def _make_topic(self) -> None:
        """Creates the module's topic of requests like the built-in modules', with as many partitions, if it is missing."""
        names = self._kafka.names
        async with self._kafka.admin() as admin:
            described = await admin.describe_topics([names.physical(REQUESTS)])
            partitions = len(described[0]["partitions"])
            if not partitions:
                raise NotFound("topic.unknown", f"There is no topic {REQUESTS}.", advice="Run `mplp topics apply`.")
            wanted = WantedTopic(
                name=names.physical(self._topic),
                partitions=partitions,
                replication=self._settings.replication_factor,
                config=BY_NAME[REQUESTS].config(),
            )
            await create_topics(admin, [wanted])

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
        while True:
            fetched = await self._consumer.getmany(timeout_ms=200, max_records=self._settings.module_concurrency)
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
                    await self._slots.acquire()
                    if self._progress.get(partition) is not progress:
                        self._slots.release()
                        break
                    task = asyncio.create_task(self._take(raw, progress))
                    self._tasks.add(task)
                    task.add_done_callback(self._taken)

    def _told(self, wish: str) -> None:
        """The hub says what this process is to do."""
        partitions = self._consumer.assignment()
        if wish == "stopped" and not self._stopped.done():
            self._stopped.set_result(None)
        elif wish == "draining" and partitions:
            self._consumer.pause(*partitions)
        elif wish == "serving" and self._consumer.paused():
            self._consumer.resume(*self._consumer.paused())

    def _taken(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _take(self, raw: Any, progress: Progress) -> None:
        """One record from its arrival to the end of its place, whatever it is."""
        try:
            request = await self._request(raw)
            if request is None:
                progress.end(raw.offset)
                return
            running = self._running.get(request.id)
            if running is not None:
                running.places.append((progress, raw.offset))
                return
            running = self._running[request.id] = _Running(places=[(progress, raw.offset)])
            try:
                await self._handle(request, running)
                for each, offset in running.places:
                    each.end(offset)
            finally:
                del self._running[request.id]
        finally:
            self._slots.release()

    async def _request(self, raw: Any) -> ModuleMessage | None:
        """The request that a record is; what is none goes to the dead letters."""
        try:
            record = await self._decoder.settled(raw.value or b"", Selection())
            if isinstance(record, ModuleMessage) and self._takes(record):
                return record
            if isinstance(record, ModuleMessage) and record.kind == "notification" and record.type.endswith(CANCELLED_SUFFIX):
                self._cancel(record)
                return None
            raise InvalidInput("message.no-request", f"Modules take requests, not {type(record).__name__}.")
        except InvalidInput as error:
            fault = error
        _log.warning("request.dead", module=self._module.name, code=fault.code, reason=fault.message, offset=raw.offset)

        async def bury() -> None:
            await self._dead_letters.write(raw, route=self._group, stage="decode", attempts=1, first_time=now(), error=fault)

        await self._persist(bury, None)
        return None

    def _takes(self, message: ModuleMessage) -> bool:
        return message.kind == "request" or (message.kind == "broadcast" and self._module.listener(message.type) is not None)

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

    async def _handle(self, request: ModuleMessage, running: _Running) -> None:
        if _is_late(request.deadline):
            await self._persist(lambda: self._tell_expired(request), request)
            return
        running.operation = asyncio.create_task(carry_out(self._module, request, self._executor))
        try:
            answer = await running.operation
        except asyncio.CancelledError:
            if not running.is_cancelled:
                running.operation.cancel()
                raise
            _log.info("operation.cancelled", module=self._module.name, operation=request.operation, request=request.id)
            return
        await self._persist(lambda: self._send(request, answer), request)

    def _cancel(self, notice: ModuleMessage) -> None:
        """The caller gave up a request: if it runs here, its operation is cancelled (a plain function runs to its end)."""
        running = self._running.get(notice.causation_id or "")
        if running is not None and running.operation is not None:
            running.is_cancelled = True
            running.operation.cancel()

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
            refusal = Refusal(code=error.code, message=f"The result cannot be sent: {error.message}")
            response = replace(answers.response_event(request, refusal, None, to_micros(now())), id=response.id)
            await self._answers.send(request.reply_to, response)

    async def _receipt(self, message: ModuleMessage, answer: Json | Refusal) -> None:
        """Tells the hub that a broadcast was received; one whose listener failed was not."""
        if isinstance(answer, Refusal):
            _log.warning("broadcast.failed", module=self._module.name, type=message.type, code=answer.code, reason=answer.message)
            return
        await self._publisher.publish_one(REQUESTS, HUB, receipt(message, self._module.name), ())

    async def _tell_expired(self, request: ModuleMessage) -> None:
        """Nobody waits any more: the request is not carried out, and that is on record."""
        _log.warning("request.expired", module=self._module.name, operation=request.operation, request=request.id)
        event = SystemEvent(
            id=derived_id("expired", request.id),
            type="request.expired",
            source=f"mplp/modules/{self._module.name}",
            subject=request.execution_id or request.id,
            tenant=request.tenant,
            correlation_id=request.correlation_id,
            causation_id=request.id,
            severity="warning",
            data={"module": self._module.name, "operation": request.operation, "step_id": request.step_id, "attempt": request.attempt},
        )
        await self._publisher.publish_one(SYSTEM_EVENTS, event.subject, event, ())

    # --- positions --------------------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Commits what has ended; what runs ends without a place, and comes again to the next owner."""
        await self._commit()
        for partition in revoked:
            self._progress.pop(partition, None)

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


def serve_process(module: Module) -> None:
    """The body of a module's process. See `Module.main`. Stdout has the line `ready` alone, the log goes to stderr."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(file=sys.stderr), cache_logger_on_first_use=False)
    try:
        asyncio.run(_serve_until_signalled(module))
    except BackboneError as error:
        sys.stderr.write(f"error: {error.code}: {error.message}\n" + (f"  {error.advice}\n" if error.advice else ""))
        raise SystemExit(error.exit_code) from None


async def _serve_until_signalled(module: Module) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await module.run(ready=_say_ready)


def _say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def _is_late(deadline: datetime | None) -> bool:
    return deadline is not None and deadline < now()
