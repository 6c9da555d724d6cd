"""The product as a benchmark sees it: `mplp up` on a fresh data folder and free ports, and peers in environments of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from streams.settings import Settings

PEERS = Path("build") / "peers"


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


def peer(name: str, requirement: str, script: Path, *arguments: str) -> dict[str, Any]:
    """Runs a peer's script in an environment of its own, made on first use; it prints one JSON line."""
    environment = PEERS / name
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", requirement], check=True)
    done = subprocess.run([str(python), str(script), *arguments], text=True, capture_output=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
