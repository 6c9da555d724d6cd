"""Controls: one full and one least example of every record, reused by tests, golden files and documentation."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from streams.records import (
    Block,
    CompositeEvent,
    ControlRecord,
    Delivery,
    Fence,
    Heartbeat,
    InputPosition,
    Inserted,
    Insight,
    Match,
    MatchBatch,
    MessageError,
    ModuleMessage,
    PartitionMark,
    Position,
    Record,
    RuleChange,
    Snapshot,
    SystemEvent,
    Watermark,
    WorkflowCommand,
    WorkflowTransition,
)  # fmt: skip

TIME = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ID = "0190f0c4-8a9b-7cde-8f01-23456789abcd"
CAUSE = "0190f0c4-8a9b-7cde-8f01-23456789abce"
EXECUTION = "0190f0c4-8a9b-7cde-8f01-00000000e1e1"
INPUT = InputPosition(topic="mplp.workflow.commands", partition=3, offset=4_294_967_297)
#: A payload with everything that JSON has.
DATA: Mapping[str, Any] = {
    "text": "Grüße, 世界 🌍\u0000",
    "integers": [0, -1, 2**63 - 1],
    "number": 12.5,
    "truths": [True, False, None],
    "nested": {"empty": {}, "list": []},
}


def _full(subject: str, kind: str, source: str = "mplp/controls") -> dict[str, Any]:
    return {
        "id": ID,
        "type": kind,
        "source": source,
        "subject": subject,
        "time": TIME,
        "tenant": "acme",
        "correlation_id": EXECUTION,
        "causation_id": CAUSE,
        "data": dict(DATA),
    }


def _least(kind: str) -> dict[str, Any]:
    return {"id": ID, "type": kind, "time": TIME}


_LOG: Mapping[str, Any] = {"aggregate_id": EXECUTION, "sequence": 7, "epoch": 2, "input": INPUT}

FULL: Mapping[str, Record] = {
    type(record).__name__: record
    for record in (
        WorkflowTransition(
            **_full(EXECUTION, "step.completed", "mplp/orchestrator"),
            **_LOG,
            execution_id=EXECUTION,
            workflow_id="review",
            workflow_version="1.2.0",
            step_id="plan",
            attempt=1,
            status="running",
        ),
        WorkflowCommand(**_full(EXECUTION, "workflow.start-requested"), execution_id=EXECUTION, command="start"),
        ModuleMessage(
            **_full(EXECUTION, "plan.responded", "mplp/plan"),
            **_LOG,
            kind="response",
            source_module="plan",
            target_module="core",
            operation="create-plan",
            execution_id=EXECUTION,
            step_id="plan",
            attempt=2,
            reply_to=EXECUTION,
            deadline=TIME + timedelta(minutes=5),
            status="error",
            error=MessageError(code="plan.invalid", message="No name.", retryable=True),
        ),
        SystemEvent(**_full("order-7", "order.failed", "shop"), **_LOG, severity="critical"),
        CompositeEvent(
            **_full("steps-failing", "workflow.unstable", "mplp/correlation"),
            **_LOG,
            rule_id="steps-failing",
            rule_version=17,
            correlation_type="event_count",
            group_key={"execution_id": EXECUTION},
            window_start=TIME - timedelta(minutes=5),
            window_end=TIME,
            event_ids=(ID, CAUSE),
            event_count=2,
            confidence=0.8,
            severity="error",
            insights=(Insight(type="pattern", summary="Two failures in one execution.", data={"rate": 0.4}),),
            explanation="2 of step.failed within 5 minutes.",
            revision=1,
            retracted=True,
            suppressed_count=3,
        ),
        Fence(**_full("mplp.module.messages/3", "log.fenced"), log="mplp.module.messages", partition=3, epoch=2, owner="core-1", offset=41),
        Position(**_full("mplp.module.messages/3", "log.positioned"), log="mplp.module.messages", partition=3, epoch=2, positions=(INPUT,)),
        Snapshot(
            **_full(EXECUTION, "aggregate.snapshotted"),
            aggregate_id=EXECUTION,
            log="mplp.workflow.transitions",
            partition=3,
            offset=41,
            epoch=2,
            state=b'{"status":"running"}\x00\xff',
        ),
        ControlRecord(
            **(_full("big-orders", "rule.applied") | {"id": "big-orders"}),
            kind="rule",
            version=3,
            content='{"id":"big-orders"}',
            who="ann",
            why="too many",
            deleted=True,
        ),
        Delivery(
            **_full("order-7", "delivery.failed"),
            event_id=CAUSE,
            route_id="to-billing",
            destination="https://billing.example/hook",
            attempt=3,
            status="retrying",
            error="http.503",
            latency_ms=12.25,
        ),
        Match(
            **_full("order-7", "order.failed", "shop"),
            rule_id="big-orders",
            rule_version=3,
            names=("failed",),
            group_key='["order-7"]',
            topic="mplp.system.events",
            partition=1,
            offset=99,
            ordinal=1,
            timestamp=TIME,
            truncated=True,
            fields='{"data.total":12.5}',
        ),
        MatchBatch(**_full("mplp.system.events/1", "matches.written", "worker-1"), topic="mplp.system.events", partition=1, count=2),
        Watermark(
            **_full("worker-1", "clock.advanced"),
            worker="worker-1",
            level=1,
            marks=(PartitionMark(topic="mplp.system.events", partition=1, time=TIME, offset=100, idle=True),),
        ),
        RuleChange(
            **_full("big-orders", "rule.changed"),
            rule_id="big-orders",
            rule_version=3,
            topic="mplp.system.events",
            partition=1,
            offset=99,
            content='{"id":"big-orders"}',
            deleted=True,
        ),
        Block(
            **_full("mplp.system.events/1", "block.decided"),
            topic="mplp.system.events",
            partition=1,
            first_offset=100,
            end_offset=200,
            epoch=4,
            reader_epoch=2,
        ),
        Inserted(
            **_full("mplp.system.events/1", "block.inserted"),
            topic="mplp.system.events",
            partition=1,
            first_offset=100,
            end_offset=200,
            epoch=4,
            rows=98,
        ),
        Heartbeat(
            **_full("worker-1", "process.alive"),
            process="worker-1",
            host="laptop",
            control_offsets={"mplp.control.rules": 12},
            partitions=("mplp.system.events/1", "mplp.system.events/2"),
        ),
    )
}

LEAST: Mapping[str, Record] = {
    type(record).__name__: record
    for record in (
        WorkflowTransition(**_least("execution.started"), execution_id="e", workflow_id="w"),
        WorkflowCommand(**_least("workflow.cancel-requested"), execution_id="e", command="cancel"),
        ModuleMessage(**_least("context.requested"), kind="request", source_module="core", operation="create-context"),
        SystemEvent(**_least("order.paid")),
        CompositeEvent(**_least("workflow.unstable"), rule_id="r", correlation_type="event_count", window_start=TIME, window_end=TIME),
        Fence(**_least("log.fenced"), log="l", partition=0, epoch=1, owner="o"),
        Position(**_least("log.positioned"), log="l", partition=0, epoch=1),
        Snapshot(**_least("aggregate.snapshotted"), aggregate_id="a", log="l", partition=0, offset=0, epoch=1, state=b""),
        ControlRecord(**_least("route.applied"), kind="route"),
        Delivery(**_least("delivery.made"), event_id="e", route_id="r", destination="d", status="delivered"),
        Match(
            **_least("order.paid"),
            rule_id="r",
            rule_version=1,
            names=(),
            group_key="",
            topic="t",
            partition=0,
            offset=0,
            timestamp=TIME,
        ),
        MatchBatch(**_least("matches.written"), topic="t", partition=0),
        Watermark(**_least("clock.advanced"), worker="w"),
        RuleChange(**_least("rule.changed"), rule_id="r", rule_version=1, topic="t", partition=0, offset=0),
        Block(**_least("block.decided"), topic="t", partition=0, first_offset=0, end_offset=1, epoch=1),
        Inserted(**_least("block.inserted"), topic="t", partition=0, first_offset=0, end_offset=1, epoch=1),
        Heartbeat(**_least("process.alive"), process="p", host="h"),
    )
}
