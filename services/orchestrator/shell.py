"""The orchestrator's shell: definitions from and to the control topic, before anything is decided about them.

An execution pins its definition by hash, so the definition must be on the control topic before `execution.started` can be
decided: `prepare` sees every command first, and writes what is new. At start the whole topic is read, so that every
execution in the log finds its definition; `run` follows what other processes write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

import orjson
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from services.orchestrator.definition import Definition
from services.orchestrator.store import DefinitionStore
from services.orchestrator.triggering import schedules_message
from streams.codec.avro import Codec, headers_of
from streams.definitions import VERSION_MARK
from streams.errors import BackboneError, InvalidDocument, NotFound, Unavailable
from streams.kafka import Kafka, start
from streams.operations import CONTRACT
from streams.records import ControlRecord, Json, ModuleMessage, Record, WorkflowCommand
from streams.topics import CONTROL_WORKFLOWS, REQUESTS

_log = structlog.get_logger("orchestrator.definitions")

_SOURCE = "mplp/orchestrator"
#: How long a start may wait for the control topic to be read, seconds.
CATCH_UP_S = 10.0


class DefinitionKeeper:
    """Keeps a `DefinitionStore` equal to the control topic, and writes new definitions there. One per process."""

    def __init__(self, kafka: Kafka, codec: Codec, *, operations: Mapping[str, Collection[str]] = CONTRACT) -> None:
        """`operations`: what the built-in modules offer; modules with a topic of requests of their own are found there."""
        self.store = DefinitionStore(operations)
        self._kafka = kafka
        self._codec = codec
        self._built_in = frozenset(operations)
        self._partition = TopicPartition(kafka.names.physical(CONTROL_WORKFLOWS), 0)
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        self._stored: set[str] = set()  #: hashes that are on the topic
        self._writing = asyncio.Lock()
        self._untold: dict[str, ModuleMessage] = {}  #: schedules of revisions that were read, by workflow
        self._moved = asyncio.Condition()
        self.offset = 0  #: of the control topic's next record to read

    async def start(self) -> None:
        """Reads the control topic to its end and finds the modules. Raises `Unavailable` and `NotFound` (`topic.unknown`)."""
        consumer = self._consumer = self._kafka.new_consumer(fetch_max_wait_ms=500)
        await start(consumer)
        if self._partition.topic not in await consumer.topics():
            raise NotFound("topic.unknown", f"There is no topic {self._partition.topic}.", advice="Run `mplp topics apply`.")
        # Everything is asked for before the partition is assigned: a fetch that waits holds up every other request on its connection.
        await self._find_modules()
        end = (await consumer.end_offsets([self._partition]))[self._partition]
        consumer.assign([self._partition])
        await consumer.seek_to_beginning(self._partition)
        while await consumer.position(self._partition) < end:
            await self._read(timeout_ms=1000)

    async def run(self) -> None:
        """Follows the control topic until cancelled."""
        while True:
            await self._tell_schedules()
            await self._read(timeout_ms=10_000)

    async def stop(self) -> None:
        """Closes the connections."""
        consumer, producer = self._consumer, self._producer
        self._consumer = self._producer = None
        if consumer is not None:
            await consumer.stop()
        if producer is not None:
            await producer.stop()

    async def prepare(self, record: Record) -> Record:
        """Before a start or fork is decided: its definition is known, checked, and on the control topic. Other records pass.

        A definition with faults passes too: deciding refuses it, in the log. Raises `Unavailable` while Kafka is away.
        """
        if not isinstance(record, WorkflowCommand) or record.command not in ("start", "fork") or not isinstance(record.data, dict):
            return record
        data = record.data
        if "definition" in data:
            definition = await self._admitted(data["definition"])
            if definition is not None and definition.hash not in self._stored:
                await self._write(definition, by=str(data.get("by") or record.source))
        elif record.command == "start" and not self._knows(data):
            await self._catch_up()
        return record

    def _knows(self, data: Mapping[str, Json]) -> bool:
        """Whether the definition that a start names is here."""
        digest, workflow, version = data.get("definition_hash"), data.get("workflow"), data.get("version")
        if isinstance(digest, str):
            return digest in self.store
        try:
            return isinstance(workflow, str) and self.store.latest(workflow, version if isinstance(version, str) else None) is not None
        except InvalidDocument:
            return True

    async def _catch_up(self) -> None:
        """Waits until all that lies on the control topic now has been read: another process may have just written what is named."""
        assert self._consumer is not None, "started"
        try:
            end = (await self._consumer.end_offsets([self._partition]))[self._partition]
        except KafkaError as error:
            raise self._kafka.unreachable(error) from error
        try:
            async with asyncio.timeout(CATCH_UP_S), self._moved:
                await self._moved.wait_for(lambda: self.offset >= end)
        except TimeoutError as error:
            raise Unavailable("definitions.behind", f"The control topic was not read to {end} within {CATCH_UP_S:g} s.") from error

    async def _admitted(self, document: Json) -> Definition | None:
        """The definition, if it has no faults; a module that is not known may have appeared in the meantime."""
        try:
            return self.store.admit(document)
        except InvalidDocument as error:
            if not any(violation.code == "module.unknown" for violation in error.violations):
                return None
        await self._find_modules()
        try:
            return self.store.admit(document)
        except InvalidDocument:
            return None

    async def _find_modules(self) -> None:
        """Modules that run elsewhere have a topic of requests of their own."""
        assert self._consumer is not None, "started"
        prefix = f"{REQUESTS}."
        try:
            # topics() asks the broker; partitions_for_topic would answer from memory.
            names = [self._kafka.names.logical(topic) for topic in await self._consumer.topics()]
        except KafkaError as error:
            raise self._kafka.unreachable(error) from error
        for name in names:
            if name.startswith(prefix) and name.removeprefix(prefix) not in self._built_in:
                self.store.add_module(name.removeprefix(prefix))

    async def _producing(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = self._kafka.new_producer()
            await start(producer)
            self._producer = producer
        return self._producer

    async def _write(self, definition: Definition, *, by: str) -> None:
        """Puts the definition on the control topic and waits until the broker has it. Writing it twice is harmless."""
        async with self._writing:
            if definition.hash in self._stored:
                return
            producer = await self._producing()
            record = ControlRecord(
                id=f"{definition.id}@{definition.hash}",
                type="workflow.defined",
                source=_SOURCE,
                subject=definition.id,
                kind="workflow",
                content=orjson.dumps(definition.document).decode(),
                who=by,
                why="start",
            )
            try:
                await producer.send_and_wait(
                    self._partition.topic, self._codec.encode(record), record.id.encode(), partition=0, headers=headers_of(record)
                )
            except KafkaError as error:
                raise self._kafka.unreachable(error) from error
            self._stored.add(definition.hash)

    def _note_schedules(self, record: ControlRecord, workflow: Mapping[str, Any], offset: int) -> None:
        """Its schedules are to be told, and also that there are none any more."""
        if "@" not in record.id:
            message = schedules_message(record, workflow, offset)
            if message is not None:
                self._untold[record.id] = message

    async def _tell_schedules(self) -> None:
        """Whoever keeps schedules is told of revisions; by every core, and again at each start: a repeat changes nothing there."""
        while self._untold:
            workflow_id, message = next(iter(self._untold.items()))
            async with self._writing:
                producer = await self._producing()
            try:
                await producer.send_and_wait(
                    self._kafka.names.physical(REQUESTS), self._codec.encode(message), workflow_id.encode(), headers=headers_of(message)
                )
            except KafkaError as error:
                raise self._kafka.unreachable(error) from error
            if self._untold.get(workflow_id) is message:
                del self._untold[workflow_id]

    async def _read(self, *, timeout_ms: int) -> None:
        assert self._consumer is not None, "started"
        for records in (await self._consumer.getmany(self._partition, timeout_ms=timeout_ms)).values():
            for record in records:
                self._take(record.value, record.offset)
        self.offset = await self._consumer.position(self._partition)
        async with self._moved:
            self._moved.notify_all()

    def _take(self, value: bytes | None, offset: int) -> None:
        """Takes over one record of the control topic; what cannot be read is reported and stops nothing."""
        if value is None:
            return
        try:
            record = self._codec.decode(value)
            if not isinstance(record, ControlRecord) or record.kind != "workflow":
                return
            if record.deleted:
                self.store.withdraw(record.id)
                self._note_schedules(record, {}, offset)
                return
            document = orjson.loads(record.content)
            self._note_schedules(record, document, offset)
            if "@" not in record.id or VERSION_MARK in record.id:
                self.store.publish(record.id, document)
            else:
                self._stored.add(self.store.restore(document).hash)
        except (BackboneError, ValueError, KeyError, TypeError, AttributeError) as error:
            _log.error("definition.unreadable", topic=self._partition.topic, offset=offset, error=str(error))
