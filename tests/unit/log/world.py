"""A broker in memory with one partition, and owners of it that come, go and become zombies."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from streams import topics
from streams.codec.avro import Codec, SchemaIds, headers_of
from streams.log.fenced import FencedLog
from streams.log.partition import Checkpointing, PartitionRunner, Ports
from streams.log.ports import Outgoing
from streams.log.rule import ReadersRule, Verdict
from streams.records import ModuleMessage, Record, WorkflowTransition
from streams.testing.memory_log import MemoryBroker, MemoryClock, MemoryEffects, MemoryInboxes, MemoryLog, MemorySnapshots
from streams.testing.toys import EchoMachine, FlowMachine
from streams.topics import TopicNames

PATIENCE_S = 60.0
CODEC = Codec(SchemaIds.local())


@dataclass
class World:
    """A broker, and owners of its one partition that come and go."""

    broker: MemoryBroker = field(default_factory=MemoryBroker)
    effects: MemoryEffects = field(default_factory=MemoryEffects)
    local: bool = True  #: whether the module runs in the same host
    owners: list[asyncio.Task[None]] = field(default_factory=list)
    checkpointing: Checkpointing = field(default_factory=Checkpointing)

    def own(self, name: str, machines: list[Any] | None = None) -> PartitionRunner:
        if machines is None:
            machines = [FlowMachine(), EchoMachine()] if self.local else [FlowMachine()]
        ports = Ports(
            codec=CODEC,
            names=TopicNames(),
            clock=MemoryClock(self.broker),
            effects=self.effects,
            open_log=lambda topic, p: FencedLog(None, CODEC, topic=topic, partition=p, owner=name, port=MemoryLog(self.broker, topic)),
            open_inboxes=lambda inboxes, p: MemoryInboxes(self.broker, inboxes),
            open_snapshots=lambda topic, p: MemorySnapshots(self.broker, topic, p),
            checkpointing=self.checkpointing,
        )
        runner = PartitionRunner(machines, ports, partition=0, partitions=1)
        self.owners.append(asyncio.create_task(runner.run()))
        return runner

    async def kill(self, number: int = -1) -> None:
        task = self.owners.pop(number)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def put(self, topic: str, key: str, record: Record, *headers: tuple[str, bytes]) -> None:
        outgoing = Outgoing(key=key.encode(), value=CODEC.encode(record), headers=[*headers_of(record), *headers], timestamp_ms=0)
        self.broker.store(topic, 0, [outgoing], append_time=True)

    def valid(self, topic: str = topics.TRANSITIONS) -> list[Record]:
        rule = ReadersRule()
        records = self.broker.records(topic)
        return [CODEC.decode(stored.value or b"") for stored in records if rule.judge_headers(stored.headers) is Verdict.VALID]

    def completed(self) -> Counter[str]:
        return Counter(event.subject for event in self.valid() if event.type == "execution.completed")

    async def until_completed(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.completed()) < count:
                await asyncio.sleep(0.001)


def check_sequences(world: World) -> None:
    for topic in (topics.TRANSITIONS, topics.MESSAGES):
        last: Counter[str] = Counter()
        for event in world.valid(topic):
            assert isinstance(event, WorkflowTransition | ModuleMessage)
            if event.aggregate_id is not None:
                assert event.sequence == last[event.aggregate_id] + 1
                last[event.aggregate_id] += 1


async def until(condition: Callable[[], object]) -> None:
    """Returns when the condition holds; it does not where it looks into what a takeover has not yet rebuilt."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(KeyError):
                if condition():
                    return
            await asyncio.sleep(0.001)
