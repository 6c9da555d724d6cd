"""Reads the control topic of rules whole, by a consumer without a group, and says what is in force."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import orjson
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from streams.codec.avro import Codec
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule
from streams.errors import BackboneError
from streams.kafka import Kafka, start
from streams.records import ControlRecord
from streams.topics import CONTROL_RULES

_log = structlog.get_logger("rules")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A rule has a new version: `active`, or None if it was deleted or disabled or cannot be run here."""

    rule_id: str
    order: int  #: offset in the control topic
    active: ActiveRule | None


class RulesReader:
    """The rules in force. `offset` is the next offset to read: what the heartbeat tells."""

    def __init__(self, kafka: Kafka, codec: Codec) -> None:
        self._kafka = kafka
        self._codec = codec
        self._tp = TopicPartition(kafka.names.physical(CONTROL_RULES), 0)
        self._consumer: AIOKafkaConsumer | None = None
        self.offset = 0
        self.latest: dict[str, Change] = {}

    async def open(self) -> None:
        """Reads the topic to its present end."""
        consumer = self._kafka.new_consumer(fetch_max_wait_ms=500)
        await start(consumer)
        self._consumer = consumer
        consumer.assign([self._tp])
        self.offset = int((await consumer.beginning_offsets([self._tp]))[self._tp])
        consumer.seek(self._tp, self.offset)
        end = int((await consumer.end_offsets([self._tp]))[self._tp])
        while self.offset < end:
            await self._fetch(timeout_ms=1000)

    async def follow(self, changed: Callable[[Sequence[Change]], Awaitable[None]]) -> None:
        """Hands on what changes, until cancelled; `offset` moves after `changed` has returned."""
        while True:
            changes, offset = await self._read(timeout_ms=1000)
            if changes:
                await changed(changes)
            self.offset = offset

    async def close(self) -> None:
        """Closes the consumer."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    def active(self) -> list[ActiveRule]:
        """The rules in force, in the order of their versions."""
        return sorted((change.active for change in self.latest.values() if change.active is not None), key=lambda active: active.order)

    async def _fetch(self, *, timeout_ms: int) -> None:
        _, self.offset = await self._read(timeout_ms=timeout_ms)

    async def _read(self, *, timeout_ms: int) -> tuple[list[Change], int]:
        assert self._consumer is not None
        fetched = await self._consumer.getmany(self._tp, timeout_ms=timeout_ms)
        changes: dict[str, Change] = {}
        for record in fetched.get(self._tp, ()):
            change = self._change(record.key, record.value, record.offset)
            if change is not None:
                changes[change.rule_id] = self.latest[change.rule_id] = change
        return list(changes.values()), int(await self._consumer.position(self._tp))

    def _change(self, key: bytes | None, value: bytes | None, offset: int) -> Change | None:
        if value is None:
            return Change(rule_id=(key or b"").decode(errors="replace"), order=offset, active=None)
        try:
            record = self._codec.decode(value)
        except BackboneError as error:
            _log.error("rule.unreadable", offset=offset, code=error.code, message=error.message)
            return None
        if not isinstance(record, ControlRecord) or record.kind != "rule":
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
