"""The peer of `workflow.py`: Restate, three durable steps in a row that do nothing. Runs in an environment of its own.

`restate_three_steps.py SERVER HOW WARM RUNS CLIENTS SECONDS` where HOW is `documented` (as its quick start says: the server's defaults,
24 partitions; the service on Hypercorn) or `tuned` (one partition; the service on Granian, one worker; the logs at warn). Its
telemetry is off in both, and everything listens on loopback. Server, service and client are processes beside each other, as ours are.
Prints one JSON line: latencies of one client in milliseconds, and workflows per second of `clients` clients.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

HERE = Path(__file__).parent
START_TIMEOUT_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server_config(folder: Path, node: int, ingress: int, admin: int, *, tuned: bool) -> str:
    """What the quick start leaves at its defaults, but for addresses, the data folder and the telemetry."""
    lines = [
        f'base-dir = "{folder}"',
        f'bind-address = "127.0.0.1:{node}"',
        f'advertised-address = "http://127.0.0.1:{node}/"',
        "disable-telemetry = true",
    ]
    if tuned:
        lines += ["default-num-partitions = 1", 'log-filter = "warn"', "disable-prometheus = true"]
    lines += ["[ingress]", f'bind-address = "127.0.0.1:{ingress}"', "[admin]", f'bind-address = "127.0.0.1:{admin}"']
    if tuned:
        lines.append("disable-web-ui = true")
    return "\n".join(lines) + "\n"


def service_command(port: int, *, tuned: bool) -> list[str]:
    """The documented ASGI server, or the fastest one."""
    if tuned:
        options = ["--interface", "asgi", "--http", "2", "--workers", "1", "--loop", "uvloop", "--no-access-log", "--log-level", "warning"]
        return [sys.executable, "-m", "granian", *options, "--host", "127.0.0.1", "--port", str(port), "restate_service:app"]
    return [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", "restate_service:app"]


async def until(check: Any, what: str) -> Any:
    """Tries until it succeeds."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            return await check()
        except (aiohttp.ClientError, OSError) as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} does not answer: {error}") from error
        await asyncio.sleep(0.1)


async def register(session: aiohttp.ClientSession, admin: int, service: int) -> None:
    async def health() -> None:
        async with session.get(f"http://127.0.0.1:{admin}/health") as answer:
            answer.raise_for_status()

    async def deployment() -> None:
        body = {"uri": f"http://127.0.0.1:{service}", "force": True}
        async with session.post(f"http://127.0.0.1:{admin}/deployments", json=body) as answer:
            answer.raise_for_status()

    await until(health, "the server")
    await until(deployment, "the service")


async def measure(ingress: int, admin: int, service: int, counts: list[int]) -> dict[str, Any]:
    warm, runs, clients, seconds = counts
    url = f"http://127.0.0.1:{ingress}/ThreeSteps/run"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await register(session, admin, service)

        async def once(number: int) -> None:
            async with session.post(url, json=number) as answer:
                found = await answer.json()
                assert (answer.status, found) == (200, number + 3)

        async def first() -> None:
            async with session.post(url, json=0) as answer:
                answer.raise_for_status()

        await until(first, "the ingress")
        for number in range(warm):
            await once(number)
        latencies = []
        for number in range(runs):
            began = time.perf_counter()
            await once(number)
            latencies.append((time.perf_counter() - began) * 1000)
        end = time.perf_counter() + seconds

        async def client() -> int:
            count = 0
            while time.perf_counter() < end:
                await once(count)
                count += 1
            return count

        began = time.perf_counter()
        done = sum(await asyncio.gather(*(client() for _ in range(clients))))
        rate = done / (time.perf_counter() - began)
    return {"latencies_ms": latencies, "workflows_per_s": rate}


def main() -> None:
    server, how = os.path.abspath(sys.argv[1]), sys.argv[2]
    counts = [int(argument) for argument in sys.argv[3:7]]
    node, ingress, admin, service = (free_port() for _ in range(4))
    environment = {**os.environ, "DO_NOT_TRACK": "1", "PYTHONPATH": str(HERE)}
    with tempfile.TemporaryDirectory() as folder:
        config, log = Path(folder) / "restate.toml", Path(folder) / "log"
        config.write_text(server_config(Path(folder) / "data", node, ingress, admin, tuned=how == "tuned"))
        with log.open("wb") as output:
            commands = [[server, "--config-file", str(config)], service_command(service, tuned=how == "tuned")]
            started = [
                subprocess.Popen(command, env=environment, cwd=HERE, stdout=output, stderr=output, start_new_session=True)
                for command in commands
            ]
            try:
                found = asyncio.run(measure(ingress, admin, service, counts))
            except BaseException:
                sys.stderr.write(log.read_text(errors="replace")[-4000:])
                raise
            finally:
                for process in started:
                    os.killpg(process.pid, signal.SIGKILL)  # nothing is to be kept, and Granian waits for open connections
                for process in started:
                    process.wait(30)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
