"""Where the history is under fire: a broker, gateways that are started again at once when they die, perhaps a ClickHouse server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from infra.checks import free_port
from infra.kafka import EmbeddedKafka
from services.history.tables import all_tables
from streams.codec.avro import Codec
from streams.codec.registry import connect_codec
from streams.kafka import Kafka
from streams.settings import Settings
from streams.topics_apply import apply_topics
from tests.chaos.__main__ import ROOT
from tests.clickhouse_http.process import ClickHouseServer

PARTITIONS = 4
#: How long something may take to come back after a fault, seconds.
ANSWERS_S = 600.0


class Gateway:
    """A gateway process: HTTP, sink and, embedded, the engine. `keep` starts it again at once whenever it ends."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.port = free_port()
        self.starts = 0
        self._log = folder / f"gateway-{self.port}.log"
        self._environment = {
            **os.environ, **environment, "MPLP_HTTP_PORT": str(self.port), "MPLP_DATA_DIR": str(folder / f"data-{self.port}"),
        }  # fmt: skip
        self._process: asyncio.subprocess.Process | None = None
        self._wanted = asyncio.Event()
        self._wanted.set()
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=ANSWERS_S, trust_env=False)

    async def keep(self) -> None:
        """Runs it until cancelled."""
        try:
            while True:
                await self._wanted.wait()
                with self._log.open("ab") as log:
                    self._process = await asyncio.create_subprocess_exec(
                        sys.executable, "-m", "services.processes.gateway", env=self._environment, cwd=ROOT,
                        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=log,
                    )  # fmt: skip
                self.starts += 1
                await self._process.wait()
        finally:
            self.signal(signal.SIGKILL)
            if self._process is not None:
                await self._process.wait()
            await self.http.aclose()

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it lives."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def kill(self) -> None:
        """`kill -9`; returns when its successor has been started."""
        starts = self.starts
        self.signal(signal.SIGKILL)
        async with asyncio.timeout(ANSWERS_S):
            while self.starts == starts:
                await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def down(self) -> AsyncIterator[None]:
        """Killed, and not started again inside of it."""
        self._wanted.clear()
        process = self._process
        self.signal(signal.SIGKILL)
        if process is not None:
            await process.wait()
        yield
        self._wanted.set()

    async def ask(self, path: str, body: dict[str, Any]) -> Any:
        """Its answer; it is asked until there is one."""
        async with asyncio.timeout(ANSWERS_S):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    answer = await self.http.post(path, json=body)
                    if answer.status_code == httpx.codes.OK:
                        return answer.json()
                await asyncio.sleep(0.1)

    async def rows(self, sql: str) -> list[dict[str, Any]]:
        """The answer to a query."""
        answer = await self.ask("/v1/query", {"sql": sql})
        return list(answer if isinstance(answer, list) else answer["rows"])

    async def verified(self) -> dict[str, Any]:
        """What `mplp history verify` says."""
        return dict(await self.ask("/v1/history/verify", {"timeout": ANSWERS_S / 3}))


@dataclass(slots=True)
class Stage:
    """What runs."""

    broker: EmbeddedKafka
    server: ClickHouseServer | None
    kafka: Kafka
    codec: Codec
    folder: Path
    environment: dict[str, str]
    gateway: Gateway

    @contextlib.asynccontextmanager
    async def another(self) -> AsyncIterator[Gateway]:
        """A second gateway on the same server, killed at the end."""
        gateway = Gateway(self.folder, self.environment)
        keeping = asyncio.create_task(gateway.keep())
        try:
            yield gateway
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def restart_broker(self, away_s: float) -> None:
        """Kills the broker and starts it again on its port."""
        assert self.broker.pid is not None
        os.kill(self.broker.pid, signal.SIGKILL)
        await self.broker.wait()
        await asyncio.sleep(away_s)
        await self.broker.start()


@contextlib.asynccontextmanager
async def stage(folder: Path, *, server: bool) -> AsyncIterator[Stage]:
    """Everything started, ended at the end."""
    async with contextlib.AsyncExitStack() as ending:
        clickhouse = await ending.enter_async_context(ClickHouseServer(folder / "server")) if server else None
        broker = await ending.enter_async_context(EmbeddedKafka(folder / "kafka", port=free_port()))
        settings = Settings(kafka_bootstrap=broker.bootstrap, partitions=PARTITIONS, data_dir=folder / "own")
        kafka = Kafka(settings)
        await apply_topics(kafka)
        codec = await connect_codec(kafka)
        environment = {
            "MPLP_KAFKA_BOOTSTRAP": broker.bootstrap, "MPLP_PARTITIONS": str(PARTITIONS),
            "MPLP_CLICKHOUSE_URL": clickhouse.url if clickhouse else "",
        }  # fmt: skip
        gateway = Gateway(folder, environment)
        keeping = asyncio.create_task(gateway.keep())
        try:
            yield Stage(broker, clickhouse, kafka, codec, folder, environment, gateway)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


def places_twice() -> str:
    """The query whose one row says how many rows there are, and how many of them are at a place that has another."""
    parts = " UNION ALL ".join(f"SELECT _topic, _partition, _offset FROM {table}" for table in all_tables())
    return f"SELECT count() AS n, n - uniqExact(_topic, _partition, _offset) AS twice FROM ({parts})"
