"""The history under fire: the sink's process is killed, stopped and continued, the broker restarted, the log of blocks lost, ClickHouse
away, a second gateway fights for the work, zombies write into the logs, all of it under load. `mplp history verify` says `exact`.

`make chaos-history`, or `python -m tests.chaos.history [--kills 50] [--seed N] [--faults zombie,…] [--server]`. With `--server` the
tables are on a ClickHouse server (the engine behind ClickHouse's HTTP protocol), and ClickHouse goes away, and a second gateway comes, too.
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
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from streams import SystemEvent, connect
from streams.codec.avro import headers_of
from streams.codec.registry import connect_codec
from streams.kafka import Kafka
from streams.records import WorkflowTransition
from streams.settings import Settings
from streams.topics import BLOCKS, TRANSITIONS
from tests.chaos.__main__ import ROOT, say
from tests.clickhouse_http.process import ClickHouseServer

#: What happens in a round, besides kills.
EMBEDDED, SERVER = ("zombie", "replay", "broker"), ("away", "fight")
#: How long a stopped gateway sleeps, how long ClickHouse is away (seconds).
ASLEEP_S, AWAY_S = 8.0, 60.0
#: How long a verification may be tried until the gateway answers, seconds.
ANSWERS_S = 120.0
BATCH = 40


@dataclass(slots=True)
class Fire:
    """A running product and what is done to it."""

    data_dir: Path
    chance: random.Random
    environment: dict[str, str]
    away_s: float
    server: ClickHouseServer | None = None
    sent: int = 0
    voids: int = 0
    done: Counter[str] = field(default_factory=Counter)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def settings(self) -> Settings:
        """As they are now: a restarted process may have another port."""
        return Settings(data_dir=self.data_dir)

    async def mplp(self, *arguments: str) -> tuple[int, str, str]:
        """Runs a command: exit code, what it says, and what it tells."""
        command = [sys.executable, "-m", "services.cli", *arguments]
        process = await asyncio.create_subprocess_exec(
            *command, env=self.environment, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, told = await process.communicate()
        return process.returncode or 0, out.decode(), told.decode()

    def pid(self, name: str) -> int | None:
        """The process whose name begins so, if it lives."""
        found = [entry["pid"] for entry in self.settings.run_info().get("processes", ()) if entry["name"].startswith(name)]
        return found[0] if found and found[0] else None

    def signal(self, name: str, number: signal.Signals) -> int | None:
        """Sends a signal to a process."""
        pid = self.pid(name)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pid

    async def load(self) -> None:
        """Events, and now and then what a zombie writes into a log: an event of an epoch long gone."""
        kafka = Kafka(self.settings)
        codec = await connect_codec(kafka)
        async with connect(self.settings) as bus, kafka.producer() as producer:
            while not self.over.is_set():
                with contextlib.suppress(Exception):  # the broker is away: nothing was acknowledged, and nothing is counted
                    await bus.publish(
                        SystemEvent(type=f"chaos.{n % 5}", source="chaos", subject=f"s{n % 97}", data={"n": n, "text": "x" * (n % 200)})
                        for n in range(self.sent, self.sent + BATCH)
                    )
                    self.sent += BATCH
                    void = WorkflowTransition(
                        type="step.started", execution_id="zombie", workflow_id="w", status="running", aggregate_id="zombie", sequence=1,
                        epoch=0,
                    )  # fmt: skip
                    topic = kafka.names.physical(TRANSITIONS)
                    await producer.send_and_wait(
                        topic, codec.encode(void), key=b"zombie", headers=headers_of(void), partition=self.voids % 4
                    )
                    self.voids += 1
                await asyncio.sleep(0.05)

    async def suffer(self, fault: str) -> None:
        """One fault, at a random moment."""
        await asyncio.sleep(self.chance.uniform(0.3, 2.5))
        self.done[fault] += 1
        match fault:
            case "kill":
                self.signal("gateway", signal.SIGKILL)
                await self.reborn()
            case "zombie":
                self.signal("gateway", signal.SIGSTOP)
                await asyncio.sleep(ASLEEP_S)
                self.signal("gateway", signal.SIGCONT)
            case "broker":
                self.signal("kafka", signal.SIGKILL)
                await asyncio.sleep(3)
            case "replay":
                await self._lose_blocks()
            case "away":
                assert self.server is not None
                await self.server.kill()
                await asyncio.sleep(self.away_s)
                await self.server.start()
            case "fight":
                await self._fight()

    async def reborn(self) -> None:
        """Waits until the supervisor has started the gateway again."""
        before, until_s = self.pid("gateway"), time.monotonic() + ANSWERS_S
        while time.monotonic() < until_s and (self.pid("gateway") in (None, before)):
            await asyncio.sleep(0.1)

    async def _lose_blocks(self) -> None:
        """The log of blocks is gone, and the sink dies: its successor knows only the tables."""
        kafka = Kafka(self.settings)
        topic = kafka.names.physical(BLOCKS)
        async with kafka.consumer() as consumer, kafka.admin() as admin:
            cluster = await consumer._client.fetch_all_metadata()
            ends = await consumer.end_offsets([TopicPartition(topic, number) for number in cluster.partitions_for_topic(topic)])
            self.signal("gateway", signal.SIGKILL)
            await admin.delete_records({tp: RecordsToDelete(before_offset=end) for tp, end in ends.items()})
        await self.reborn()

    async def _fight(self) -> None:
        """A second gateway on the same server for a while, killed at a random moment."""
        environment = {**self.environment, "MPLP_HTTP_PORT": "0", "MPLP_KAFKA_BOOTSTRAP": self.settings.bootstrap_servers()}
        command = [sys.executable, "-m", "services.processes.gateway"]
        with (self.data_dir / "logs" / "second-gateway.log").open("ab") as log:
            second = await asyncio.create_subprocess_exec(
                *command, env=environment, cwd=ROOT, stdout=log, stderr=log, stdin=asyncio.subprocess.PIPE
            )
        await asyncio.sleep(self.chance.uniform(6.0, 12.0))
        second.kill()
        await second.wait()

    async def verify(self) -> dict[str, Any]:
        """What `mplp history verify` says, as soon as the gateway answers."""
        until_s = time.monotonic() + ANSWERS_S
        while True:
            code, out, told = await self.mplp("history", "verify", "--json", "--timeout", "60s")
            if code in (0, 1) and "partitions" in out:
                return dict(json.loads(out))
            if time.monotonic() > until_s:
                raise RuntimeError(f"no verification: exit {code}\n{out}\n{told}")
            await asyncio.sleep(1)


async def run(fire: Fire, faults: list[str], verify_every: int) -> list[dict[str, Any]]:
    """All faults under load; the reports that are not exact, and the last one."""
    loading = asyncio.create_task(fire.load())
    wrong = []
    try:
        for number, fault in enumerate(faults, start=1):
            await fire.suffer(fault)
            if number % verify_every == 0 or fault not in ("kill",):
                report = await fire.verify()
                say(f"{number}/{len(faults)} after {fault}: {report['verdict']}, {report['offsets']:,} offsets, {fire.sent:,} events sent")
                wrong += [{**report, "after": fault}] if not report["exact"] else []
    finally:
        fire.over.set()
        await loading
    last = await fire.verify()
    return [*wrong, last]


async def counted(fire: Fire) -> dict[str, int]:
    """What the tables say of what was sent: events, different ones, and those that zombies wrote."""
    sql = (
        "SELECT countIf(source = 'chaos') AS events, uniqExactIf(id, source = 'chaos') AS ids, "
        "(SELECT count() FROM log_records WHERE kind = 'void' AND type = 'step.started') AS voids FROM system_events"
    )
    code, out, told = await fire.mplp("query", sql, "--json")
    if code:
        raise RuntimeError(told)
    return dict(json.loads(out)[0])


def main() -> int:
    """Runs and judges."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--faults", default=None, help="besides kills: zombie, replay, broker; on a server also away, fight")
    parser.add_argument("--verify-every", type=int, default=10, help="kills between two verifications")
    parser.add_argument("--away", type=float, default=AWAY_S, help="seconds without ClickHouse")
    parser.add_argument("--server", action="store_true", help="on a ClickHouse server instead of embedded")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    others = EMBEDDED + (SERVER if options.server else ()) if options.faults is None else tuple(filter(None, options.faults.split(",")))
    chance = random.Random(seed)
    faults = ["kill"] * options.kills + list(others)
    chance.shuffle(faults)
    say(f"seed {seed}: {' '.join(faults)}")
    with tempfile.TemporaryDirectory(prefix="mplp-chaos-history-") as folder:
        report = asyncio.run(_all(Path(folder), chance, faults, options))
    sys.stdout.write(json.dumps({"seed": seed, **report}, indent=2) + "\n")
    return 0 if report["exact"] else 1


