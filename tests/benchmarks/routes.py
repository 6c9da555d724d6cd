"""Routes through Kafka (S4), and handlers by key (the Parallel Consumer case). `python -m tests.benchmarks.routes [s4|latency|keyed…]`.

- S4: a topic is filled, then one worker starts: each event passes a filter, is transformed (set, rename, drop) and delivered to three
  topics by three routes, each delivery tracked in `mplp.deliveries`. The clock runs from the first event that arrived to the last, by
  the broker's time of what was appended; every event must have arrived by every route, once. Twice: three routes that filter and
  transform alike, and three that each do it in their own way. Bytewax, Quix Streams and a plain Faust agent do the same in plain Python,
  once for all three topics, and track nothing.
- latency: from an event's `publish` until a route to a topic has delivered it, at 100 events/s.
- keyed: 10,000 records in one partition, 2.5 ms of work each, as Parallel Consumer's own yardstick: 22.2 s one after the other, 2.1 s
  there with at least 20 keys (published figures, another machine). Order per key is checked; dead letters and retries are on.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import uvloop

from infra.kafka import EmbeddedKafka
from schemas import AVRO
from services.processes.runtime import connected
from streams.bus.bus import Bus, connect
from streams.kafka import Kafka
from streams.records import SystemEvent, derived_id
from streams.routing import control
from streams.settings import Settings
from streams.topics import DELIVERIES
from streams.topics_apply import WantedTopic, apply_topics, create_topics
from tests.benchmarks import rules_load as load
from tests.benchmarks.environments import stream_peer
from tests.benchmarks.report import report, summary
from tests.benchmarks.rules import Processor, running, settings_of, worker

EVENTS = 60_000
TIMEOUT_S = 180.0
#: A peer is given so long.
SLOW_S = 60.0
LATENCY_EVENTS, LATENCY_PER_S = 1000, 100
SOURCE = "bench-routed"
DESTINATIONS = ("bench-billing", "bench-audit", "bench-search")
KEYED_RECORDS, WORK_S, KEYS = 10_000, 0.0025, (20, 100)


def events() -> Iterator[SystemEvent]:
    for number in range(EVENTS):
        data = {"total": number % 1000, "cust": f"customer-{number % 997}", "secret": "x" * 20, "number": number, "note": "paid in full"}
        yield SystemEvent(
            id=derived_id("bench-routed", number), type="order.paid", source="bench", subject=f"order-{number % 5000}", data=data
        )


def routes(*, alike: bool) -> list[dict[str, Any]]:
    return [
        {
            "id": topic, "match": {"topic": SOURCE, "type": "order.*"}, "filters": ["!has(data.test)"],
            "transforms": [
                {"set": {"data.currency": '"EUR"', "data.cents": f"data.total * {100 if alike else 100 + number}"}},
                {"rename": {"data.cust": "data.customer"}}, {"drop": ["data.secret"]},
            ],
            "destination": {"topic": topic},
        }
        for number, topic in enumerate(DESTINATIONS)
    ]  # fmt: skip


async def s4(bootstrap: str, folder: Path, codec: Any, peers: Sequence[str] = ("bytewax", "quix", "faust")) -> None:
    kafka = Kafka(Settings(kafka_bootstrap=bootstrap))
    await load.create(kafka, SOURCE)
    applied = [await applied_routes(bootstrap, folder, alike=alike) for alike in (True, False)]
    await load.fill(kafka, codec, SOURCE, events())
    figures: dict[str, Any] = {}
    for name, settings in zip(("product", "product_each_its_own"), applied, strict=True):
        figures[name] = await ours(settings, folder, codec)
    for name in peers:
        figures[name] = await peer(bootstrap, folder, codec, name)
        figures[f"ratio_{name}"] = round(figures["product"]["events_per_s"] / figures[name]["events_per_s"], 1)
    report(
        "S4", f"{EVENTS:,} events, each filtered, transformed and delivered to three topics, tracked; one worker", figures,
        bar="20,000 events/s per worker; aim 60,000", durability="as Kafka is by default (page cache); peers as in peers/",
    )  # fmt: skip


async def applied_routes(bootstrap: str, folder: Path, *, alike: bool) -> Settings:
    """Topics and routes of a run of the product, in force before the events come."""
    settings = settings_of(bootstrap, "routed" if alike else "routed-own", folder)
    await apply_topics(Kafka(settings))
    async with connect(settings) as bus:
        await control.apply(bus, routes(alike=alike), who="benchmark")
    return settings


async def ours(settings: Settings, folder: Path, codec: Any) -> dict[str, Any]:
    """S4 of the product."""
    kafka = Kafka(settings)
    await empty(kafka)
    with worker(settings, folder) as (process, processor):
        for topic in DESTINATIONS:
            await load.wait_for(kafka, topic, EVENTS, TIMEOUT_S, [process])
        await load.wait_for(kafka, settings.names.physical(DELIVERIES), 3 * EVENTS, TIMEOUT_S, [process])
        return await arrived(kafka, codec, processor)


async def peer(bootstrap: str, folder: Path, codec: Any, name: str) -> dict[str, Any]:
    """S4 of a peer; one that is slow is stopped, and judged by what it did."""
    kafka = Kafka(Settings(kafka_bootstrap=bootstrap))
    await empty(kafka)
    schema = folder / "SystemEvent.avsc"
    schema.write_text((AVRO / "SystemEvent.avsc").read_text().replace('"logicalType": "timestamp-micros"', '"doc": "microseconds"'))
    command = [*stream_peer(name, "route"), bootstrap, SOURCE, str(schema), *DESTINATIONS]
    with running(command, folder / f"{name}.log") as (_, processor):
        until = time.monotonic() + SLOW_S
        for topic in DESTINATIONS:
            await load.wait_for(kafka, topic, EVENTS, until - time.monotonic())
        found = await arrived(kafka, codec, processor)
    if not found["events"]:
        raise RuntimeError(f"{name} delivered nothing:\n{(folder / f'{name}.log').read_text()[-3000:]}")
    return found


async def empty(kafka: Kafka) -> None:
    """The destinations, made anew."""
    async with kafka.admin() as admin:
        there = [topic for topic in DESTINATIONS if topic in await admin.list_topics()]
        if there:
            await admin.delete_topics(there)
            while set(await admin.list_topics()) & set(DESTINATIONS):
                await asyncio.sleep(0.1)
    await load.create(kafka, *DESTINATIONS)


async def arrived(kafka: Kafka, codec: Any, processor: Processor) -> dict[str, Any]:
    """What arrived, and how fast."""
    found = {topic: await load.read_all(kafka, topic) for topic in DESTINATIONS}
    times_s = [record.timestamp / 1000 for records in found.values() for record in records]
    if not times_s:
        return {"events": 0}
    begin_s, end_s = min(times_s), max(times_s)
    ids = {topic: [codec.decode(record.value).causation_id for record in records] for topic, records in found.items()}
    events = sum(map(len, ids.values())) / len(DESTINATIONS)
    twice = sum(len(each) - len(set(each)) for each in ids.values())
    return {
        "events": round(events), "events_per_s": round(events / (end_s - begin_s)), "seconds": round(end_s - begin_s, 2),
        "cpu_us_each": round(processor.between(begin_s, end_s) / events * 1e6, 1),
        "complete": all(len(set(each)) == EVENTS for each in ids.values()), "twice": twice,
    }  # fmt: skip


async def latency(bootstrap: str, folder: Path) -> None:
    settings = settings_of(bootstrap, "latency", folder)
    kafka = Kafka(settings)
    await apply_topics(kafka)
    target = "bench-latency"
    await load.create(kafka, target)
    async with connect(settings) as bus:
        await control.apply(bus, [{"id": "latency", "match": {"type": "order.*"}, "destination": {"topic": target}}], who="benchmark")
        with worker(settings, folder) as (process, _):
            latencies_ms = await _latencies(bus, target, process)
    report(
        "route-latency", f"event published to event delivered by a route to a topic, {LATENCY_PER_S} events/s",
        {"ms": summary(latencies_ms)}, bar="as S5: p50 10 ms, p99 40 ms", durability="as Kafka is by default (page cache)",
    )  # fmt: skip


async def _latencies(bus: Bus, target: str, process: Any) -> list[float]:
    sent: dict[str, float] = {}
    took_ms: dict[str, float] = {}
    warm, working = 3 * LATENCY_PER_S, asyncio.Event()

    async def consume() -> None:
        async for delivered in bus.subscribe(target, since="beginning"):
            said: Any = delivered
            took_ms[said.causation_id] = (time.perf_counter() - sent[said.causation_id]) * 1000
            working.set()
            if len(took_ms) == 1 + warm + LATENCY_EVENTS:
                return

    consumer = asyncio.create_task(consume())
    sending: list[asyncio.Task[Any]] = []

    def send(number: int) -> None:
        event = SystemEvent(type="order.paid", source="bench", subject=f"order-{number % 50}", data={"number": number})
        sent[event.id] = time.perf_counter()
        sending.append(asyncio.create_task(bus.publish(event)))

    send(-1)
    async with asyncio.timeout(TIMEOUT_S):
        while not working.is_set() and process.poll() is None:
            await asyncio.sleep(0.1)
        begin = time.perf_counter()
        for number in range(warm + LATENCY_EVENTS):
            await asyncio.sleep(max(0.0, begin + number / LATENCY_PER_S - time.perf_counter()))
            send(number)
        await asyncio.gather(*sending)
        await consumer
    return [took_ms[event_id] for event_id in sent][1 + warm :]


async def keyed(bootstrap: str, folder: Path) -> None:
    figures: dict[str, Any] = {}
    for keys in KEYS:
        settings = settings_of(bootstrap, f"keyed{keys}", folder)
        kafka = Kafka(settings)
        await apply_topics(kafka)
        topic = f"bench-keyed-{keys}"
        async with kafka.admin() as admin:
            await create_topics(admin, [WantedTopic(name=topic, partitions=1, replication=1, config={})])
        async with connect(settings) as bus:
            await bus.publish([SystemEvent(type="work", subject=f"k{n % keys}", data={"n": n}) for n in range(KEYED_RECORDS)], topic)
            seen: dict[str, list[int]] = defaultdict(list)
            done = asyncio.Event()
            times: list[float] = []

            async def work(event: SystemEvent, seen: Any = seen, done: Any = done, times: Any = times) -> None:
                times.append(time.monotonic())
                await asyncio.sleep(WORK_S)
                seen[event.subject].append(event.data["n"])
                if sum(map(len, seen.values())) == KEYED_RECORDS:
                    done.set()

            policy = {"max-retries": 3, "initial-interval": "1s"}
            handling = asyncio.create_task(
                bus.handle(topic, group="bench", handler=work, since="beginning", concurrency=keys, retry=policy)
            )
            async with asyncio.timeout(TIMEOUT_S):
                await done.wait()
            figures[f"seconds_{keys}_keys"] = round(time.monotonic() - times[0], 2)
            figures[f"in_order_{keys}_keys"] = all(numbers == sorted(numbers) for numbers in seen.values())
            handling.cancel()
            await asyncio.gather(handling, return_exceptions=True)
    report(
        "keyed-handlers", f"{KEYED_RECORDS:,} records of one partition, {WORK_S * 1000:g} ms of work each, side by side by key",
        figures, bar="3 s or less with at least 20 keys", durability="as Kafka is by default (page cache)",
    )  # fmt: skip


async def measure(wanted: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="mplp-bench-") as name:
        folder = Path(name)
        async with EmbeddedKafka(folder / "kafka") as broker:
            settings = settings_of(broker.bootstrap, "bench", folder)
            await apply_topics(Kafka(settings))
            _, codec = await connected(settings)
            if "s4" in wanted:
                await s4(broker.bootstrap, folder, codec)
            if "latency" in wanted:
                await latency(broker.bootstrap, folder)
            if "keyed" in wanted:
                await keyed(broker.bootstrap, folder)


def main() -> None:
    """Measures and reports."""
    uvloop.run(measure(sys.argv[1:] or ["s4", "latency", "keyed"]))


if __name__ == "__main__":
    main()
