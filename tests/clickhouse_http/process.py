"""The server as a process of a test: started, killed, paused, started again on the same folder and port."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from clickhouse_connect import get_client
from clickhouse_connect.driver.client import Client

from tests.clickhouse_http.engine import REPLICA_DOWN

ROOT = Path(__file__).resolve().parents[2]


class ClickHouseServer:
    """One server. Ends with this process, at the latest."""

    def __init__(self, folder: Path, *, users: Mapping[str, str] | None = None, cluster: str = "", certificate: Path | None = None) -> None:
        """`users`: name → password (default: `default` without one); `certificate`: PEM file with its key, then it is https."""
        self.folder, self.users, self.cluster, self.certificate = folder, dict(users or {"default": ""}), cluster, certificate
        self.port = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """For `MPLP_CLICKHOUSE_URL`."""
        return f"{'https' if self.certificate else 'http'}://{'localhost' if self.certificate else '127.0.0.1'}:{self.port}"

    async def start(self) -> None:
        """Starts it, on the port that it had before, if any; returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = ["--folder", str(self.folder), "--port", str(self.port), "--cluster", self.cluster]
        for name, password in self.users.items():
            arguments += ["--user", f"{name}:{password}"]
        if self.certificate is not None:
            arguments += ["--certificate", str(self.certificate)]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.clickhouse_http", *arguments,
            cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The ClickHouse server ended with {await self._process.wait()}.")
        self.port = json.loads(line)["port"]

    async def kill(self) -> None:
        """Ends it at once, as `kill -9` does."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            await process.communicate()

    @contextlib.contextmanager
    def replica_down(self) -> Iterator[None]:
        """Another node of the cluster does not answer meanwhile."""
        (self.folder / REPLICA_DOWN).touch()
        yield
        (self.folder / REPLICA_DOWN).unlink()

    def pause(self) -> None:
        """It neither answers nor closes connections until `resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Ends a pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def client(self, **options: Any) -> Client:
        """The unchanged client of `clickhouse-connect`. Blocks."""
        name, password = next(iter(self.users.items()))
        return get_client(dsn=self.url, username=name, password=password, autogenerate_session_id=False, **options)

    async def __aenter__(self) -> ClickHouseServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()


@contextlib.asynccontextmanager
async def database_of(server: ClickHouseServer, name: str) -> AsyncIterator[str]:
    """A database of one test: dropped at the end."""
    yield name
    client = await asyncio.to_thread(server.client)
    await asyncio.to_thread(client.command, f"DROP DATABASE IF EXISTS {name} SYNC")
    await asyncio.to_thread(client.close)
