"""Topics full of what a busy installation writes, for benchmarks of the history: skewed, of all kinds, each record another.

Of 100 records 50 are system events, 25 transitions, 14 module messages, 6 deliveries and 5 composites. Executions and customers follow a
power law: a few are behind most of the records. Logs begin with a fence per partition.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from streams.codec.avro import Codec, headers_of
from streams.faust_app.batches import Raw, send_batches
from streams.kafka import Kafka
from streams.log.rule import FENCED
from streams.records import (
    CompositeEvent,
    Delivery,
    Fence,
    InputPosition,
    Insight,
    ModuleMessage,
    Record,
    SystemEvent,
    WorkflowTransition,
    now,
)
from streams.topics import COMPOSITES, DELIVERIES, MESSAGES, SYSTEM_EVENTS, TRANSITIONS, partition_of

#: Logical topic of each kind, and how many of a hundred records are of it.
MIX = ((SYSTEM_EVENTS, 50), (TRANSITIONS, 25), (MESSAGES, 14), (DELIVERIES, 6), (COMPOSITES, 5))
LOGS = (TRANSITIONS, MESSAGES, COMPOSITES)
CHUNK = 10_000
_STATES = ("step.scheduled", "step.started", "step.completed", "execution.completed")
_TYPES = ("order.created", "order.paid", "order.shipped", "payment.failed", "stock.low", "agent.heartbeat", "login.failed", "cart.changed")


class Mix:
    """Records by a seed; `record` gives the next of a topic."""

    def __init__(self, seed: int = 7) -> None:
        self._draw = random.Random(seed)
        self._began = now() - timedelta(hours=1)
        self._number = 0

    def _skewed(self, many: int) -> int:
        """A number below `many`: small ones far more often."""
        return int(many * self._draw.random() ** 4)

    def _id(self) -> str:
        return str(uuid.UUID(int=self._draw.getrandbits(128), version=4))

    def record(self, topic: str) -> Record:
        """The next record."""
        self._number += 1
        number, execution = self._number, f"execution-{self._skewed(200_000)}"
        at = self._began + timedelta(microseconds=number * 400)
        match topic:
            case "mplp.system.events":
                return self._event(number, at)
            case "mplp.workflow.transitions":
                return self._transition(number, at, execution)
            case "mplp.module.messages":
                return self._message(number, at, execution)
            case "mplp.deliveries":
                return Delivery(
                    id=self._id(),
                    type="delivery.ended",
                    source="router",
                    subject=f"order-{number}",
                    time=at,
                    correlation_id=f"story-{number % 50_000}",
                    event_id=self._id(),
                    route_id=f"route-{number % 12}",
                    destination="mplp.billing",
                    status="delivered",
                    latency_ms=self._draw.random() * 20,
                )
        return self._composite(number, at)

    def _event(self, number: int, at: datetime) -> SystemEvent:
        customer = self._skewed(20_000)
        data = {
            "order": number,
            "total": number % 1000 / 4,
            "currency": "EUR",
            "customer": {"id": customer, "tier": "gold" if customer < 100 else "plain"},
            "items": [{"sku": f"sku-{self._skewed(5000)}", "quantity": 1 + number % 3}],
            "note": "paid in full",
        }
        return SystemEvent(
            id=self._id(),
            type=_TYPES[self._skewed(len(_TYPES))],
            source=f"shop-{number % 20}",
            subject=f"customer-{customer}",
            time=at,
            correlation_id=f"story-{self._skewed(100_000)}",
            data=data,
            severity="error" if number % 50 == 0 else "info",
        )

    def _transition(self, number: int, at: datetime, execution: str) -> WorkflowTransition:
        state = _STATES[number % 4]
        data = (
            {"result": {"planId": self._id(), "tasks": number % 9, "cost": number % 77 / 8}}
            if number % 4 >= 2
            else {"parameters": {"depth": number % 5}}
        )
        return WorkflowTransition(
            id=self._id(),
            type=state,
            source="mplp/orchestrator",
            subject=execution,
            time=at,
            correlation_id=execution,
            causation_id=self._id(),
            data=data,
            execution_id=execution,
            workflow_id=f"workflow-{number % 30}",
            workflow_version="1.0.0",
            status="completed" if number % 4 == 3 else "running",
            step_id=None if number % 4 == 3 else f"step-{number % 6}",
            attempt=1,
            aggregate_id=execution,
            sequence=number,
            epoch=1,
            input=InputPosition(topic="mplp.workflow.commands", partition=0, offset=number),
        )

    def _message(self, number: int, at: datetime, execution: str) -> ModuleMessage:
        return ModuleMessage(
            id=self._id(),
            type="plan.responded",
            source="plan",
            subject=execution,
            time=at,
            correlation_id=execution,
            causation_id=self._id(),
            data={"planId": self._id(), "state": "draft", "priority": number % 5},
            kind="response",
            source_module="plan",
            target_module="core",
            operation=("create-plan", "get-plan", "update-task")[number % 3],
            execution_id=execution,
            step_id=f"step-{number % 6}",
            attempt=1,
            status="success",
            aggregate_id=f"plan-{self._skewed(50_000)}",
            sequence=number,
            epoch=1,
        )

    def _composite(self, number: int, at: datetime) -> CompositeEvent:
        rule, customer = f"rule-{number % 25}", f"customer-{self._skewed(20_000)}"
        return CompositeEvent(
            id=self._id(),
            type="correlation.found",
            source="worker",
            subject=rule,
            time=at,
            correlation_id=f"story-{number % 50_000}",
            data={"count": 3},
            rule_id=rule,
            rule_version=3,
            correlation_type="event_count",
            group_key={"subject": customer},
            window_start=at,
            window_end=at + timedelta(minutes=5),
            event_ids=tuple(self._id() for _ in range(3)),
            event_count=3,
            confidence=0.8,
            severity="error",
            explanation=f"Three payments of {customer} failed within five minutes.",
            insights=(Insight(type="pattern", summary="Three in a row", data='{"events":3}'),),
            aggregate_id=rule,
            sequence=number,
            epoch=1,
        )


def topics(count: int) -> Iterator[str]:
    """The topics of `count` records, evenly mixed."""
    hundred = [topic for topic, share in MIX for _ in range(share)]
    random.Random(1).shuffle(hundred)
    for number in range(count):
        yield hundred[number % 100]


async def fill(kafka: Kafka, codec: Codec, count: int, partitions: int) -> Counter[str]:
    """Writes `count` records, and the logs' fences before them; how many offsets each topic has then."""
    mix, filled = Mix(), Counter[str]()
    async with kafka.producer() as producer:
        for log in LOGS:
            fences = {number: [_raw(codec, _fence(log, number))] for number in range(partitions)}
            await send_batches(producer, kafka.names.physical(log), fences)
            filled[log] += partitions
        waiting: dict[str, dict[int, list[Raw]]] = {}
        for number, topic in enumerate(topics(count), 1):
            raw = _raw(codec, mix.record(topic))
            waiting.setdefault(topic, {}).setdefault(partition_of(raw[0], partitions), []).append(raw)
            filled[topic] += 1
            if number % CHUNK == 0 or number == count:
                for name, batches in waiting.items():
                    await send_batches(producer, kafka.names.physical(name), batches)
                waiting = {}
    return filled


def _fence(log: str, partition: int) -> Fence:
    return Fence(type=FENCED, log=log, partition=partition, epoch=1, owner="benchmark")


def _raw(codec: Codec, record: Record) -> Raw:
    return record.subject.encode() or b"fence", codec.encode(record), headers_of(record)


def rows_expected(filled: Counter[str], partitions: int) -> dict[str, int]:
    """Rows of each table, by the number of offsets of each topic."""
    tables = {SYSTEM_EVENTS: "system_events", TRANSITIONS: "workflow_transitions", MESSAGES: "module_messages"}
    tables |= {DELIVERIES: "deliveries", COMPOSITES: "composite_events"}
    counts = {table: filled[topic] - (partitions if topic in LOGS else 0) for topic, table in tables.items()}
    return {**counts, "log_records": partitions * len(LOGS)}
