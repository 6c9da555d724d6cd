"""Routes with many parked events: memory, what is shown of them, a takeover, and what comes out.

`python -m tests.benchmarks.parked [EVENTS [KEYS [SECONDS]]]`: `EVENTS` events (1,000,000) of `KEYS` keys (1,000) go to a webhook that
refuses those keys; events of other keys come all the time, 50 a second, and the webhook takes them. So everything of the former keys is
parked: first a tenth of it, then all (the first event of each key comes among the others: many keys that fail one after the other, and no
success between, are a destination that is down). Then the worker is killed, another one takes over, and the webhook takes everything. By
then each key's events must arrive in their order, none left out; the rest is not waited for longer than SECONDS (1,800). Memory is the
worker's resident set, the most of samples twenty times a second.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import psutil
import uvloop

from infra.kafka import EmbeddedKafka
from services.processes.runtime import connected
from streams.bus.bus import Bus, connect
from streams.kafka import Kafka
from streams.records import SystemEvent, derived_id
from streams.routing import control
from streams.routing.parked import parked, states
from streams.settings import Settings
from streams.topics_apply import apply_topics
from tests.benchmarks import rules_load as load
from tests.benchmarks.report import report, summary
from tests.benchmarks.rules import settings_of, worker
from tests.unit.streams.webhooks.receiver import Request, answer, receiver

EVENTS, KEYS, DRAIN_S = 1_000_000, 1000, 1800
SOURCE = "bench-parked"
HEALTHY_PER_S = 50
RETRY = {"max-retries": 1000, "backoff-strategy": "fixed", "initial-interval": "60s", "max-interval": "60s"}
TIMEOUT_S = 1800.0
MIB = 1024 * 1024


class Resident:
    """The most memory that a process and its children took since the last look, MiB."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while not self._over.wait(0.05):
            try:
                taken = [each.memory_info().rss for each in (self._process, *self._process.children(recursive=True))]
            except psutil.Error:
                return
            self._most = max(self._most, sum(taken))

    def most(self) -> int:
        """See the class."""
        most, self._most = self._most, 0
        return round(most / MIB)

    def stop(self) -> None:
        """Ends sampling."""
        self._over.set()
        self._thread.join()


