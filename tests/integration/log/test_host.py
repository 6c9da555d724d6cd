"""The host on a real broker: hosts that come, go, die and come back as zombies; every flow completes once."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

from streams import topics
from streams.codec.avro import Codec, headers_of
from streams.kafka import Kafka
from streams.log.fenced import FencedLog
from streams.log.host import Host
from streams.log.kafka_log import read_range
from streams.log.reader import LogReader, epoch_at
from streams.log.rule import Verdict
from streams.records import Record, WorkflowTransition
from streams.testing.toys import EchoMachine, FlowMachine, start, transition

PARTITIONS = 4


class Running:
    """A host as a task."""

    def __init__(self, kafka: Kafka, codec: Codec, name: str) -> None:
        group = f"{kafka.settings.topic_prefix}-core"
        self.host = Host(kafka, codec, [FlowMachine(), EchoMachine()], name=name, group=group)
        self.task = asyncio.create_task(self.host.run())

    async def ready(self) -> None:
        waiting = asyncio.create_task(self.host.wait_ready())
        await asyncio.wait([waiting, self.task], return_when=asyncio.FIRST_COMPLETED, timeout=120)
        if self.task.done():
            self.task.result()
        assert waiting.done(), f"not ready, partitions {self.host.partitions}"

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def send(kafka: Kafka, codec: Codec, flows: range, steps: int = 2) -> None:
    async with kafka.producer() as producer:
        for number in flows:
            command = start(f"flow-{number}", steps)
            await producer.send(
                kafka.names.physical(topics.COMMANDS),
                key=command.subject.encode(),
                value=codec.encode(command),
                headers=headers_of(command),
            )
        await producer.flush()


async def valid_events(kafka: Kafka, codec: Codec, topic: str = topics.TRANSITIONS) -> list[Record]:
    reader, events = LogReader(kafka), list[Record]()
    name = kafka.names.physical(topic)
    for partition in range(PARTITIONS):
        end = await FencedLog(kafka, codec, topic=topic, partition=partition, owner="reader")._port.end()
        async with kafka.consumer() as consumer:
            async for stored in read_range(consumer, name, partition, 0, end):
                if reader.judge(name, partition, stored.headers) is Verdict.VALID:
                    events.append(codec.decode(stored.value or b""))
    return events


async def completed(kafka: Kafka, codec: Codec, count: int) -> list[Record]:
    async with asyncio.timeout(180):
        while True:
            events = await valid_events(kafka, codec)
            if len({event.subject for event in events if event.type == "execution.completed"}) >= count:
                return events
            await asyncio.sleep(0.1)


def check(events: list[Record], flows: int, steps: int = 2) -> None:
    done = Counter((event.type, event.subject, event.attempt) for event in events if isinstance(event, WorkflowTransition))
    repeated = [what for what, times in done.items() if times > 1]
    assert not repeated
    assert len(events) == flows * (2 + 2 * steps)
    last: Counter[str] = Counter()
    for event in events:
        assert isinstance(event, WorkflowTransition)
        assert event.sequence == last[event.subject] + 1
        last[event.subject] += 1


async def test_hosts_share_partitions_come_and_go_and_nothing_is_lost_or_repeated(kafka: Kafka, codec: Codec) -> None:
    one = Running(kafka, codec, "core-1")
    await one.ready()
    assert one.host.partitions == (0, 1, 2, 3)
    await send(kafka, codec, range(100))
    two = Running(kafka, codec, "core-2")
    await send(kafka, codec, range(100, 200))
    await two.ready()
    await one.ready()
    async with asyncio.timeout(180):
        while len(one.host.partitions) != 2 or len(two.host.partitions) != 2:
            await asyncio.sleep(0.05)
    await send(kafka, codec, range(200, 300))
    await one.stop()  # its static membership ends with the session; until then its partitions wait
    await send(kafka, codec, range(300, 400))
    again = Running(kafka, codec, "core-1")
    check(await completed(kafka, codec, 400), 400)
    await again.stop()
    await two.stop()


async def test_a_zombie_that_goes_on_appending_is_void_for_every_reader(kafka: Kafka, codec: Codec) -> None:
    one = Running(kafka, codec, "core-1")
    await one.ready()
    await send(kafka, codec, range(20))
    await completed(kafka, codec, 20)
    partition = 0
    intruder = FencedLog(kafka, codec, topic=topics.TRANSITIONS, partition=partition, owner="intruder")
    await intruder.claim()
    forged = transition("forged", "execution.completed", "completed", 0, steps=0)
    await intruder.append([("forged", replace(forged, sequence=1, epoch=intruder.epoch))])
    before = intruder.epoch
    # the host finds an unexpected offset with its next append there, claims with a higher fence, and goes on
    await send(kafka, codec, range(20, 60))
    events = await completed(kafka, codec, 60)
    with_intruder = [event for event in events if event.subject == "forged"]
    assert len(with_intruder) == 1, "what the intruder wrote as the owner counts"
    await intruder._appender.append([intruder.outgoing("forged", replace(forged, sequence=2, epoch=before))])  # type: ignore[union-attr]
    events = await valid_events(kafka, codec)
    assert len([event for event in events if event.subject == "forged"]) == 1, "what it writes afterwards is void"
    check([event for event in events if event.subject != "forged"], 60)
    end = await intruder._port.end()
    assert await epoch_at(kafka, codec, topics.TRANSITIONS, partition, end) == before + 1
    assert await epoch_at(kafka, codec, topics.TRANSITIONS, partition, 1) == 1
    await intruder.close()
    await one.stop()
