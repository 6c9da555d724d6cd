"""Odd things for the tests that compare topics and tables: records of all kinds, a zombie, damage to tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from services.history.store import History
from services.history.verify import Place
from services.history.verify_report import Report
from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.log.fenced import FencedLog
from streams.records import SystemEvent, WorkflowTransition
from streams.topics import TRANSITIONS
from tests.integration.history.helpers import encoded


def events(number: int) -> list[SystemEvent]:
    return [SystemEvent(type=f"t{n % 3}", subject=f"s{n}", data={"n": n, "text": "x" * (n % 50)}) for n in range(number)]


async def log_with_a_zombie(kafka: Kafka, codec: Codec) -> None:
    zombie = FencedLog(kafka, codec, topic=TRANSITIONS, partition=0, owner="a")
    await zombie.claim()
    await zombie.append([("e", transition(n, zombie.epoch)) for n in range(1, 4)])
    owner = FencedLog(kafka, codec, topic=TRANSITIONS, partition=0, owner="b")
    await owner.claim()
    void = encoded(codec, transition(4, zombie.epoch), "e")
    async with kafka.producer() as producer:
        await producer.send_and_wait(kafka.names.physical(TRANSITIONS), void[1], key=void[0], headers=void[2], partition=0)
    await zombie.close()
    await owner.close()


def transition(sequence: int, epoch: int) -> WorkflowTransition:
    return WorkflowTransition(
        type="step.started", execution_id="e", workflow_id="w", status="running", aggregate_id="e", sequence=sequence, epoch=epoch,
        time=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


async def changed(history: History, *statements: str) -> None:
    def work(client: Any) -> None:
        for statement in statements:
            client.command(f"{statement} SETTINGS mutations_sync = 2" if statement.startswith("ALTER") else statement)

    connections = history.connections("test", size=1)
    await connections.run(work)
    await connections.close()


def kinds(report: Report) -> list[tuple[str, str, int]]:
    return [(place.kind.value, place.topic, place.at.offsets) for part in report.partitions for place in part.differences]


async def all_there(ends: Mapping[Place, int], timeout: float) -> Mapping[Place, int]:
    return ends
