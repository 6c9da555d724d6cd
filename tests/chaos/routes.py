"""100,000 events over 1,000 keys by three routes: without failures, with them, and with a worker killed or stopped every 20 s.

`make chaos-routes`, or `python -m tests.chaos.routes [--events 100000] [--rate 500] [--runs clean,failing,killed] [--redrive 100000]`.
All events go to a topic, those of a tenth of the keys to a webhook, some to a webhook that answers in 30 s. Ten keys fail three times at
each event, one for ever. At the end dead letters are put back by commands that are killed and that run side by side.
Exit code 0 if every event is delivered or dead, in the order of its key by each route, and once in the topic.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from infra.checks import free_port
from infra.kafka import EmbeddedKafka
from streams.bus.bus import Bus
from streams.codec.registry import connect_codec
from streams.kafka import Kafka
from streams.routing import control
from streams.settings import Settings
from streams.topics_apply import apply_topics
from tests.chaos.deliveries import Load, copies, faults, hooked, latencies_ms, letters, produce, settled
from tests.chaos.fire import Fire, burn, workers
from tests.chaos.redrive import redriven

#: How long everything may take to arrive after the last event was sent, seconds.
SETTLE_S = 900.0


def say(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


async def delivered(settings: Settings, load: Load, fire: Fire | None, *, count: int = 3, slow_s: float = 30.0) -> dict[str, Any]:
    """One run: what it measured, and what was wrong. The topics of the settings' prefix are made for it."""
    kafka = Kafka(settings)
    await apply_topics(kafka)
    bus = Bus(kafka, await connect_codec(kafka))
    over = asyncio.Event()
    began = time.monotonic()
    try:
        async with hooked(load, slow_s) as (hooks, routes), workers(settings, count) as processes:
            await control.apply(bus, routes, who="chaos", timeout=60.0)
            session_s = settings.group_session_timeout_ms / 1000
            burning = None if fire is None else asyncio.create_task(burn(processes, fire, session_s, say, over))
            try:
                await produce(bus, load)
                sent_s = time.monotonic() - began
                while fire is not None and fire.done.total() < len(fire.faults):
                    await asyncio.sleep(0.2)
            finally:
                over.set()
                if burning is not None:
                    await burning
            await settled(bus, load, hooks, SETTLE_S)
            copied, dead = await copies(bus), await letters(bus)
        wrong = list(faults(load, hooks, copied, dead))
        p50_ms, p99_ms = latencies_ms(load, hooks)
    finally:
        await bus.close()
    return {
        "events": load.events, "sent_s": round(sent_s, 1), "seconds": round(time.monotonic() - began, 1),
        "p50_ms": p50_ms, "p99_ms": p99_ms,
        "webhook_calls": sum(hooks.attempts.values()), "webhook_repeats": len(hooks.arrived) - len({n for n, _, _ in hooks.arrived}),
        "in_topic": len(copied), "dead": len(dead), "slow": len(hooks.slow), "faults_injected": dict(fire.done) if fire is not None else {},
        "wrong": wrong[:50],
    }  # fmt: skip


async def _all(options: argparse.Namespace, seed: int, folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = {"seed": seed}
    async with EmbeddedKafka(folder / "kafka", port=free_port()) as broker:
        for name in filter(None, options.runs.split(",")):
            failing = max(1, options.keys // 100) if name != "clean" else 0
            load = Load(
                events=options.events, keys=options.keys, rate=options.rate, hooked=max(failing + 2, options.keys // 10), failing=failing,
                forever=name != "clean", slow=options.slow if name != "clean" else 0,
            )  # fmt: skip
            fire = Fire(every_s=options.every, faults=options.faults.split(","), seed=seed) if name == "killed" else None
            settings = _settings(broker.bootstrap, name, options, folder)
            say(f"{name}: {load.events} events, {load.rate:g}/s")
            report[name] = await delivered(settings, load, fire, count=options.workers, slow_s=options.slow_s)
            say(f"{name}: {json.dumps(report[name])}")
        if options.redrive:
            say(f"redrive of {options.redrive} letters")
            settings = _settings(broker.bootstrap, "redrive", options, folder)
            report["redrive"] = await redriven(settings, options.redrive, random.Random(seed), kills=options.kills, say=say)
    return report


def _settings(bootstrap: str, name: str, options: argparse.Namespace, folder: Path) -> Settings:
    return Settings(
        kafka_bootstrap=bootstrap, topic_prefix=f"chaos-{name}", partitions=options.partitions, data_dir=folder / name, http_port=0
    )


def main() -> int:
    """Runs and judges."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=500.0, help="events per second")
    parser.add_argument("--runs", default="clean,failing,killed")
    parser.add_argument("--slow", type=int, default=60, help="events for the slow webhook")
    parser.add_argument("--slow-s", type=float, default=30.0, help="how long that takes to answer, seconds")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two faults")
    parser.add_argument("--faults", default="kill,kill,zombie", help="in this order, again and again: kill, zombie, pause")
    parser.add_argument("--partitions", type=int, default=12)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--redrive", type=int, default=100_000, help="dead letters that are put back; 0: none")
    parser.add_argument("--kills", type=int, default=5, help="redrives that are killed in the middle")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    os.environ["MPLP_WEBHOOK_TIMEOUT_MS"] = str(min(60_000, int(2000 * max(5.0, options.slow_s))))
    say(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="mplp-chaos-routes-") as folder:
        report = asyncio.run(_all(options, seed, Path(folder)))
    if "clean" in report and "failing" in report:
        report["p99_ratio"] = round(report["failing"]["p99_ms"] / report["clean"]["p99_ms"], 2)
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 1 if any(part["wrong"] for part in report.values() if isinstance(part, dict)) else 0


if __name__ == "__main__":
    sys.exit(main())
