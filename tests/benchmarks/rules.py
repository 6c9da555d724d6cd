"""Rules end to end, through Kafka (S1, S2, S5), with S3 beside them. `python -m tests.benchmarks.rules [s1|s2|s3|s5…]`.

- S1: a topic that is full already is counted per customer in tumbling windows of event time; what reaches the threshold goes back to
  Kafka. The product's worker against Bytewax, Quix Streams and a plain Faust agent with a dict, one after the other on the same topic,
  one process each. The clock runs from the first composite to the last, by the broker's time of what was appended; every window that
  must be found is compared. Twice: composites for one window in twenty, and for every window.
- S2: 1 rule and 1,000 rules of mixed types, 1 % of the events matching.
- S3: distinct count in the engine alone (`rule_engine.py` has all types).
- S5: from an event's `publish` to its composite, at 100 events/s.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import psutil
import uvloop

from infra.kafka import EmbeddedKafka
from schemas import AVRO
from services.processes.runtime import connected
from streams.bus.bus import Bus, connect
from streams.correlation.control import apply
from streams.kafka import Kafka
from streams.records import CompositeEvent, SystemEvent, derived_id, from_micros
from streams.settings import Settings
from streams.topics import COMPOSITES
from streams.topics_apply import apply_topics
from tests.benchmarks import rule_engine
from tests.benchmarks import rules_load as load
from tests.benchmarks.environments import stream_peer
from tests.benchmarks.report import report, summary

EVENTS = 150_000
#: A plain Faust agent is given so long; its rate counts up to where it came.
SLOW_S = 20.0
TIMEOUT_S = 120.0
TOPIC = "bench-orders"
LATENCY_EVENTS, LATENCY_PER_S = 1000, 100
MANY_EVENTS = 100_000


class Processor:
    """Processor time of a process and its children over time, sampled."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._samples: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while not self._over.wait(0.05):
            try:
                spent = [process.cpu_times() for process in (self._process, *self._process.children(recursive=True))]
            except psutil.Error:
                return
            self._samples.append((time.time(), sum(times.user + times.system for times in spent)))

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def between(self, begin_s: float, end_s: float) -> float:
        """Seconds of processor time between two instants."""
        times = [at for at, _ in self._samples]
        first, last = (min(bisect_left(times, at), len(times) - 1) for at in (begin_s, end_s))
        return self._samples[last][1] - self._samples[first][1]


@contextmanager
def running(command: Sequence[str], log: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], Processor]]:
    """A process with its processor time; killed at the end."""
    with log.open("wb") as errors:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=errors)
    processor = Processor(process.pid)
    try:
        yield process, processor
    finally:
        process.kill()
        process.wait()
        processor.stop()


def settings_of(bootstrap: str, prefix: str, folder: Path) -> Settings:
    return Settings(kafka_bootstrap=bootstrap, topic_prefix=prefix, partitions=load.PARTITIONS, data_dir=folder)


def worker(settings: Settings, folder: Path) -> Any:
    """The product's worker process."""
    return running(
        [sys.executable, "-m", "services.processes.worker"], folder / f"{settings.topic_prefix}.log",
        MPLP_KAFKA_BOOTSTRAP=settings.kafka_bootstrap, MPLP_TOPIC_PREFIX=settings.topic_prefix,
        MPLP_PARTITIONS=str(settings.partitions), MPLP_DATA_DIR=str(folder), MPLP_PROCESS_NAME="worker-1",
    )  # fmt: skip


async def prepared(settings: Settings, documents: Sequence[Any]) -> None:
    """Topics and rules of a run of the product."""
    await apply_topics(Kafka(settings))
    async with connect(settings) as bus:
        await apply(bus, documents, who="benchmark")


def count_rule(least: int) -> dict[str, Any]:
    """Judged when the window closes, since it has an upper bound: as the peers do."""
    return {
        "id": "count", "events": {"failed": {"type": "order.failed", "topic": TOPIC}},
        "correlation": {
            "type": "event_count", "events": ["failed"], "group-by": ["data.customer"], "timespan": "10s", "window": "tumbling",
            "grace": "10s", "condition": {"gte": least, "lte": 1_000_000},
        },
    }  # fmt: skip


