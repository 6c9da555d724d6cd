"""The actions of a worker: what its partitions share (a producer, the client of webhooks), and Kafka as their world."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Sequence

import structlog
from aiokafka.errors import KafkaError

from streams.bus.handling import DeadLetters
from streams.bus.outgoing import Outgoing, outgoing
from streams.bus.publisher import Publisher, translated
from streams.bus.validate import check_record
from streams.causation import depth_of
from streams.codec.avro import Codec
from streams.codec.registry import load_schemas
from streams.correlation.intentions import unpacked
from streams.errors import BackboneError, InvalidInput, TooLarge
from streams.faust_app.action_history import Done
from streams.faust_app.action_lanes import Item
from streams.faust_app.action_partition import ActionPartition
from streams.faust_app.action_plan import Call, Cause, Task, Write, plan, unreadable
from streams.faust_app.ports import Webhooks, WorkerPorts
from streams.kafka import Kafka
from streams.log.kafka_log import RANGE_OPTIONS, read_range
from streams.log.ports import Outgoing as LogOutgoing
from streams.log.ports import Stored
from streams.log.reader import epoch_at
from streams.log.rule import ReadersRule, Verdict
from streams.records import CompositeEvent, now
from streams.topics import ACTIONS_HEADER, COMPOSITES, DELIVERIES
from streams.webhooks.outcomes import Failed, Outcome

_log = structlog.get_logger("actions")

#: Stretches of logs that are read at a time, each by a consumer of its own.
_READERS_MAX = 2


class ActionFailed(BackboneError):
    """An action that was given up, as its dead letter tells it."""


class ActionStage:
    """One per worker; `Ports` of its partitions. `failed` gets what must end the process."""

    def __init__(self, kafka: Kafka, codec: Codec, *, failed: Callable[[BaseException], None], ports: WorkerPorts | None = None) -> None:
        self.attempts_max = kafka.settings.webhook_attempts
        self.retry_ms = kafka.settings.webhook_retry_ms
        self._kafka = kafka
        self._codec = codec
        self._failed = failed
        self._publisher = Publisher(kafka, codec)
        self._letters = DeadLetters(kafka, self._publisher, COMPOSITES)
        self._open_webhooks = (ports or WorkerPorts()).open_webhooks
        self._webhooks: Webhooks | None = None  # of those who have none, nobody reads certificates
        self._readers = asyncio.Semaphore(_READERS_MAX)
        self._done = Done(kafka, codec)

    def partition(self, partition: int) -> ActionPartition:
        """The actions of a partition of composites."""
        return ActionPartition(self, partition, self._failed)

    async def close(self) -> None:
        """Closes what it opened; its partitions are closed before."""
        if self._webhooks is not None:
            await self._webhooks.close()
        await self._publisher.close()

    # --- ports ---

    async def read(self, partition: int, start: int, end: int) -> AsyncGenerator[Stored, None]:
        """See `Ports.read`."""
        try:
            async with self._readers, self._kafka.consumer(**RANGE_OPTIONS) as consumer:
                rule = ReadersRule(await epoch_at(self._kafka, self._codec, COMPOSITES, partition, start))
                async for stored in read_range(consumer, self._kafka.names.physical(COMPOSITES), partition, start, end):
                    if rule.judge_headers(stored.headers) is Verdict.VALID and has_actions(stored):
                        if not self._codec.knows(int.from_bytes((stored.value or b"")[1:5], "big")):
                            self._codec.learn(await load_schemas(self._kafka))  # written by a newer version of this product
                        yield stored
        except (KafkaError, OSError) as error:
            raise translated(error, COMPOSITES) from error

    async def done_since(self, time_ms: int) -> Collection[str]:
        """See `Ports.done_since`."""
        return await self._done.since(time_ms, await self._publisher.partitions(DELIVERIES))

    def items_of(self, stored: Stored) -> list[Item]:
        """See `Ports.items_of`."""
        composite = self._codec.decode(stored.value or b"")
        if not isinstance(composite, CompositeEvent):
            return []
        cause = Cause(composite=composite, said_us=stored.timestamp_ms * 1000, depth=depth_of(stored.headers))
        intended = next(value for name, value in stored.headers if name == ACTIONS_HEADER)
        try:
            errands = plan(cause, unpacked(intended, composite))
        except InvalidInput as error:
            errands = [unreadable(cause, error)]
        return [Item((stored.offset, index), errand, stored) for index, errand in enumerate(errands)]

    async def write(self, writes: Sequence[Write]) -> list[Failed | None]:
        """See `Ports.write`."""
        found: list[Failed | None] = []
        ready: dict[str, list[Outgoing]] = {}
        for write in writes:
            partitions = await self._publisher.partitions(write.topic)
            try:
                check_record(write.record)
                record = outgoing(self._codec, write.record, partitions, key=write.topic_key, headers=write.headers)
            except (InvalidInput, TooLarge) as error:
                found.append(Failed(code=error.code, message=error.message, retryable=False))
                continue
            ready.setdefault(write.topic, []).append(record)
            found.append(None)
        for topic, records in ready.items():
            await self._publisher.send(topic, records)
        return found

    async def bury(self, raw: Stored, task: Task, failed: Failed, attempts: int) -> None:
        """See `Ports.bury`."""
        error = ActionFailed(failed.code, failed.message)
        try:
            await self._letters.write(raw, route=task.route, stage="action", attempts=attempts, first_time=now(), error=error)
        except TooLarge as refused:
            # It stays in the log of composites; the event and the delivery tell where.
            _log.error("letter.too-large", topic=raw.topic, partition=raw.partition, offset=raw.offset, code=refused.code)

    async def post(self, call: Call) -> tuple[Outcome, float]:
        """See `Ports.post`."""
        if self._webhooks is None:
            self._webhooks = self._open_webhooks(self._kafka.settings)
        return await self._webhooks.post(call.target, call.body, call.task.key, dict(call.headers))


def has_actions(record: Stored | LogOutgoing) -> bool:
    """Whether a composite's record has something to be done."""
    return any(name == ACTIONS_HEADER for name, _ in record.headers)
