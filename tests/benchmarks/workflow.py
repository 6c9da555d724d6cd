"""S6, S7 and S13: three-step workflows against Restate and DBOS, and what starting everything costs.

`python -m tests.benchmarks.workflow`. Ours runs as `mplp up` starts it, with everything on: the worker matches, the sink inserts. The
client is a process of its own and waits for the last record of each execution in the log. Two kinds of steps: on built-in modules, and
on a user's module in a process of its own. Twice: as Kafka is by default (acknowledged in the page cache), and with
`flush.messages=1` (each append is forced to disk before it is acknowledged), which is what the peers do.

Peers: Restate with its server, its service and the client as three processes, as documented and tuned; DBOS on SQLite inside of the
client's process.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvloop
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams import connect, topics
from streams.bus import Bus
from streams.kafka import Kafka
from streams.settings import Settings
from streams.topics import module_requests
from tests.benchmarks import environments
from tests.benchmarks.product import Processors, running_product
from tests.benchmarks.report import report, summary
from tests.benchmarks.steps_module import module

WARM, RUNS, CLIENTS, SECONDS = 40, 200, 60, 8
COUNTS = (WARM, RUNS, CLIENTS, SECONDS)
LOGS = (topics.COMMANDS, topics.TRANSITIONS, topics.MESSAGES, topics.RESPONSES, module_requests(module.name))

BUILT_IN: dict[str, Any] = {
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


def _add_one(name: str, before: str | None) -> dict[str, Any]:
    step = {"id": name, "type": "module-operation", "module": module.name, "operation": "add-one"}
    if before is None:
        return {**step, "parameters": {"number": 0}}
    return {**step, "dependencies": [before], "parameters": {"number": f"${{{before}.result.number}}"}}


OWN_MODULE: dict[str, Any] = {
    "id": "three-own-steps",
    "name": "Three steps on a user's module",
    "steps": [_add_one("one", None), _add_one("two", "one"), _add_one("three", "two")],
}
KINDS = {"built_in": BUILT_IN, "own_module": OWN_MODULE}
STEPS_ON = {"built_in": "built-in modules", "own_module": "a user's module in a process of its own"}


async def latencies(bus: Bus, definition: dict[str, Any], runs: int) -> list[float]:
    """Milliseconds from the call to the result, one client."""
    found = []
    for _ in range(runs):
        began = time.perf_counter()
        result = await bus.run_workflow(definition, wait=True)
        found.append((time.perf_counter() - began) * 1000)
        assert result["status"] == "completed", result
    return found


async def rate(bus: Bus, definition: dict[str, Any]) -> tuple[float, int]:
    """Workflows per second of `CLIENTS` clients, each of which waits for its result; and how many were done."""
    until = time.perf_counter() + SECONDS

    async def client() -> int:
        done = 0
        while time.perf_counter() < until:
            result = await bus.run_workflow(definition, wait=True)
            assert result["status"] == "completed", result
            done += 1
        return done

    began = time.perf_counter()
    done = sum(await asyncio.gather(*(client() for _ in range(CLIENTS))))
    return done / (time.perf_counter() - began), done


async def flush_every_append(settings: Settings) -> None:
    """Makes the broker force each append of what a workflow writes to disk before it acknowledges."""
    kafka = Kafka(settings)
    async with kafka.admin() as admin:
        for topic in LOGS:
            name = kafka.names.physical(topic)
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs={"flush.messages": "1"})])


async def measure(settings: Settings) -> dict[str, Any]:
    """Latency, rate and processor time of ours, for both kinds of steps."""
    processors, found = Processors(settings), {}
    async with connect(settings) as bus:
        for kind, definition in KINDS.items():
            await latencies(bus, definition, WARM)
            before = processors.seconds()
            one = await latencies(bus, definition, RUNS)
            cost_one = processors.ms_each(before, RUNS)
            before = processors.seconds()
            per_second, done = await rate(bus, definition)
            found[kind] = {
                "one_client_ms": summary(one),
                "workflows_per_s": round(per_second, 1),
                "processor_ms_each": {"one_client": cost_one, f"{CLIENTS}_clients": processors.ms_each(before, done)},
            }
    return found


@contextmanager
def module_worker(settings: Settings) -> Iterator[None]:
    """The user's module in a process of its own."""
    environment = {**os.environ, "MPLP_KAFKA_BOOTSTRAP": str(settings.bootstrap_servers())}
    command = [sys.executable, "-m", "tests.benchmarks.steps_module"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "ready"
            yield
        finally:
            process.terminate()


def theirs(raw: dict[str, Any]) -> dict[str, Any]:
    """A peer's figures as ours are written."""
    return {"one_client_ms": summary(raw["latencies_ms"]), "workflows_per_s": round(raw["workflows_per_s"], 1)}


def ratios(mine: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """How many times faster ours is: above 1 is better, for both."""
    return {
        name: {
            "latency": round(other["one_client_ms"]["p50"] / mine["one_client_ms"]["p50"], 2),
            "rate": round(mine["workflows_per_s"] / other["workflows_per_s"], 2),
        }
        for name, other in others.items()
    }


def main() -> None:
    """Measures ours and the peers, in turn."""
    with running_product() as (settings, costs), module_worker(settings):
        ours = {"default": uvloop.run(measure(settings))}
        uvloop.run(flush_every_append(settings))
        ours["flushed"] = uvloop.run(measure(settings))
    others = {
        "restate_documented": theirs(environments.restate("documented", *COUNTS)),
        "restate_tuned": theirs(environments.restate("tuned", *COUNTS)),
        "dbos_sqlite": theirs(environments.dbos(*COUNTS)),
    }
    bar = "S6: median no worse than Restate documented and DBOS; S7: 5 x Restate documented, 2 x tuned, 10 x DBOS"
    for name, durability in (("default", "acknowledged in the page cache"), ("flushed", "forced to disk per append")):
        for kind, mine in ours[name].items():
            work = f"three-step workflow, steps on {STEPS_ON[kind]}, 1 and {CLIENTS} clients"
            figures = {"ours": mine, **others, "ratios": ratios(mine, others)}
            report(f"S6-S7-{kind}-{name}", work, figures, bar=bar, durability=f"ours {durability}, peers forced to disk")
    report("S13", "`mplp up` to ready", costs, bar="second time 12 s, 1.5 GiB for all processes", durability="-")


if __name__ == "__main__":
    main()