async def _all(folder: Path, chance: random.Random, faults: list[str], options: argparse.Namespace) -> dict[str, Any]:
    server = ClickHouseServer(folder / "server") if options.server else None
    if server is not None:
        await server.start()
    data_dir = folder / "data"
    environment = {**os.environ, "MPLP_DATA_DIR": str(data_dir), "MPLP_HTTP_PORT": "0", "MPLP_KAFKA_PORT": "0"}
    environment |= {"MPLP_CLICKHOUSE_URL": server.url} if server is not None else {}
    fire = Fire(data_dir, chance, environment, options.away, server)
    began_s = time.monotonic()
    try:
        code, _, told = await fire.mplp("up", "--detach")
        if code:
            raise RuntimeError(told)
        reports = await run(fire, faults, options.verify_every)
        found = await counted(fire)
        await fire.mplp("down")
    finally:
        if server is not None:
            await server.kill()
    last = reports[-1]
    right = found["events"] >= fire.sent and found["events"] == found["ids"] and found["voids"] >= fire.voids > 0
    return {
        "exact": right and all(report["exact"] for report in reports), "seconds": round(time.monotonic() - began_s, 1),
        "faults": dict(fire.done), "sent": fire.sent, "voids": fire.voids, "counted": found, "offsets": last["offsets"],
        "rows": last["rows"], "log_records": last["log_records"], "wrong": [report for report in reports if not report["exact"]][:5],
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
