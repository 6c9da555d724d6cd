"""What is written while the history is under fire, and what has to come of it: an account kept outside of the product.

Events (some sent twice), a log with owners that take over from each other and zombies that go on writing into it, bytes that nothing can
read, dead letters. An acknowledged record must be in the tables once; one whose acknowledgement failed may be there once or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from streams.codec.avro import Codec, headers_of
from streams.errors import BackboneError
from streams.kafka import Kafka
from streams.log.fenced import FencedLog
from streams.records import Record, SystemEvent, WorkflowTransition
from streams.topics import SYSTEM_EVENTS, TRANSITIONS

#: Where a record has to be: a table, or a kind of `log_records`.
EVENTS, STEPS, LETTERS = "system_events", "workflow_transitions", "dead_letters"
VOID, REPEAT, GARBAGE = "void", "repeat", "undecodable"
#: Pause between two batches, seconds; how many records one has at most.
PAUSE_S, BATCH = 0.1, 80
#: Appends of an owner before the next one comes, and how many records of a zombie follow then, at most.
APPENDS, ZOMBIE_RECORDS = 8, 5


@dataclass(frozen=True, slots=True)
class Item:
    """A record and where it has to be."""

    topic: str
    partition: int
    value: bytes
    headers: list[tuple[str, bytes]]
    target: str


@dataclass(slots=True)
class Account:
    """How many of each are acknowledged, and how many are in doubt."""

    sent: Counter[str] = field(default_factory=Counter)
    doubtful: Counter[str] = field(default_factory=Counter)
    events: set[str] = field(default_factory=set)  #: ids of acknowledged events
    maybe: set[str] = field(default_factory=set)  #: ids of events in doubt

    def faults(self, found: Counter[str], ids: list[str]) -> Iterator[str]:
        """Everything in which what the tables have differs from the account. `ids`: of the load's rows in `system_events`."""
        for target in sorted(self.sent | self.doubtful | found):
            least, most = self.sent[target], self.sent[target] + self.doubtful[target]
            if not least <= found[target] <= most:
                yield f"{target}: {least} to {most} were sent, {found[target]} are there"
        there = set(ids)
        if len(there) != len(ids):
            yield f"{len(ids) - len(there)} events are there twice"
        if lost := self.events - there:
            yield f"{len(lost)} acknowledged events are lost, such as {min(lost)}"
        if strange := there - self.events - self.maybe:
            yield f"{len(strange)} events were never sent, such as {min(strange)}"


class Owner:
    """An owner of a log partition: it appends for a while, then a zombie of the epoch before writes, and the next owner comes."""

    def __init__(self, kafka: Kafka, codec: Codec, partition: int) -> None:
        self.log = FencedLog(kafka, codec, topic=TRANSITIONS, partition=partition, owner=f"owner-{partition}")
        self.left = 0  #: appends until the next owner comes
        self._steps = 0

    async def claim(self, appends: int) -> None:
        """Takes the partition. Raises what the broker raises."""
        await self.log.claim(start=self.log.next_offset, start_epoch=self.log.epoch)
        self.left = appends

    def steps(self, count: int, epoch: int) -> list[tuple[str, Record]]:
        """Records of an epoch."""
        found: list[tuple[str, Record]] = []
        for _ in range(count):
            self._steps += 1
            step = WorkflowTransition(
                type="step.started", execution_id=f"e{self.log.partition}", workflow_id="w", status="running",
                aggregate_id=f"e{self.log.partition}", sequence=self._steps, epoch=epoch,
            )  # fmt: skip
            found.append((step.execution_id, step))
        return found