def judged(found: dict[load.Window, int], times_s: list[float], expected: dict[load.Window, int], processor: Processor) -> dict[str, Any]:
    """What a run found, and how fast."""
    right = sum(found.get(window) == number for window, number in expected.items())
    wrong = sum(expected.get(window, number) != number for window, number in found.items())
    begin_s, end_s = times_s[0], times_s[-1]
    # Those who found all have read all events since the first window was over; who was stopped earlier, its share of them.
    events = (EVENTS - load.LEAD) * right / len(expected)
    return {
        "events_per_s": round(events / (end_s - begin_s)), "cpu_us_each": round(processor.between(begin_s, end_s) / events * 1e6, 1),
        "windows_right": right, "windows_expected": len(expected), "windows_wrong": wrong,
    }  # fmt: skip


async def ours(bootstrap: str, folder: Path, least: int, expected: dict[load.Window, int]) -> dict[str, Any]:
    """S1 of the product."""
    settings = settings_of(bootstrap, f"s1n{least}", folder)
    await prepared(settings, [count_rule(least)])
    kafka = Kafka(settings)
    target = settings.names.physical(COMPOSITES)
    _, codec = await connected(settings)
    with worker(settings, folder) as (process, processor):
        # One fence per partition is in the topic besides.
        await load.wait_for(kafka, target, len(expected) + load.PARTITIONS, TIMEOUT_S, [process])
    found, times_s = {}, []
    for record in await load.read_all(kafka, target):
        composite = codec.decode(record.value)
        if isinstance(composite, CompositeEvent):
            start_ms = round(composite.window_start.timestamp() * 1000)
            found[composite.group_key["data.customer"], start_ms] = composite.event_count
            times_s.append(record.timestamp / 1000)
    return judged(found, sorted(times_s), expected, processor)


