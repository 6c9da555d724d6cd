"""S6, S7 (built-in modules) and S13: three-step workflows against DBOS on SQLite, and what starting everything costs.

`python -m tests.benchmarks.workflow`. The client of ours is another process than the core and waits for the last record of each
execution in the log; DBOS runs in the client's own process. Twice: as Kafka is by default (acknowledged in the page cache) and with
`flush.messages=1` (each append is forced to disk before it is acknowledged).
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams import connect, topics
from streams.bus import Bus
from streams.kafka import Kafka
from streams.settings import Settings
from tests.benchmarks.product import peer, running_product
from tests.benchmarks.report import report, summary

WARM, RUNS, CLIENTS, SECONDS = 30, 200, 60, 8
LOGS = (topics.COMMANDS, topics.TRANSITIONS, topics.MESSAGES)

THREE_STEPS: dict[str, Any] = {
    "id": "three-steps",
    "name": "Three steps on built-in modules",
    "steps": [
        {"id": "context", "type": "module-operation", "module": "context", "operation": "create-context", "parameters": {"name": "bench"}},
        {
            "id": "plan", "type": "module-operation", "module": "plan", "operation": "create-plan", "dependencies": ["context"],
            "parameters": {"contextId": "${context.result.contextId}"},
        },
        {
            "id": "trace", "type": "module-operation", "module": "trace", "operation": "start-monitoring", "dependencies": ["plan"],
            "parameters": {"planId": "${plan.result.planId}"},
        },
    ],
}  # fmt: skip


async def latencies(bus: Bus, runs: int) -> list[float]:
    """Milliseconds from the call to the result, one client."""
    found = []
    for _ in range(runs):
        began = time.perf_counter()
        result = await bus.run_workflow(THREE_STEPS, wait=True)
        found.append((time.perf_counter() - began) * 1000)
        assert result["status"] == "completed", result
    return found


async def rate(bus: Bus) -> float:
    """Workflows per second of `CLIENTS` clients, each of which waits for its result."""
    until = time.perf_counter() + SECONDS

    async def client() -> int:
        done = 0
        while time.perf_counter() < until:
            await bus.run_workflow(THREE_STEPS, wait=True)
            done += 1
        return done

    began = time.perf_counter()
    counts = await asyncio.gather(*(client() for _ in range(CLIENTS)))
    return sum(counts) / (time.perf_counter() - began)


async def flush_every_append(settings: Settings) -> None:
    """Makes the broker force each append of the logs to disk before it acknowledges."""
    kafka = Kafka(settings)
    async with kafka.admin() as admin:
        for topic in LOGS:
            name = kafka.names.physical(topic)
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs={"flush.messages": "1"})])


async def measure(settings: Settings) -> dict[str, Any]:
    """Latency and rate of ours."""
    async with connect(settings) as bus:
        await latencies(bus, WARM)
        one = await latencies(bus, RUNS)
        return {"one_client_ms": summary(one), "workflows_per_s": round(await rate(bus), 1)}


def main() -> None:
    """Measures ours and the peer, in turn."""
    with running_product() as (settings, costs):
        ours = asyncio.run(measure(settings))
        asyncio.run(flush_every_append(settings))
        flushed = asyncio.run(measure(settings))
        script = Path(__file__).parent / "peers" / "dbos_three_steps.py"
        raw = peer("dbos", "dbos==3.4.0", script, str(WARM), str(RUNS), str(CLIENTS), str(SECONDS))
    theirs = {"one_client_ms": summary(raw["latencies_ms"]), "workflows_per_s": round(raw["workflows_per_s"], 1)}
    work = f"three-step workflow on built-in modules, 1 and {CLIENTS} clients"
    bar = "S6: median no worse than DBOS; S7: 10 x DBOS"
    for name, mine, durability in (("default", ours, "acknowledged in the page cache"), ("flushed", flushed, "forced to disk per append")):
        figures = {
            "ours": mine,
            "dbos_sqlite": theirs,
            "latency_ratio": round(theirs["one_client_ms"]["p50"] / mine["one_client_ms"]["p50"], 2),
            "rate_ratio": round(mine["workflows_per_s"] / theirs["workflows_per_s"], 2),
        }
        report(f"S6-S7-{name}", work, figures, bar=bar, durability=durability)
    report("S13", "`mplp up` to ready", costs, bar="second time 12 s, 1.5 GiB for all processes", durability="-")


if __name__ == "__main__":
    main()
