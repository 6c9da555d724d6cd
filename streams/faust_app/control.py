"""Reads control topics whole, by consumers without a group, and says what is in force: rules, and what events start."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.codec.avro import Codec
from streams.correlation.parse import parse_rule
from streams.correlation.rule_changes import VERSION_MARK
from streams.correlation.rules import ActiveRule
from streams.errors import BackboneError
from streams.kafka import Kafka, start
from streams.log.kafka_log import RANGE_OPTIONS
from streams.matching.starts import Editions, StartIndex
from streams.records import ControlRecord
from streams.topics import CONTROL_RULES, CONTROL_WORKFLOWS

_log = structlog.get_logger("control")

Changed = TypeVar("Changed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A rule has a new version: `active`, or None if it was deleted or disabled or cannot be run here."""

    rule_id: str
    order: int  #: offset in the control topic
    active: ActiveRule | None


class ControlReader(ABC, Generic[Changed]):
    """One control topic. `offset` is the next offset to read: what the heartbeat tells."""

    def __init__(self, kafka: Kafka, codec: Codec, topic: str) -> None:
        self._kafka = kafka
        self._codec = codec
        self._tp = TopicPartition(kafka.names.physical(topic), 0)
        self._consumer: AIOKafkaConsumer | None = None
        self.offset = 0
        self._moved = asyncio.Event()

    async def open(self) -> None:
        """Reads the topic to its present end."""
        # Changes of rules are transactions.
        consumer = self._kafka.new_consumer(fetch_max_wait_ms=500, isolation_level="read_committed")
        await start(consumer)
        self._consumer = consumer
        consumer.assign([self._tp])
        self.offset = int((await consumer.beginning_offsets([self._tp]))[self._tp])
        consumer.seek(self._tp, self.offset)
        end = int((await consumer.end_offsets([self._tp]))[self._tp])
        while self.offset < end:
            _, self.offset = await self._read(timeout_ms=1000)

    async def follow(self, changed: Callable[[Sequence[Changed]], Awaitable[None]]) -> None:
        """Hands on what changes, until cancelled; `offset` moves after `changed` has returned."""
        while True:
            changes, offset = await self._read(timeout_ms=1000)
            if changes:
                await changed(changes)
            self.offset = offset
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()

    async def catch_up(self) -> None:
        """Returns when everything that the topic has now is handed on. Whoever slept for a while does not know what was changed."""
        async with self._kafka.consumer(**RANGE_OPTIONS) as consumer:
            end = int((await consumer.end_offsets([self._tp]))[self._tp])
        while self.offset < end:
            await self._moved.wait()

    async def close(self) -> None:
        """Closes the consumer."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _read(self, *, timeout_ms: int) -> tuple[list[Changed], int]:
        assert self._consumer is not None
        fetched = await self._consumer.getmany(self._tp, timeout_ms=timeout_ms)
        changes: dict[str, Changed] = {}
        for record in fetched.get(self._tp, ()):
            change = self._take(record)
            if change is not None:
                changes[change[0]] = change[1]
        return list(changes.values()), int(await self._consumer.position(self._tp))

    @abstractmethod
    def _take(self, record: Any) -> tuple[str, Changed] | None:
        """Takes over one record; what has changed by it, under its id."""

    def _decoded(self, record: Any, kind: str) -> ControlRecord | None:
        try:
            found = self._codec.decode(record.value)
        except BackboneError as error:
            _log.error("control.unreadable", topic=self._tp.topic, offset=record.offset, code=error.code, message=error.message)
            return None
        return found if isinstance(found, ControlRecord) and found.kind == kind else None


class RulesReader(ControlReader[Change]):
    """The rules in force."""

    def __init__(self, kafka: Kafka, codec: Codec) -> None:
        super().__init__(kafka, codec, CONTROL_RULES)
        self.latest: dict[str, Change] = {}

    def active(self) -> list[ActiveRule]:
        """The rules in force, in the order of their versions."""
        return sorted((change.active for change in self.latest.values() if change.active is not None), key=lambda active: active.order)

    def _take(self, record: Any) -> tuple[str, Change] | None:
        change = self._change(record)
        if change is None:
            return None
        self.latest[change.rule_id] = change
        return change.rule_id, change

    def _change(self, raw: Any) -> Change | None:
        offset = raw.offset
        if VERSION_MARK.encode() in (raw.key or b""):
            return None  # a version that is kept, whatever is in force
        if raw.value is None:
            return Change(rule_id=(raw.key or b"").decode(errors="replace"), order=offset, active=None)
        record = self._decoded(raw, "rule")
        if record is None:
            return None
        if record.deleted:
            return Change(rule_id=record.id, order=offset, active=None)
        try:
            rule = parse_rule(orjson.loads(record.content))
        except (BackboneError, ValueError) as error:
            _log.error("rule.not-run", rule=record.id, version=record.version, reason=str(error))
            return Change(rule_id=record.id, order=offset, active=None)
        active = ActiveRule(rule=rule, version=record.version, order=offset) if rule.enabled else None
        return Change(rule_id=record.id, order=offset, active=active)


class StartsReader(ControlReader[str]):
    """The published workflows that events start; what changes is told by their ids."""

    def __init__(self, kafka: Kafka, codec: Codec) -> None:
        super().__init__(kafka, codec, CONTROL_WORKFLOWS)
        self._editions = Editions()

    def index(self) -> StartIndex:
        """What events start, now."""
        return StartIndex(self._editions.all())

    def _take(self, record: Any) -> tuple[str, str] | None:
        workflow_id = (record.key or b"").decode(errors="replace")
        if "@" in workflow_id:
            return None  # a pin, or a version: nothing starts by itself from it
        if record.value is None:
            return (workflow_id, workflow_id) if self._editions.withdraw(workflow_id, record.timestamp) else None
        found = self._decoded(record, "workflow")
        if found is None:
            return None
        try:
            if found.deleted:
                changed = self._editions.withdraw(found.id, record.timestamp)
            else:
                changed = self._editions.publish(orjson.loads(found.content), record.timestamp)
                self.index()  # its filters compile, or it is not taken over
        except (BackboneError, ValueError, KeyError, TypeError, AttributeError) as error:
            self._editions.withdraw(found.id, record.timestamp)
            _log.error("trigger.not-run", workflow=found.id, offset=record.offset, reason=str(error))
            return None
        return (found.id, found.id) if changed else None