class Traffic:
    """Writes until it is over."""

    def __init__(self, kafka: Kafka, codec: Codec, chance: random.Random) -> None:
        self._kafka, self._codec, self._chance = kafka, codec, chance
        self._owners = [Owner(kafka, codec, number) for number in range(kafka.settings.partitions)]
        self._count = 0
        self.account = Account()
        self.over = asyncio.Event()

    async def run(self) -> None:
        """Batch after batch; a producer that failed is replaced."""
        while not self.over.is_set():
            try:
                async with self._kafka.producer(linger_ms=5) as producer:
                    await self._write_on(producer)
            except (KafkaError, BackboneError, OSError):
                await asyncio.sleep(0.5)  # the broker is away
        for owner in self._owners:
            await owner.log.close()

    async def _write_on(self, producer: AIOKafkaProducer) -> None:
        while not self.over.is_set():
            await self._send(producer, self._some_events())
            await self._some_of_the_log(producer, self._chance.choice(self._owners))
            await asyncio.sleep(self._chance.uniform(0, 2 * PAUSE_S))

    async def _send(self, producer: AIOKafkaProducer, items: list[Item]) -> None:
        """Sends them, and books what came of each. Raises `KafkaError` if one was not acknowledged."""
        futures = []
        for item in items:
            with contextlib.suppress(KafkaError, OSError):
                topic = self._kafka.names.physical(item.topic)
                futures.append(await producer.send(topic, item.value, key=b"k", headers=item.headers, partition=item.partition))
                continue
            break  # it and what follows may not have been sent
        outcomes: list[object] = list(await asyncio.gather(*futures, return_exceptions=True))
        outcomes += [KafkaError()] * (len(items) - len(outcomes))
        for item, outcome in zip(items, outcomes, strict=True):
            self._book(item.target, acknowledged=not isinstance(outcome, BaseException), headers=item.headers)
        if any(isinstance(outcome, BaseException) for outcome in outcomes):
            raise KafkaError("Not all of a batch was acknowledged.")

    def _book(self, target: str, *, acknowledged: bool, headers: list[tuple[str, bytes]] | None = None) -> None:
        account = self.account
        (account.sent if acknowledged else account.doubtful)[target] += 1
        if target == EVENTS:
            (account.events if acknowledged else account.maybe).add(dict(headers or ())["ce_id"].decode())

    def _some_events(self) -> list[Item]:
        """Events of one partition; in between what comes twice, what nothing can read, and dead letters."""
        partition, items = self._chance.randrange(len(self._owners)), []
        for _ in range(self._chance.randint(1, BATCH)):
            item = self._event(partition)
            lot = self._chance.random()
            if lot < 0.01:
                items.append(Item(SYSTEM_EVENTS, partition, item.value[:-3], item.headers, GARBAGE))
            else:
                items.append(item)
            if 0.01 < lot < 0.03:
                items.append(Item(SYSTEM_EVENTS, partition, item.value, item.headers, REPEAT))
            elif 0.03 < lot < 0.05:
                items.append(Item(SYSTEM_EVENTS + ".dlq", partition, item.value, item.headers, LETTERS))
        return items

    def _event(self, partition: int) -> Item:
        self._count += 1
        payload = {"n": self._count, "text": "x" * self._chance.randrange(200)}
        event = SystemEvent(type=f"chaos.{self._count % 5}", source="chaos", subject=f"s{self._count % 97}", data=payload)
        return Item(SYSTEM_EVENTS, partition, self._codec.encode(event), headers_of(event), EVENTS)

    async def _some_of_the_log(self, producer: AIOKafkaProducer, owner: Owner) -> None:
        """An append of an owner, or the end of its time: the next one, and then a record or two of the one before."""
        if owner.left and owner.log.held:
            owner.left -= 1
            steps = owner.steps(self._chance.randint(1, 10), owner.log.epoch)
            acknowledged = False
            try:
                await owner.log.append(steps)
                acknowledged = True
            finally:
                for _ in steps:
                    self._book(STEPS, acknowledged=acknowledged)
            return
        before = owner.log.epoch
        await owner.claim(self._chance.randint(1, APPENDS))
        late = owner.steps(self._chance.randint(0, ZOMBIE_RECORDS), before)
        if late:
            owner.left = 0  # it cannot know what offset its next append must get: the next owner comes
            items = [Item(TRANSITIONS, owner.log.partition, self._codec.encode(step), headers_of(step), VOID) for _, step in late]
            await self._send(producer, items)
