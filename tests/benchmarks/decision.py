"""S8: one orchestration decision, from its input at hand to its transitions acknowledged, on a real broker; plain appends beside it.

`python -m tests.benchmarks.decision`. The host runs in this process with the machines of the core; the peer is what the decision cannot
do without: one acknowledged append of an idempotent producer on the same broker, in the same run.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import uvloop
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from infra.kafka import EmbeddedKafka
from streams import topics
from streams.codec.avro import Codec, headers_of
from streams.codec.registry import connect_codec
from streams.kafka import Kafka
from streams.log.host import Host
from streams.settings import Settings
from streams.testing.toys import EchoMachine, FlowMachine, start
from streams.topics_apply import apply_topics
from tests.benchmarks.report import report, summary

WARM, RUNS = 100, 500


class Latencies:
    """Keeps what the host observes."""

    def __init__(self) -> None:
        self.ms: list[float] = []

    def decided(self, machine: str, events: int, latency_us: int) -> None:
        """See `Observer.decided`; only decisions with events count."""
        if events and machine == "workflow":
            self.ms.append(latency_us / 1000)


async def decisions(kafka: Kafka, codec: Codec, observed: Latencies, count: int, prefix: str) -> None:
    """Starts `count` flows one after another, 5 ms apart."""
    async with kafka.producer() as producer:
        for number in range(count):
            command = start(f"{prefix}-{number}")
            key, value = command.subject.encode(), codec.encode(command)
            await producer.send_and_wait(kafka.names.physical(topics.COMMANDS), key=key, value=value, headers=headers_of(command))
            await asyncio.sleep(0.005)
    async with asyncio.timeout(30):
        while len(observed.ms) < 2 * count:
            await asyncio.sleep(0.05)


async def appends(kafka: Kafka, codec: Codec, count: int) -> list[float]:
    """Milliseconds of plain acknowledged appends of one record to a log topic."""
    value = codec.encode(start("append"))
    found = []
    async with kafka.producer() as producer:
        for _ in range(count):
            began = time.perf_counter()
            await producer.send_and_wait(kafka.names.physical(topics.DELIVERIES), key=b"append", value=value)
            found.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(0.005)
    return found


async def measure(flushed: bool) -> dict[str, object]:
    """One run on a fresh broker."""
    with tempfile.TemporaryDirectory(prefix="mplp-bench-") as folder:
        async with EmbeddedKafka(Path(folder)) as broker:
            kafka = Kafka(Settings(kafka_bootstrap=broker.bootstrap))
            await apply_topics(kafka)
            if flushed:
                async with kafka.admin() as admin:
                    for topic in (topics.TRANSITIONS, topics.MESSAGES, topics.DELIVERIES):
                        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"flush.messages": "1"})])
            codec = await connect_codec(kafka)
            observed = Latencies()
            host = Host(kafka, codec, [FlowMachine(), EchoMachine()], name="core-1", group="bench", observer=observed)
            running = asyncio.create_task(host.run())
            await host.wait_ready()
            await decisions(kafka, codec, observed, WARM, "warm")
            observed.ms.clear()
            await decisions(kafka, codec, observed, RUNS, "run")
            plain = await appends(kafka, codec, RUNS)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    ours, theirs = summary(observed.ms), summary(plain)
    return {"decision_ms": ours, "plain_append_ms": theirs, "ratio": round(ours["p50"] / theirs["p50"], 2)}


def main() -> None:
    """Measures with and without flushing."""
    for flushed, durability in ((False, "acknowledged in the page cache"), (True, "forced to disk per append")):
        figures = uvloop.run(measure(flushed))
        name = "S8-flushed" if flushed else "S8-default"
        report(name, "input at hand to transitions acknowledged, 500 flows", figures, bar="p50 5 ms, aim 2 ms", durability=durability)


if __name__ == "__main__":
    main()
