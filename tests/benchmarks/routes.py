"""Routes through Kafka (S4), and handlers by key (the Parallel Consumer case). `python -m tests.benchmarks.routes [s4|keyed…]`.

- S4: a topic is filled, then one worker starts: each event passes a filter, is transformed (set, rename, drop) and delivered to three
  topics by three routes, each delivery tracked in `mplp.deliveries`. The clock runs from the first event that arrived to the last, by
  the broker's time of what was appended; every event must have arrived by every route, once.
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
from services.processes.runtime import connected
from streams.bus.bus import connect
from streams.kafka import Kafka
from streams.records import SystemEvent, derived_id
from streams.routing import control
from streams.topics import DELIVERIES
from streams.topics_apply import WantedTopic, apply_topics, create_topics
from tests.benchmarks import rules_load as load
from tests.benchmarks.report import report
from tests.benchmarks.rules import settings_of, worker

EVENTS = 100_000
TIMEOUT_S = 180.0
SOURCE = "bench-routed"
DESTINATIONS = ("bench-billing", "bench-audit", "bench-search")
KEYED_RECORDS, WORK_S, KEYS = 10_000, 0.0025, (20, 100)


def events() -> Iterator[SystemEvent]:
    for number in range(EVENTS):
        data = {"total": number % 1000, "cust": f"customer-{number % 997}", "secret": "x" * 20, "number": number, "note": "paid in full"}
        yield SystemEvent(
            id=derived_id("bench-routed", number), type="order.paid", source="bench", subject=f"order-{number % 5000}", data=data
        )


def routes() -> list[dict[str, Any]]:
    return [
        {
            "id": topic, "match": {"topic": SOURCE, "type": "order.*"}, "filters": ["!has(data.test)"],
            "transforms": [
                {"set": {"data.currency": '"EUR"', "data.cents": "data.total * 100"}}, {"rename": {"data.cust": "data.customer"}},
                {"drop": ["data.secret"]},
            ],
            "destination": {"topic": topic},
        }
        for topic in DESTINATIONS
    ]  # fmt: skip


async def s4(bootstrap: str, folder: Path, codec: Any) -> None:
    settings = settings_of(bootstrap, "routed", folder)
    kafka = Kafka(settings)
    await apply_topics(kafka)
    await load.create(kafka, SOURCE, *DESTINATIONS)
    async with connect(settings) as bus:
        await control.apply(bus, routes(), who="benchmark")
    await load.fill(kafka, codec, SOURCE, events())
    with worker(settings, folder) as (process, processor):
        for topic in DESTINATIONS:
            await load.wait_for(kafka, topic, EVENTS, TIMEOUT_S, [process])
        await load.wait_for(kafka, settings.names.physical(DELIVERIES), 3 * EVENTS, TIMEOUT_S, [process])
        found = {topic: await load.read_all(kafka, topic) for topic in DESTINATIONS}
        times_s = [record.timestamp / 1000 for records in found.values() for record in records]
        spent_s = processor.between(min(times_s), max(times_s))
    arrived = {topic: [codec.decode(record.value).causation_id for record in records] for topic, records in found.items()}
    wanted = {derived_id("bench-routed", number) for number in range(EVENTS)}
    elapsed_s = max(times_s) - min(times_s)
    report(
        "S4", f"{EVENTS:,} events, each filtered, transformed and delivered by three routes, tracked; one worker",
        {
            "events_per_s": round(EVENTS / elapsed_s), "deliveries_per_s": round(3 * EVENTS / elapsed_s), "seconds": round(elapsed_s, 2),
            "processor_seconds": round(spent_s, 2), "complete": all(set(ids) == wanted for ids in arrived.values()),
            "twice": sum(len(ids) - len(set(ids)) for ids in arrived.values()),
        },
        bar="20,000 events/s per worker; aim 60,000", durability="as Kafka is by default (page cache)",
    )  # fmt: skip


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
            if "keyed" in wanted:
                await keyed(broker.bootstrap, folder)


def main() -> None:
    """Measures and reports."""
    uvloop.run(measure(sys.argv[1:] or ["s4", "keyed"]))


if __name__ == "__main__":
    main()
