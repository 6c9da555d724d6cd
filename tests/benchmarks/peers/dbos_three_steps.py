"""The peer of `workflow.py`: DBOS on SQLite, three sequential steps that do nothing. Runs in an environment of its own.

Prints one JSON line: latencies of one client in milliseconds, and workflows per second of `clients` threads.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from dbos import DBOS, DBOSConfig


@DBOS.step()
def step(number: int) -> int:
    return number + 1


@DBOS.workflow()
def three_steps(number: int) -> int:
    return step(step(step(number)))


def main() -> None:
    warm, runs, clients, seconds = (int(argument) for argument in sys.argv[1:5])
    with tempfile.TemporaryDirectory() as folder:
        config: DBOSConfig = {"name": "peer", "system_database_url": f"sqlite:///{folder}/peer.sqlite", "log_level": "ERROR"}
        DBOS(config=config)
        DBOS.launch()
        for number in range(warm):
            three_steps(number)
        latencies = []
        for number in range(runs):
            began = time.perf_counter()
            three_steps(number)
            latencies.append((time.perf_counter() - began) * 1000)
        done, until = 0, time.perf_counter() + seconds

        def client(_: int) -> int:
            count = 0
            while time.perf_counter() < until:
                three_steps(count)
                count += 1
            return count

        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            done = sum(pool.map(client, range(clients)))
        rate = done / (time.perf_counter() - began)
        DBOS.destroy()
    sys.stdout.write(json.dumps({"latencies_ms": latencies, "workflows_per_s": rate}) + "\n")


main()
