"""Starts of workflows by events: what a chunk of source records starts is written before the chunk counts as done.

The second reader of a record, after a crash or a rebalance, writes the same commands with the same ids: the orchestrator starts
an execution once.
"""

from __future__ import annotations

import structlog
from aiokafka import AIOKafkaProducer

from streams.causation import depth_of
from streams.codec.avro import Codec, headers_of, to_json
from streams.errors import InvalidInput
from streams.faust_app.batches import Raw, send_batches
from streams.faust_app.prefix import Fetched
from streams.kafka import Kafka
from streams.matching.matchers import RecordView
from streams.matching.starts import StartIndex, outcome_of
from streams.records import WorkflowCommand
from streams.topics import COMMANDS, SYSTEM_EVENTS, partition_of

_log = structlog.get_logger("starts")

#: Fields that only say where in a log a record lies.
_OF_LOGS = frozenset({"aggregate_id", "sequence", "epoch", "input"})


class StartStage:
    """Collects what the records of a chunk start; `flush` writes it."""

    def __init__(self, kafka: Kafka, codec: Codec, producer: AIOKafkaProducer) -> None:
        self.index = StartIndex()
        self.started = 0  #: commands written since the start of the process
        self.refused = 0
        self._kafka = kafka
        self._codec = codec
        self._producer = producer
        self._pending: list[tuple[str, str, Raw]] = []

    def take(self, topic: str, record: Fetched, view: RecordView) -> None:
        """Notes what a record (as fetched, and as matchers see it) starts; one of a schema that is no record of ours starts nothing."""
        if not self.index.concerns(topic, view.type):
            return
        hits = self.index.hits(topic, view, record.timestamp)
        if not hits:
            return
        try:
            event = self._codec.decode(record.value)
        except InvalidInput as error:
            self.refused += len(hits)
            workflows = [hit.workflow_id for hit in hits]
            _log.warning("trigger.unreadable", topic=topic, offset=record.offset, workflows=workflows, code=error.code)
            return
        shown = {name: value for name, value in to_json(event).items() if name not in _OF_LOGS}
        depth = depth_of(record.headers)
        for hit in hits:
            outcome = outcome_of(hit, shown, event, depth)
            if isinstance(outcome, WorkflowCommand):
                self.started += 1
                target, key = COMMANDS, outcome.execution_id
            else:
                self.refused += 1
                target, key = SYSTEM_EVENTS, outcome.subject
                _log.warning("trigger.refused", workflow=hit.workflow_id, event_id=event.id, code=outcome.data["code"])
            self._pending.append((target, key, (key.encode(), self._codec.encode(outcome), headers_of(outcome))))

    async def flush(self) -> None:
        """Writes what was noted; returns when all of it is acknowledged."""
        pending, self._pending = self._pending, []
        for topic in dict.fromkeys(target for target, _, _ in pending):
            physical = self._kafka.names.physical(topic)
            partitions = len(await self._producer.partitions_for(physical))
            batches: dict[int, list[Raw]] = {}
            for target, key, raw in pending:
                if target == topic:
                    batches.setdefault(partition_of(key, partitions), []).append(raw)
            await send_batches(self._producer, physical, batches)