async def peer(bootstrap: str, folder: Path, name: str, least: int, expected: dict[load.Window, int]) -> dict[str, Any]:
    """S1 of a peer."""
    kafka, target = Kafka(Settings(kafka_bootstrap=bootstrap)), f"{TOPIC}-{name}-{least}"
    await load.create(kafka, target)
    schema = folder / "SystemEvent.avsc"
    schema.write_text((AVRO / "SystemEvent.avsc").read_text().replace('"logicalType": "timestamp-micros"', '"doc": "microseconds"'))
    numbers = (least, load.WINDOW_US // 1000, load.GRACE_US // 1000)
    command = [*stream_peer(name), bootstrap, TOPIC, target, str(schema), *map(str, numbers)]
    slow = name == "faust"
    with running(command, folder / f"{name}.log") as (process, processor):
        await load.wait_for(kafka, target, len(expected), SLOW_S if slow else TIMEOUT_S, [] if slow else [process])
        records = sorted(await load.read_all(kafka, target), key=lambda record: record.timestamp)
    if not records:
        raise RuntimeError(f"{name} found nothing:\n{(folder / f'{name}.log').read_text()[-3000:]}")
    found, times_s = {}, []
    for record in records:
        content = orjson.loads(record.value)
        window = (content["customer"], content["start_ms"])
        found[window] = content["count"]
        if window in expected:  # a peer that ends says what the end of the topic cuts off, too
            times_s.append(record.timestamp / 1000)
    return judged({window: count for window, count in found.items() if window in expected}, times_s, expected, processor)


async def s1(bootstrap: str, folder: Path, codec: Any, peers: Sequence[str] = ("bytewax", "quix", "faust")) -> None:
    kafka, begin_us = Kafka(Settings(kafka_bootstrap=bootstrap)), load.begin_us()
    await load.create(kafka, TOPIC)
    await load.fill(kafka, codec, TOPIC, load.orders(EVENTS, begin_us))
    for least, work in ((load.THRESHOLD, "composites for one window in twenty"), (1, "a composite for every window")):
        expected = load.windows(EVENTS, begin_us, least)
        figures: dict[str, Any] = {"product": await ours(bootstrap, folder, least, expected)}
        for name in peers if least > 1 else [name for name in peers if name != "faust"]:  # too slow to be asked twice
            figures[name] = await peer(bootstrap, folder, name, least, expected)
            figures[f"ratio_{name}"] = round(figures["product"]["events_per_s"] / figures[name]["events_per_s"], 2)
        report(
            "S1", f"{EVENTS} events of {load.CUSTOMERS} customers counted in windows of event time, {work}", figures,
            bar="1.5 x Bytewax, 3 x Quix Streams, 10 x a plain Faust agent",
            durability="acknowledged in the page cache; peers as in peers/",
        )  # fmt: skip


def many_events(rules: int) -> Iterator[SystemEvent]:
    """1 % of the events match one of the rules; marks begin and end every partition."""
    begin_us = load.begin_us()
    keys = [next(key for number in range(1000) if load.partition_of(key := f"mark-{number}", load.PARTITIONS) == partition)
            for partition in range(load.PARTITIONS)]  # fmt: skip
    for key in keys:
        yield SystemEvent(
            id=derived_id("begin", key), type="bench.mark", subject=key, time=from_micros(begin_us), data={"at": f"begin {key}"}
        )
    for number, view in enumerate(rule_engine.views(MANY_EVENTS, rules)):
        plain = view.plain
        yield SystemEvent(
            id=derived_id("many", number), type=plain["type"], source="bench", subject=f"subject-{number}",
            time=from_micros(begin_us + number * 1000), data=orjson.loads(plain["data"]),
        )  # fmt: skip
    for key in keys:
        yield SystemEvent(id=derived_id("end", key), type="bench.mark", subject=key, time=from_micros(begin_us), data={"at": f"end {key}"})


def mark_rule(topic: str) -> dict[str, Any]:
    return {
        "id": "mark", "events": {"mark": {"type": "bench.mark", "topic": topic}},
        "correlation": {
            "type": "event_count", "events": ["mark"], "group-by": ["data.at"], "timespan": "1d", "grace": "7d", "condition": {"gte": 1},
        },
    }  # fmt: skip


async def many(bootstrap: str, folder: Path, codec: Any, count: int) -> dict[str, Any]:
    """S2 with `count` rules, from the first mark's composite to the last one's."""
    settings, topic = settings_of(bootstrap, f"s2n{count}", folder), f"{TOPIC}-many-{count}"
    kafka = Kafka(settings)
    await load.create(kafka, topic)
    await load.fill(kafka, codec, topic, many_events(count + 2))
    documents = [rule_engine.mixed(number + 2, topic) for number in range(count)]
    await prepared(settings, [*documents, mark_rule(topic)])
    target, times_s = settings.names.physical(COMPOSITES), list[float]()
    until = time.monotonic() + TIMEOUT_S
    with worker(settings, folder) as (_, processor):
        while len(times_s) < 2 * load.PARTITIONS and time.monotonic() < until:
            await asyncio.sleep(0.3)
            said = [(record, codec.decode(record.value)) for record in await load.read_all(kafka, target)]
            times_s = sorted(
                record.timestamp / 1000 for record, found in said if isinstance(found, CompositeEvent) and found.rule_id == "mark"
            )
    begin_s, end_s = times_s[0], times_s[-1]
    cpu_us = round(processor.between(begin_s, end_s) / MANY_EVENTS * 1e6, 1)
    return {"events_per_s": round(MANY_EVENTS / (end_s - begin_s)), "cpu_us_each": cpu_us, "composites": len(said)}


async def s2(bootstrap: str, folder: Path, codec: Any) -> None:
    one, thousand = [await many(bootstrap, folder, codec, count) for count in (1, 1000)]
    report(
        "S2", f"{MANY_EVENTS} events, 1 % of them matching, 1 and 1,000 rules of mixed types",
        {"one": one, "thousand": thousand, "share": round(thousand["events_per_s"] / one["events_per_s"], 2)},
        bar="1/3 of the rate with one rule; aim the rate with one rule", durability="acknowledged in the page cache",
    )  # fmt: skip


async def s5(bootstrap: str, folder: Path) -> None:
    settings = settings_of(bootstrap, "s5", folder)
    rule = {
        "id": "each", "events": {"failed": {"type": "order.failed"}},
        "correlation": {"type": "event_count", "events": ["failed"], "group-by": ["data.order"], "timespan": "1m", "condition": {"gte": 1}},
    }  # fmt: skip
    await prepared(settings, [rule])
    with worker(settings, folder) as (_, processor):
        async with connect(settings) as bus:
            latencies_ms = await _latencies(bus)
        end_s = time.time()
        cpu_ms = processor.between(end_s - LATENCY_EVENTS / LATENCY_PER_S, end_s) * 1000 / LATENCY_EVENTS
    report(
        "S5", f"event published to composite consumed, {LATENCY_PER_S} events/s",
        {"ms": summary(latencies_ms), "worker_cpu_ms_each": round(cpu_ms, 2)},
        bar="p50 10 ms, p99 40 ms; aim 5 and 15", durability="acknowledged in the page cache",
    )  # fmt: skip


async def _latencies(bus: Bus) -> list[float]:
    sent: dict[str, float] = {}
    latencies_ms: dict[str, float] = {}
    warm = LATENCY_PER_S * 3
    working = asyncio.Event()  # the worker has started

    async def consume() -> None:
        async for delivered in bus.subscribe(COMPOSITES, since="beginning"):
            said: Any = delivered
            latencies_ms[said.event_ids[0]] = (time.perf_counter() - sent[said.event_ids[0]]) * 1000
            working.set()
            if len(latencies_ms) == 1 + warm + LATENCY_EVENTS:
                return

    consumer = asyncio.create_task(consume())
    first = SystemEvent(type="order.failed", source="shop", subject="first", data={"order": -1})
    sent[first.id] = time.perf_counter()
    await bus.publish(first)
    async with asyncio.timeout(TIMEOUT_S):
        await working.wait()
    begin, sending = time.perf_counter(), []
    for number in range(warm + LATENCY_EVENTS):
        await asyncio.sleep(max(0.0, begin + number / LATENCY_PER_S - time.perf_counter()))
        event = SystemEvent(type="order.failed", source="shop", subject=f"order-{number}", data={"order": number})
        sent[event.id] = time.perf_counter()
        sending.append(asyncio.create_task(bus.publish(event)))
    await asyncio.gather(*sending)
    async with asyncio.timeout(TIMEOUT_S):
        await consumer
    return [latencies_ms[event_id] for event_id in sent][1 + warm :]


def s3() -> None:
    report(
        "S3", "distinct count, 1,800 values in the window, the rule engine alone",
        {label: round(rate) for label, rate in rule_engine.distinct()},
        bar="57,000/s (RSigma's published figure); aim 5 x that", durability="none: in memory",
    )  # fmt: skip


async def measure(wanted: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="mplp-bench-") as name:
        folder = Path(name)
        async with EmbeddedKafka(folder / "kafka") as broker:
            settings = settings_of(broker.bootstrap, "bench", folder)
            await apply_topics(Kafka(settings))
            _, codec = await connected(settings)
            if "s1" in wanted:
                await s1(broker.bootstrap, folder, codec)
            if "s2" in wanted:
                await s2(broker.bootstrap, folder, codec)
            if "s5" in wanted:
                await s5(broker.bootstrap, folder)


def main() -> None:
    """Measures and reports."""
    wanted = sys.argv[1:] or ["s1", "s2", "s3", "s5"]
    if "s3" in wanted:
        s3()
    uvloop.run(measure(wanted))


if __name__ == "__main__":
    main()
