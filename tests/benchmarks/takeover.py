"""S11: how long a takeover takes, with ever more history behind the checkpoint; the same takeover by folding the whole log beside it.

`python -m tests.benchmarks.takeover [EVENTS…]`, by default 1,000, 100,000 and 1,000,000 log events, then the whole product: kill -9 of its
core process until a workflow completes again. The host is stopped without a farewell and started again under the same name
(static membership), with 500 flows alive; the peer folds the whole log, which is what a host without checkpoints has to do.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from infra.kafka import EmbeddedKafka
from streams import collector, connect, topics
from streams.codec.avro import Codec, headers_of
from streams.codec.registry import connect_codec
from streams.kafka import Kafka
from streams.log.freeze import StateFormat
from streams.log.host import Host
from streams.log.types import NOTHING, Decision, Input, Received, View
from streams.settings import Settings
from streams.testing.toys import EchoMachine, FlowMachine, FlowState, start
from streams.topics_apply import apply_topics
from tests.benchmarks.product import running_product
from tests.benchmarks.report import report

ALIVE = 500
#: Of a flow of three steps: its own events, and its module's.
EVENTS_PER_FLOW = 11
HISTORIES = (1_000, 100_000, 1_000_000)
#: Flows that are begun at a time: what more begin at once leaves memory between its steps, and is looked up again for each of them.
WAVE = 1_000
DAY_US = 24 * 3600 * 1_000_000
KILLS = 5
BETWEEN_KILLS_S = 12.0


class Echo(EchoMachine):
    """Answers everybody but the flows that shall stay alive."""

    def decide(self, view: View[int], input: Input) -> Decision:
        """See `Machine.decide`."""
        if isinstance(input, Received) and input.record.subject.startswith("alive"):
            return NOTHING
        return super().decide(view, input)


class Flows(FlowMachine):
    """Their steps have a day: a run takes minutes, and what shall stay alive must not fail meanwhile."""

    def due(self, state: FlowState) -> int | None:
        """See `Machine.due`."""
        due = super().due(state)
        return None if due is None else due + DAY_US


class OtherFlows(Flows):
    """States of another format: its host has to fold the whole log."""

    states = StateFormat(FlowState, meaning=2)


class OtherEcho(Echo):
    """As `OtherFlows`."""

    states = StateFormat(int, meaning=2)


async def run_flows(kafka: Kafka, codec: Codec, names: list[str]) -> None:
    """Starts flows of three steps."""
    async with kafka.producer(linger_ms=5) as producer:
        for name in names:
            command = start(name, steps=3)
            await producer.send(kafka.names.physical(topics.COMMANDS), codec.encode(command), name.encode(), headers=headers_of(command))
        await producer.flush()


def settled(host: Host, ended: int, begun: int) -> bool:
    """Whether a host has decided everything and a checkpoint contains it."""
    runners = list(host._runners.values())
    lanes = [lane for runner in runners for lane in runner._owned.lanes.values()]
    flows = [lane for lane in lanes if lane.machine.name == "workflow"]
    return (
        sum(len(lane.fold.view.parked) for lane in flows) == ended
        and sum(len(lane.fold.view.aggregates) for lane in flows) == begun - ended
        and all(lane.checkpoint_offset == lane.fold.next_offset for lane in lanes)
    )


async def filled(kafka: Kafka, codec: Codec, host: Host, names: list[str]) -> None:
    """Runs flows to their end, a wave at a time."""
    for first in range(0, len(names), WAVE):
        await run_flows(kafka, codec, names[first : first + WAVE])
        while _unfinished(host) > 2 * WAVE:
            await asyncio.sleep(0.02)


def _unfinished(host: Host) -> int:
    """Flows in memory, beside those that stay alive: they run, or the next checkpoint parks them."""
    lanes = [lane for runner in host._runners.values() for lane in runner._owned.lanes.values() if lane.machine.name == "workflow"]
    return sum(len(lane.fold.view.aggregates) for lane in lanes) - ALIVE


async def takeover(kafka: Kafka, codec: Codec, machines: list[Any]) -> tuple[float, Host, asyncio.Task[None]]:
    """Seconds from the start of a host to all partitions served."""
    began = time.perf_counter()
    host = Host(kafka, codec, machines, name="core-1", group="bench")
    running = asyncio.create_task(host.run())
    await host.wait_ready()
    return time.perf_counter() - began, host, running


async def stop(running: asyncio.Task[None]) -> None:
    """Without a checkpoint, without leaving the group."""
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def measure(histories: tuple[int, ...]) -> dict[str, Any]:
    """Takeovers on one broker while its logs grow."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="mplp-bench-") as folder:
        async with EmbeddedKafka(Path(folder)) as broker:
            kafka = Kafka(Settings(kafka_bootstrap=broker.bootstrap, checkpoint_interval_ms=1000, group_session_timeout_ms=30_000))
            quiet = Kafka(kafka.settings.model_copy(update={"checkpoint_interval_ms": 10**8, "checkpoint_records": 10**9}))
            await apply_topics(kafka)
            codec = await connect_codec(kafka)
            ended = begun = 0
            for events in histories:
                _, host, running = await takeover(kafka, codec, [Flows(), Echo()])
                wanted = events // EVENTS_PER_FLOW
                if not begun:
                    await run_flows(kafka, codec, [f"alive-{number}" for number in range(ALIVE)])
                    begun = ALIVE
                await filled(kafka, codec, host, [f"flow-{number}" for number in range(ended, wanted)])
                begun, ended = begun + wanted - ended, wanted
                while not settled(host, ended, begun):
                    await asyncio.sleep(0.2)
                await stop(running)
                seconds, host, running = await takeover(kafka, codec, [Flows(), Echo()])
                await stop(running)
                whole, host, running = await takeover(quiet, codec, [OtherFlows(), OtherEcho()])
                await stop(running)
                figures[f"{events}_events"] = {"from_checkpoint_s": round(seconds, 3), "whole_log_s": round(whole, 3)}
    return figures


