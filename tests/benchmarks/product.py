"""The product as a benchmark sees it: `mplp up` on a fresh data folder and free ports, and what its processes cost."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from streams.settings import Settings


def mplp(data_dir: Path, *arguments: str) -> str:
    """Runs one command of the shell on a data folder; returns its output."""
    environment = {**os.environ, "MPLP_DATA_DIR": str(data_dir), "MPLP_HTTP_PORT": "0", "MPLP_KAFKA_PORT": "0"}
    done = subprocess.run([sys.executable, "-m", "services.cli", *arguments], env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"mplp {' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def running_product() -> Iterator[tuple[Settings, dict[str, float]]]:
    """The product, started twice (the second start is the one that counts); settings that reach it, and what the starts cost."""
    with tempfile.TemporaryDirectory(prefix="mplp-bench-") as folder:
        data_dir = Path(folder)
        seconds = []
        for again in (False, True):
            began = time.perf_counter()
            mplp(data_dir, "up", "--detach")
            seconds.append(time.perf_counter() - began)
            if not again:
                mplp(data_dir, "down")
        try:
            settings = Settings(data_dir=data_dir)
            costs = {"first_start_s": round(seconds[0], 2), "second_start_s": round(seconds[1], 2), "memory_mib": memory_mib(settings)}
            yield settings, costs
        finally:
            mplp(data_dir, "down")


def memory_mib(settings: Settings) -> float:
    """Proportional memory of the supervisor and everything below it, MiB."""
    root = psutil.Process(int(settings.run_info()["pid"]))
    processes = [root, *root.children(recursive=True)]
    return round(sum(process.memory_full_info().pss for process in processes) / 2**20, 1)


class Processors:
    """Processor time of the product's processes and of this one, by name."""

    def __init__(self, settings: Settings) -> None:
        root = psutil.Process(int(settings.run_info()["pid"]))
        self._processes = [("supervisor", root), ("client", psutil.Process())]
        for process in root.children(recursive=True):
            line = " ".join(process.cmdline())
            named = [name for name in ("core", "worker", "gateway") if f"services.processes.{name}" in line]
            self._processes.append((named[0] if named else "broker" if "kafka.Kafka" in line else "others", process))

    def seconds(self) -> Counter[str]:
        """Seconds of user and system time since each began."""
        found: Counter[str] = Counter()
        for name, process in self._processes:
            times = process.cpu_times()
            found[name] += times.user + times.system
        return found

    def ms_each(self, before: Counter[str], works: float) -> dict[str, float]:
        """Milliseconds per piece of work since `before`, the sum first."""
        spent = self.seconds()
        spent.subtract(before)
        each = {name: round(seconds * 1000 / works, 2) for name, seconds in spent.items() if seconds * 1000 / works >= 0.005}
        return {"sum": round(sum(each.values()), 2), **each}
