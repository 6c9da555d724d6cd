"""What contexts, plans and dialogs cost that nobody ends: memory of their owner, takeover, answers, with ever more events behind it.

`python -m tests.benchmarks.modules [EVENTS…]`, by default 10,000, 100,000, 1,000,000 and 2,000,000 module events. The owner is a process of
its own with the real machine on a real broker, 4 partitions, all settings as they are by default. Stories of four requests (a context, a
change of it, a plan and a dialog in it; 12 events) come to its inbox as fast as it takes them, and none ever ends. At each size the owner
is killed (-9) and started again: once when it has nothing to do, and once in the middle of work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import structlog
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.kafka import EmbeddedKafka
from services.modules.machine import ModulesMachine
from services.modules.operation import short_id
from streams import collector, topics
from streams.bus import connect
from streams.codec.avro import Codec, headers_of
from streams.codec.registry import connect_codec
from streams.errors import InvalidInput
from streams.kafka import Kafka
from streams.log.host import Host
from streams.records import ModuleMessage, derived_id
from streams.settings import Settings
from streams.topics_apply import apply_topics
from tests.benchmarks.report import report

SIZES = (10_000, 100_000, 1_000_000, 2_000_000)
EVENTS_PER_STORY = 12
#: Requests that wait in the inbox at most: an owner that is killed with a full inbox would be measured by the inbox.
BACKLOG_MAX = 20_000
#: Events that begin to come before an owner is killed under load, and how long it has them.
LOAD_EVENTS = 200_000
LOAD_S = 20.0
PAUSE_S = 0.5
ANSWER_S = 60.0


def requests_of(number: int) -> Iterator[ModuleMessage]:
    """The requests of one story; ids of what they create derive from theirs."""
    home = f"story-{number:08d}"
    context = f"{home}/context-{short_id(derived_id(home, 0), 'context')}"
    described = f"What story {number} is about, in as many words as people usually find for such a thing. " * 2
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("context", "create-context", {"name": f"room {number}", "type": "benchmark", "description": described, "metadata": {"n": number}}),
        ("context", "update-context", {"contextId": context, "metadata": {"seen": True}}),
        ("plan", "create-plan", {"contextId": context, "name": "plan", "tasks": [{"taskId": "a"}, {"taskId": "b", "name": described}]}),
        ("dialog", "facilitate-communication", {"contextId": context, "participants": ["ada", "bob"], "topic": f"story {number}"}),
    ]
    for part, (module, operation, parameters) in enumerate(calls):
        yield ModuleMessage(
            id=derived_id(home, part), type=f"{module}.requested", source="benchmark", subject=home, time=datetime.now(UTC),
            correlation_id=home, data=parameters, kind="request", source_module="benchmark", target_module=module, operation=operation,
        )  # fmt: skip


async def own(bootstrap: str) -> None:
    """The owner's process: serves until it is killed; tells of its takeover, and when what had waited for it is decided."""
    collector.look_seldom()  # as every process of the product
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    kafka = Kafka(Settings(kafka_bootstrap=bootstrap, group_session_timeout_ms=30_000))
    codec = await connect_codec(kafka)
    began, used = time.perf_counter(), time.process_time()
    host = Host(kafka, codec, [ModulesMachine()], name="core-1", group="bench")
    running = asyncio.create_task(host.run())
    await host.wait_taken()
    owned = [runner._owned for runner in host._runners.values()]
    taken = {
        "takeover_s": round(time.perf_counter() - began, 3),
        "takeover_processor_s": round(time.process_time() - used, 3),  # what it would take on a quiet machine, about
        "folded_events": sum(lane.folded for each in owned for lane in each.lanes.values()),
        "backlog": sum(each.backlog() for each in owned),
    }
    _tell(taken)
    await host.wait_ready()
    _tell({"backlog_decided_s": round(time.perf_counter() - began, 3)})
    await running