class Webhook:
    """Refuses the sick keys until it is well."""

    def __init__(self) -> None:
        self.well = False
        self.calls = 0
        self.arrived: dict[int, list[int]] = defaultdict(list)  # sick key → numbers
        self.taken = 0
        self.healthy_ms: list[float] = []
        self.requests: list[Request] = []  # what the receiver remembers

    async def take(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """One call."""
        self.calls += 1
        self.requests.clear()
        data = orjson.loads(request.body)["data"]
        if "key" not in data:
            self.healthy_ms.append((time.time() - data["sent"]) * 1000)
        elif self.well:
            self.arrived[data["key"]].append(data["number"])
            self.taken += 1
        await answer(204 if self.well or "key" not in data else 500)(request, writer)

    def latency(self) -> dict[str, float]:
        """Of the healthy keys since the last look, from the call of `publish`, ms."""
        found, self.healthy_ms = self.healthy_ms, []
        return summary(found) if found else {}


def sick(first: int, end: int, keys: int) -> Iterator[SystemEvent]:
    """Events of the keys that are refused."""
    for number in range(first, end):
        data = {"key": number % keys, "number": number, "note": "x" * 100}
        yield SystemEvent(
            id=derived_id("bench-parked", number), type="order.paid", source="bench", subject=f"sick-{number % keys}", data=data
        )


@asynccontextmanager
async def flowing(bus: Bus) -> AsyncIterator[None]:
    """Events of healthy keys, until the end of the block."""

    async def flow() -> None:
        for number in range(sys.maxsize):
            data = {"sent": time.time()}
            await bus.publish(SystemEvent(type="order.paid", source="bench", subject=f"well-{number % 997}", data=data), SOURCE)
            await asyncio.sleep(1 / HEALTHY_PER_S)

    task = asyncio.create_task(flow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def waiting(bus: Bus) -> int:
    """Records that the route has looked at and not settled, as the worker has written it down."""
    return sum(entry[1] for state in await states(bus, "parked") for entry in state.state["keys"].values())


async def until_waiting(bus: Bus, count: int, process: Any) -> float:
    """Seconds until so many wait."""
    began = time.monotonic()
    async with asyncio.timeout(TIMEOUT_S):
        while await waiting(bus) < count:
            if process.poll() is not None:
                raise RuntimeError("the worker has ended")
            await asyncio.sleep(1.0)
    return round(time.monotonic() - began, 1)


async def seen(bus: Bus) -> dict[str, Any]:
    """What `mplp routes parked` shows, and how long it takes to find it."""
    began = time.monotonic()
    found = await parked(bus, "parked")
    return {"keys": len(found), "waiting": sum(each.waiting for each in found), "seconds": round(time.monotonic() - began, 2)}


async def stages(
    settings: Settings, folder: Path, codec: Any, hook: Webhook, events: int, keys: int, drain_s: int
) -> dict[str, Any]:  # fmt: skip
    """All that is measured, stage by stage."""
    figures: dict[str, Any] = {}
    kafka = Kafka(settings)
    async with connect(settings) as bus, flowing(bus):
        with worker(settings, folder) as (process, _):
            resident = Resident(process.pid)
            await asyncio.sleep(10.0)
            resident.most(), hook.latency()
            for first in range(keys):
                await load.fill(kafka, codec, SOURCE, sick(first, first + 1, keys))
                await asyncio.sleep(1 / HEALTHY_PER_S)
            figures["before"] = {"mib": resident.most(), "healthy_ms": hook.latency()}
            filled = keys
            for count in (events // 10, events):
                await load.fill(kafka, codec, SOURCE, sick(filled, count, keys))
                filled = count
                seconds = await until_waiting(bus, count, process)
                looking, _ = resident.most(), hook.latency()
                await asyncio.sleep(20.0)
                figures[f"{count}_parked"] = {
                    "looked_at_s": seconds, "mib_looking": looking, "mib": resident.most(), "healthy_ms": hook.latency(), **await seen(bus),
                }  # fmt: skip
            process.kill()
            resident.stop()
        hook.healthy_ms.clear()
        began = time.monotonic()
        with worker(settings, folder) as (process, _):
            resident = Resident(process.pid)
            while not hook.healthy_ms:
                await asyncio.sleep(0.1)
            figures["takeover"] = {"s": round(time.monotonic() - began, 1)}
            await asyncio.sleep(20.0)
            figures["takeover"] |= {"mib": resident.most(), **await seen(bus)}
            hook.latency()
            hook.well, began, calls = True, time.monotonic(), hook.calls
            until = began + drain_s
            while hook.taken < events and time.monotonic() < until and process.poll() is None:
                await asyncio.sleep(1.0)
                sys.stderr.write(f"\r{hook.taken} of {events}")
            seconds = time.monotonic() - began
            figures["well_again"] = {
                "seconds": round(seconds, 1), "calls_per_s": round((hook.calls - calls) / seconds), "mib": resident.most(),
                "arrived": hook.taken, "complete": sorted(n for each in hook.arrived.values() for n in set(each)) == list(range(events)),
                "in_order": all(each == sorted(each) for each in hook.arrived.values()), "twice": hook.taken - len({
                    number for each in hook.arrived.values() for number in each
                }), "healthy_ms": hook.latency(),
            }  # fmt: skip
            resident.stop()
    return figures


async def measure(events: int, keys: int, drain_s: int) -> None:
    with tempfile.TemporaryDirectory(prefix="mplp-bench-") as name:
        folder = Path(name)
        hook = Webhook()
        async with EmbeddedKafka(folder / "kafka") as broker, receiver(hook.take) as server:
            hook.requests = server.requests
            settings = settings_of(broker.bootstrap, "bench", folder)
            await apply_topics(Kafka(settings))
            _, codec = await connected(settings)
            await load.create(Kafka(settings), SOURCE)
            destination = {"webhook": f"http://127.0.0.1:{server.port}/"}
            async with connect(settings) as bus:
                route = {"id": "parked", "match": {"topic": SOURCE, "type": "order.*"}, "destination": destination, "retry": RETRY}
                await control.apply(bus, [route], who="benchmark")
            figures = await stages(settings, folder, codec, hook, events, keys, drain_s)
    report(
        "routes-parked", f"{events:,} events of {keys:,} keys that a webhook refuses, parked, taken over and delivered at last", figures,
        bar="bounded memory with a million parked events; in order", durability="as Kafka is by default (page cache)",
    )  # fmt: skip


def main() -> None:
    """Measures and reports."""
    given = [int(text) for text in sys.argv[1:]]
    uvloop.run(measure(*(given + [EVENTS, KEYS, DRAIN_S][len(given) :])))


if __name__ == "__main__":
    main()