async def kill_core() -> dict[str, Any]:
    """kill -9 of the core of a running product, several times: seconds until a workflow that is started at once has completed."""
    definition = {"id": "one", "name": "one", "version": "1.0.0", "steps": [{"id": "a", "type": "transform", "value": "1"}]}
    with running_product() as (settings, _):
        async with connect(settings) as bus:
            usual, killed = [], []
            for _ in range(KILLS):
                await bus.run_workflow(definition, wait=True)
                began = time.perf_counter()
                await bus.run_workflow(definition, wait=True)
                usual.append(time.perf_counter() - began)
                core = next(process for process in settings.run_info()["processes"] if process["name"].startswith("core"))
                began = time.perf_counter()
                os.kill(int(core["pid"]), signal.SIGKILL)
                await bus.run_workflow(definition, wait=True)
                killed.append(time.perf_counter() - began)
                # The supervisor waits longer for a process that dies again soon.
                await asyncio.sleep(BETWEEN_KILLS_S)
        return {
            "killed_to_completed_s": [round(seconds, 2) for seconds in killed],
            "median_s": round(statistics.median(killed), 2),
            "without_kill_s": round(statistics.median(usual), 3),
        }


def main() -> None:
    """Measures and reports."""
    collector.look_seldom()  # as every process of the product
    histories = tuple(int(text) for text in sys.argv[1:]) or HISTORIES
    work = f"start of a host to all 4 partitions served, {ALIVE} flows alive, history behind the checkpoint"
    report("S11", work, uvloop.run(measure(histories)), bar="2 s beyond the session timeout, whatever the history", durability="page cache")
    product = "kill -9 of the core of `mplp up`, until a workflow that is started at once has completed"
    report("S11-product", product, uvloop.run(kill_core()), bar="4 s in all, aim 2 s", durability="page cache")


if __name__ == "__main__":
    main()