def _tell(figures: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


class Owner:
    """That process, seen from here."""

    def __init__(self, process: asyncio.subprocess.Process, figures: dict[str, float]) -> None:
        self._process = process
        self.figures = figures  #: of its takeover

    @classmethod
    async def start(cls, bootstrap: str) -> Owner:
        """Starts it; returns when it has taken all partitions over."""
        command = (sys.executable, "-m", "tests.benchmarks.modules", "own", bootstrap)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        return cls(process, await _told(process))

    async def until_ready(self) -> None:
        """Returns when what had waited for it is decided."""
        self.figures |= await _told(self._process)

    def memory_mib(self) -> float:
        """Resident memory."""
        return float(psutil.Process(self._process.pid).memory_info().rss / 2**20)

    def processor_s(self) -> float:
        """Processor time so far."""
        used = psutil.Process(self._process.pid).cpu_times()
        return float(used.user + used.system)

    async def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        await self._process.wait()


class Load:
    """Stories on their way into the owner's log."""

    def __init__(self, kafka: Kafka, codec: Codec) -> None:
        self._kafka = kafka
        self._codec = codec
        self.stories = 0
        self._sent = 0

    async def until(self, events: int, owner: Owner, seconds: float = float("inf")) -> float:
        """Sends until the log has so many events of stories, or the time is over; the most memory that the owner had meanwhile, MiB."""
        most, end = owner.memory_mib(), time.perf_counter() + seconds
        async with self._kafka.producer(linger_ms=20) as producer, self._kafka.consumer() as consumer:
            while (waiting := await self._waiting(consumer)) or self.stories * EVENTS_PER_STORY < events:
                if time.perf_counter() > end:
                    break
                if self.stories * EVENTS_PER_STORY < events and waiting < BACKLOG_MAX:
                    await self._send(producer, min(BACKLOG_MAX // 8, -(-events // EVENTS_PER_STORY) - self.stories))
                else:
                    await asyncio.sleep(PAUSE_S)
                most = max(most, owner.memory_mib())
        return most

    async def _send(self, producer: Any, count: int) -> None:
        for number in range(self.stories, self.stories + count):
            for request in requests_of(number):
                topic = self._kafka.names.physical(topics.REQUESTS)
                await producer.send(topic, self._codec.encode(request), request.subject.encode(), headers=headers_of(request))
                self._sent += 1
        await producer.flush()
        self.stories += count

    async def _waiting(self, consumer: AIOKafkaConsumer) -> int:
        """Requests without an answer in the log, about: every request leaves three records there, and fences are few."""
        log = self._kafka.names.physical(topics.MESSAGES)
        ends = await consumer.end_offsets([TopicPartition(log, partition) for partition in range(self._kafka.settings.partitions)])
        logged = int(sum(ends.values()))
        return max(0, self._sent - (logged + 2) // 3)


async def _told(process: asyncio.subprocess.Process) -> dict[str, float]:
    assert process.stdout is not None
    told: dict[str, float] = json.loads(await process.stdout.readline())
    return told


async def killed_under_load(owner: Owner, load: Load, bootstrap: str) -> tuple[Owner, dict[str, float]]:
    """kill -9 of an owner that has much to decide, and that a new one takes over: when it decides again, and when it has what waited."""
    await load.until(load.stories * EVENTS_PER_STORY + LOAD_EVENTS, owner, LOAD_S)
    await owner.kill()
    owner = await Owner.start(bootstrap)
    await owner.until_ready()
    return owner, {f"loaded_{name}": value for name, value in owner.figures.items()}


async def answered_s(settings: Settings, load: Load) -> dict[str, float]:
    """Seconds until an owner that has just begun answers: one aggregate that nobody has touched for long, and a list of all."""
    home = "story-00000000"
    context = f"{home}/context-{short_id(derived_id(home, 0), 'context')}"
    async with connect(settings) as bus:
        began = time.perf_counter()
        found = await bus.call_module("context", "get-context", {"contextId": context}, timeout=ANSWER_S)
        first = time.perf_counter() - began
        assert found["metadata"] == {"n": 0, "seen": True}
        began = time.perf_counter()
        listed = await bus.call_module("context", "list-contexts", {"limit": 10}, timeout=ANSWER_S)
        seconds = time.perf_counter() - began
    return {"first_answer_s": round(first, 3), "list_s": round(seconds, 3), "listed_of_all": round(listed["total"] / load.stories, 3)}


async def _codec(kafka: Kafka) -> Codec:
    """A broker that has just begun may not show at once what was registered."""
    for _ in range(20):
        with contextlib.suppress(InvalidInput):
            return await connect_codec(kafka)
        await asyncio.sleep(PAUSE_S)
    return await connect_codec(kafka)


async def measure(sizes: tuple[int, ...]) -> dict[str, Any]:
    """All sizes on one broker, one after the other."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="mplp-bench-") as folder:
        async with EmbeddedKafka(Path(folder)) as broker:
            kafka = Kafka(Settings(kafka_bootstrap=broker.bootstrap))
            await apply_topics(kafka)
            load = Load(kafka, await _codec(kafka))
            owner = await Owner.start(broker.bootstrap)
            await owner.until_ready()
            for events in sizes:
                began, used, before = time.perf_counter(), owner.processor_s(), load.stories
                most = await load.until(events, owner)
                seconds, stories = time.perf_counter() - began, load.stories - before
                used = owner.processor_s() - used
                await owner.kill()
                owner = await Owner.start(broker.bootstrap)
                await owner.until_ready()
                taken = owner.memory_mib()
                figures[f"{events}_events"] = {
                    "memory_most_mib": round(most),
                    "memory_after_takeover_mib": round(taken),
                    **owner.figures,
                    **await answered_s(kafka.settings, load),
                    "events_per_s": round(stories * EVENTS_PER_STORY / seconds),
                    "owner_processor_us_per_event": round(used * 1e6 / (stories * EVENTS_PER_STORY)),
                }
                owner, loaded = await killed_under_load(owner, load, broker.bootstrap)
                figures[f"{events}_events"] |= loaded
                sys.stdout.write(f"{events}: {figures[f'{events}_events']}\n")
                sys.stdout.flush()
            await owner.kill()
    return figures


def main() -> None:
    """Measures and reports; `own BOOTSTRAP` is the owner's process."""
    if sys.argv[1:2] == ["own"]:
        uvloop.run(own(sys.argv[2]))
        return
    sizes = tuple(int(text) for text in sys.argv[1:]) or SIZES
    work = "contexts, plans and dialogs that nobody ends, in one owner of 4 partitions; kill -9 of it at each size"
    report("modules", work, uvloop.run(measure(sizes)), bar="memory bounded, takeover as in S11 (2 s)", durability="page cache")


if __name__ == "__main__":
    main()
