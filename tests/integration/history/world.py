"""A small history in which every table has rows, with known answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson

from services.history.blocks import Span
from services.history.store import History
from services.history.tables import TABLES
from streams.codec.avro import Codec, SchemaIds
from streams.records import (
    CompositeEvent,
    Delivery,
    MessageError,
    ModuleMessage,
    Record,
    SystemEvent,
    WorkflowCommand,
    WorkflowTransition,
    from_micros,
)
from streams.topics import COMMANDS, COMPOSITES, DELIVERIES, MESSAGES, SYSTEM_EVENTS, TRANSITIONS

#: Time of the world where it does not matter: a full hour.
T0 = from_micros(1_790_000_000_000_000 // 3_600_000_000 * 3_600_000_000)
CODEC = Codec(SchemaIds.local())
ORDERS = 12


def orders(base: datetime) -> list[Record]:
    """Orders of two shops and three customers, a minute apart; every fourth is severe. Then a payload that is no object."""
    found: list[Record] = [
        SystemEvent(
            id=f"order-{number}",
            type="order.paid" if number % 2 == 0 else "order.shipped",
            source=f"shop-{'ab'[number % 2]}",
            subject=f"customer-{number % 3}",
            correlation_id=f"story-{number % 3}",
            time=base + timedelta(minutes=number),
            severity="error" if number % 4 == 3 else "info",
            data={
                "amount": number + 0.5,
                "count": number,
                "customer": {"name": f"c{number % 3}", "vip": number % 3 == 0},
                "items": [{"sku": f"s{item}", "quantity": item + 1} for item in range(number % 3)],
                **({"note": f"note {number}"} if number < 2 else {}),
            },
        )
        for number in range(ORDERS)
    ]
    return [*found, SystemEvent(id="odd", type="odd.text", source="else", subject="", time=base, data="only text")]


def _transition(execution: str, base: datetime, sequence: int, type: str, status: Any, data: Any = None, **more: Any) -> WorkflowTransition:
    return WorkflowTransition(
        id=f"{execution}-{sequence}", type=type, execution_id=execution, workflow_id="review" if execution != "e3" else "approve",
        status=status, sequence=sequence, epoch=1, time=base + timedelta(seconds=10 * sequence), correlation_id=execution,
        aggregate_id=execution, data=data or {}, **more,
    )  # fmt: skip


def executions(base: datetime) -> list[Record]:
    """e1 completed; e2 failed after a retry; e3 waits for a person; a command to e1 was refused."""
    failed = {"error": {"code": "unavailable", "message": "away", "retryable": True}}
    return [
        _transition("e1", base, 1, "execution.started", "running", {"input": {}}),
        _transition("e1", base, 2, "step.started", "running", step_id="a", attempt=1),
        _transition("e1", base, 3, "step.completed", "running", {"result": 1}, step_id="a", attempt=1),
        _transition("e1", base, 4, "step.started", "running", step_id="b", attempt=1),
        _transition("e1", base, 6, "step.completed", "running", {"result": 2}, step_id="b", attempt=1),
        _transition("e1", base, 7, "execution.completed", "completed", {"output": 2, "duration_ms": 60_000}),
        _transition("e2", base, 1, "execution.started", "running", {"input": {}}),
        _transition("e2", base, 2, "step.started", "running", step_id="a", attempt=1),
        _transition("e2", base, 3, "step.retried", "running", {**failed, "delay_ms": 5}, step_id="a", attempt=1),
        _transition("e2", base, 4, "step.started", "running", step_id="a", attempt=2),
        _transition("e2", base, 5, "step.failed", "running", failed, step_id="a", attempt=2),
        _transition("e2", base, 6, "execution.failed", "failed", {**failed, "duration_ms": 50_000}),
        _transition("e3", base, 1, "execution.started", "running", {"input": {}}),
        _transition("e3", base, 2, "step.started", "running", step_id="ask", attempt=1),
        _transition("e3", base, 3, "approval.requested", "running", {"question": "May I?"}, step_id="ask", attempt=1),
        WorkflowTransition(
            id="refused",
            type="command.refused",
            execution_id="e1",
            workflow_id="review",
            status="completed",
            time=base,
            data={"code": "execution.wrong-state", "message": "It has ended.", "command": "cancel"},
            causation_id="command-1",
        ),
    ]


def messages(base: datetime) -> list[Record]:
    """Three requests to a module; the second fails, the third has no answer."""
    found: list[Record] = []
    for number in range(3):
        about: dict[str, Any] = {"operation": "create-plan", "execution_id": "e1", "correlation_id": "e1"}
        at = base + timedelta(seconds=number)
        found.append(
            ModuleMessage(
                id=f"request-{number}", type="plan.requested", kind="request", source_module="core", target_module="plan", time=at, **about
            )
        )
        if number < 2:
            found.append(
                ModuleMessage(
                    id=f"response-{number}",
                    type="plan.responded",
                    kind="response",
                    source_module="plan",
                    target_module="core",
                    time=at + timedelta(milliseconds=40 * (number + 1)),
                    causation_id=f"request-{number}",
                    status="error" if number else "success",
                    error=MessageError(code="plan.unknown", message="No.", retryable=False) if number else None,
                    **about,
                )
            )
    return found


def composites(base: datetime) -> list[Record]:
    """Two composites of one rule, the second taken back by a later revision."""
    return [
        CompositeEvent(
            id=f"composite-{number}", type="correlation.found", time=base + timedelta(minutes=1), rule_id="burst", rule_version=1,
            correlation_type="event_count", group_key={"customer": f"c{number}"}, window_start=base, window_end=base + timedelta(minutes=5),
            event_ids=[f"order-{item}" for item in range(3)], event_count=3, confidence=0.5 + number / 4, severity="error",
            explanation=f"Three orders of c{number}.", revision=revision, retracted=revision == 2, correlation_id=f"story-{number}",
        )
        for number, revision in ((0, 1), (1, 1), (1, 2))
    ]  # fmt: skip


def deliveries(base: datetime) -> list[Record]:
    """Three deliveries of one route, one of them dead."""
    return [
        Delivery(
            id=f"delivery-{number}",
            type="delivery.ended",
            time=base,
            event_id=f"order-{number}",
            route_id="billing",
            destination="webhook",
            attempt=1,
            status="dead" if number == 2 else "delivered",
            error="refused" if number == 2 else None,
            latency_ms=10.0 * (number + 1),
            causation_id=f"order-{number}",
        )
        for number in range(3)
    ]


async def fill(history: History, base: datetime = T0) -> None:
    """Inserts all of it."""
    command = WorkflowCommand(id="command-1", type="command.sent", execution_id="e1", command="cancel", time=base, correlation_id="e1")
    for topic, records in {
        SYSTEM_EVENTS: orders(base),
        TRANSITIONS: executions(base),
        MESSAGES: messages(base),
        COMPOSITES: composites(base),
        DELIVERIES: deliveries(base),
        COMMANDS: [command],
    }.items():
        await put(history, topic, records, at_ms=int(base.timestamp() * 1000))
    when = f"toDateTime64({base.timestamp()}, 3, 'UTC')"
    places = "_topic, _partition, _offset, _timestamp"
    letters = (
        f"INSERT INTO dead_letters (id, exception, message, stage, route, {places}) "
        f"SELECT 'letter', 'http.500', 'No.', 'deliver', 'billing', 'mplp.system.events.dlq', 0, number, {when} FROM numbers(2)"
    )
    others = (
        f"INSERT INTO log_records (kind, error_code, error, {places}) "
        f"SELECT 'undecodable', 'avro.invalid', 'Bad.', 'mplp.system.events', 0, 100 + number, {when} FROM numbers(3)"
    )
    for statement in (letters, others):
        await history._keeper.run(lambda client, statement=statement: client.command(statement))


async def put(history: History, topic: str, records: Sequence[Record], *, at_ms: int) -> None:
    """Inserts records as one block of partition 0."""
    rows = [(offset, at_ms, CODEC.encode(record)[5:]) for offset, record in enumerate(records)]
    span = Span(topic=topic, partition=0, first=0, end=len(rows))
    await history.tables.insert(span, TABLES[type(records[0]).__name__], rows, within_s=60)


def total(records: Sequence[Record], path: str) -> float:
    """Sum of a number in the payloads."""
    return sum(orjson.loads(orjson.dumps(record.data))[path] for record in records if isinstance(record.data, dict))
