"""A million records with planted composites, twelve partitions, three workers of which one is killed every 20 s; now and then it is stopped
for longer than its session lasts, or the broker is killed and started again.

`make chaos-rules`, or `python -m tests.chaos.rules [--records 1000000] [--seconds 120] [--every 20] [--seed N] [--faults kill,broker]`.
Exit code 0 if every planted composite is there exactly once and nothing else is.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from infra.checks import free_port
from infra.kafka import EmbeddedKafka
from streams.bus.bus import Bus
from streams.codec.registry import connect_codec
from streams.kafka import Kafka
from streams.settings import Settings
from streams.topics_apply import apply_topics
from tests.chaos.fire import Fire, Verdict, under_fire
from tests.chaos.planted import Plan, plan

#: How long the broker is away, seconds.
BROKER_AWAY_S = 3.0


def say(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


async def run(of: Plan, fire: Fire, folder: Path, *, partitions: int, workers: int) -> Verdict:
    """Everything, on a broker of its own; a SIGTERM leaves no process behind."""
    itself = asyncio.current_task()
    assert itself is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, itself.cancel)
    async with EmbeddedKafka(folder / "kafka", port=free_port()) as broker:

        async def restart() -> None:
            if broker.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(broker.pid, signal.SIGKILL)
            await broker.wait()
            await asyncio.sleep(BROKER_AWAY_S)
            await broker.start()

        fire.others["broker"] = restart
        settings = Settings(kafka_bootstrap=broker.bootstrap, partitions=partitions, data_dir=folder / "data", http_port=0)
        kafka = Kafka(settings)
        await apply_topics(kafka)
        bus = Bus(kafka, await connect_codec(kafka))
        try:
            return await under_fire(settings, bus, of, fire, workers_count=workers, hostile_every=50, say=say)
        finally:
            await bus.close()


def main() -> int:
    """Runs and judges."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=120.0, help="of event time; records are sent at that pace, or as fast as it goes")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between two faults")
    parser.add_argument("--faults", default="kill,kill,zombie", help="in this order, again and again: kill, zombie, pause, broker")
    parser.add_argument("--partitions", type=int, default=12)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    of = plan(options.records, options.seconds, seed=seed)
    fire = Fire(every_s=options.every, faults=options.faults.split(","), seed=seed)
    say(f"seed {seed}: {len(of.expected)} composites among {options.records} records, a fault every {options.every:g} s: {options.faults}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mplp-chaos-rules-") as folder:
        verdict = asyncio.run(run(of, fire, Path(folder), partitions=options.partitions, workers=options.workers))
    report = {
        "seed": seed, "records": options.records, "seconds": round(time.monotonic() - began, 1),
        "faults_injected": dict(sorted(fire.done.items())),
        "planted": verdict.planted, "composites": verdict.composites, "revisions": verdict.revisions, "wrongs": len(verdict.faults),
        "wrong": verdict.faults[:50],
    }  # fmt: skip
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(main())
