"""Workflows of random shapes on the real stack while its processes are killed, stopped and continued at random.

`make chaos`, or `python -m tests.chaos [--seconds 180] [--workflows 1000] [--seed N] [--victims core] [--cores 2]`. Exit code 0 if every
workflow ended as the oracle says. What a seed decides is the shapes and the faults; when they meet is up to the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from streams import connect, topics
from streams.bus.stories import start_command
from streams.codec.registry import connect_codec
from streams.errors import BackboneError
from streams.kafka import Kafka
from streams.records import new_id
from streams.settings import Settings
from tests.benchmarks.product import mplp
from tests.chaos.shapes import Shape, shape
from tests.chaos.torment import Torment
from tests.chaos.verdict import Logs, faults, read_logs

ROOT = Path(__file__).parents[2]
#: How long after the last fault everything must have ended, seconds.
SETTLE_S = 180.0
MODULES = 2


def say(text: str) -> None:
    """A line of progress."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def start_module(data_dir: Path) -> subprocess.Popen[str]:
    """A process of the module that the workflows call; returns when it serves."""
    environment = {**os.environ, "MPLP_DATA_DIR": str(data_dir)}
    command = [sys.executable, "-m", "tests.chaos.module"]
    with (data_dir / "logs" / "module.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


async def submit(settings: Settings, shapes: Mapping[str, Shape], seconds: float) -> None:
    """Sends the start commands, evenly over the time."""
    async with connect(settings) as bus:
        began = time.monotonic()
        for number, (execution, wanted) in enumerate(shapes.items()):
            await asyncio.sleep(max(0.0, began + number * seconds / len(shapes) - time.monotonic()))
            command = start_command(wanted.definition, wanted.input, execution_id=execution, idempotency_key=None, by="chaos")
            await bus.send(topics.COMMANDS, execution, command)


async def settled(settings: Settings, shapes: Mapping[str, Shape]) -> Logs:
    """The logs once every execution has ended, or after `SETTLE_S`."""
    kafka = Kafka(settings)
    codec = await connect_codec(kafka)
    deadline = time.monotonic() + SETTLE_S
    while True:
        logs = await read_logs(kafka, codec)
        missing = [execution for execution in shapes if execution not in logs.stories]
        if (not missing and not logs.open()) or time.monotonic() > deadline:
            return logs
        say(f"  {len(missing)} have not begun, {len(logs.open())} have not ended")
        await asyncio.sleep(3)


async def torment(settings: Settings, shapes: Mapping[str, Shape], options: argparse.Namespace) -> Counter[str]:
    """Submits everything under torment; what was done."""
    tormentor = Torment(settings, random.Random(options.seed), tuple(options.victims.split(",")))
    await asyncio.gather(submit(settings, shapes, options.seconds * 0.9), tormentor.run(time.monotonic() + options.seconds))
    return tormentor.done


def main() -> int:
    """Runs and judges."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=180)
    parser.add_argument("--workflows", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--victims", default="core", help="beginnings of the names of processes, comma separated")
    options = parser.parse_args()
    options.seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    say(f"seed {options.seed}: {options.workflows} workflows, {options.seconds:g} s of faults on {options.victims}")
    shapes = {new_id(): shape(options.seed * 100_000 + number) for number in range(options.workflows)}
    with tempfile.TemporaryDirectory(prefix="mplp-chaos-") as folder:
        data_dir = Path(folder)
        mplp(data_dir, "up", "--detach", "--cores", str(options.cores))
        modules = [start_module(data_dir) for _ in range(MODULES)]
        try:
            settings = Settings(data_dir=data_dir)
            done = asyncio.run(torment(settings, shapes, options))
            say(", ".join(f"{times} × {what}" for what, times in sorted(done.items())))
            logs = asyncio.run(settled(settings, shapes))
            found = list(faults(logs, shapes))
            status = _status(data_dir)
        finally:
            for process in modules:
                process.terminate()
                process.wait()
            mplp(data_dir, "down")
    ends = Counter(wanted.expected["status"] for wanted in shapes.values())
    report = {
        "seed": options.seed, "workflows": len(shapes), "seconds": options.seconds, "faults_injected": dict(sorted(done.items())),
        "expected": dict(ends), "transitions": dict(sorted(logs.verdicts.items())), "status": status,
        "wrongs": len(found), "wrong": found[:50],
    }  # fmt: skip
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return 1 if found or logs.open() else 0


def _status(data_dir: Path) -> str:
    try:
        found: str = json.loads(mplp(data_dir, "status", "--json"))["status"]
    except (BackboneError, RuntimeError) as error:
        return str(error)
    return found


if __name__ == "__main__":
    sys.exit(main())
