"""Connections to the engine: embedded (chDB, one process per folder) or a server over HTTP, by `Settings.clickhouse_url`.

A connection is used by one thread at a time, and thrown away after an error: chDB keeps what a failed query had already
written of its answer, and would put it before the next one's.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError, ProgrammingError

from streams.errors import Refused, Unavailable
from streams.settings import Settings

T = TypeVar("T")

#: Memory of the embedded engine, bytes; it shares the process with the gateway.
MEMORY_BYTES_MAX = 2 * 1024**3
#: How long a server may be silent before a request counts as failed, seconds. A query's own limit is shorter.
SEND_RECEIVE_TIMEOUT_S = 180
#: Folder of the embedded engine below the data folder.
FOLDER = "clickhouse"

#: Codes of ClickHouse that say that the server cannot do it now, not that the question is wrong.
_UNAVAILABLE_CODES = frozenset({209, 210, 236, 242, 243, 279, 425, 999})
#: Codes that say that a statement is accepted and goes on by itself: a replica is down, or a server of the cluster has not answered yet.
_GOES_ON_CODES = frozenset({341, 159})


def open_client(settings: Settings, *, database: str | None, session: dict[str, Any]) -> Client:
    """A new connection with session settings. Blocks. Raises `Unavailable` (`history.unavailable`) and `Refused` (`history.locked`)."""
    try:
        if settings.clickhouse_url:
            return _open_server(settings, database, session)
        return _open_embedded(settings, database, session)
    except ProgrammingError as error:
        raise Refused(
            "history.locked",
            f"The history's folder cannot be opened: {error}",
            advice="Only one process at a time can have it: is another `mplp up` running?",
        ) from error
    except (ClickHouseError, OSError) as error:
        raise unavailable(error) from error


def _open_server(settings: Settings, database: str | None, session: dict[str, Any]) -> Client:
    url = urlsplit(settings.clickhouse_url)
    return clickhouse_connect.get_client(
        host=url.hostname,
        port=url.port or (8443 if url.scheme == "https" else 8123),
        secure=url.scheme == "https",
        username=settings.clickhouse_user,
        password=settings.clickhouse_password.get_secret_value(),
        ca_cert=settings.clickhouse_ca_file or None,
        send_receive_timeout=SEND_RECEIVE_TIMEOUT_S,
        database=database or "default",
        settings=session,
        autogenerate_session_id=False,
    )


def _open_embedded(settings: Settings, database: str | None, session: dict[str, Any]) -> Client:
    folder = embedded_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    client = clickhouse_connect.get_client(
        interface="chdb",
        path=str(folder),
        chdb_options={"max_server_memory_usage": MEMORY_BYTES_MAX, "max_threads": os.cpu_count() or 2},
    )
    if database is not None:
        client.database = database
    for name, value in session.items():
        client.command(f"SET {name} = '{value}'")
    return client


def open_parser() -> Client:
    """An engine in memory that only parses, beside a server. Blocks."""
    return clickhouse_connect.get_client(interface="chdb", path=":memory:", chdb_options={"max_server_memory_usage": MEMORY_BYTES_MAX})


def embedded_folder(settings: Settings) -> Path:
    """Where the embedded engine keeps its data."""
    return settings.data_dir.absolute() / FOLDER


def unavailable(error: Exception) -> Unavailable:
    """The error that says that the engine cannot be reached or cannot work now."""
    return Unavailable("history.unavailable", f"ClickHouse does not answer: {str(error)[:300]}")


def is_unavailable(error: Exception) -> bool:
    """Whether repeating it later, unchanged, may help."""
    if isinstance(error, Unavailable):
        return True
    if isinstance(error, OperationalError | OSError) and not isinstance(error, DatabaseError):
        return True
    return isinstance(error, ClickHouseError) and error_code(error) in _UNAVAILABLE_CODES


def goes_on(error: Exception) -> bool:
    """Whether a change of a cluster's tables is accepted, and what is still to be done of it is done without us."""
    return isinstance(error, ClickHouseError) and error_code(error) in _GOES_ON_CODES


def error_code(error: Exception) -> int:
    """ClickHouse's number of an error, 0 if it has none."""
    return int(getattr(error, "code", None) or 0)


class Connections:
    """Connections of one kind, one per thread of a small pool, opened when first needed. `run` is safe to call from one event loop."""

    def __init__(self, open_one: Callable[[], Client], *, size: int, name: str) -> None:
        self._open_one, self._size = open_one, size
        self._threads = ThreadPoolExecutor(max_workers=size, thread_name_prefix=name)
        self._idle: list[Client] = []
        self._open: set[Client] = set()
        self._closed = False

    async def run(self, work: Callable[[Client], T]) -> T:
        """Runs `work` with a connection in a thread of the pool. A cancelled call leaves its thread to finish."""
        if self._closed:
            raise Unavailable("history.closed", "The history is closed.")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._with_client, work)

    def _with_client(self, work: Callable[[Client], T]) -> T:
        client = self._idle.pop() if self._idle else None
        if client is None:
            client = self._open_one()
            self._open.add(client)
        try:
            result = work(client)
        except BaseException:
            self._open.discard(client)
            client.close()
            raise
        self._idle.append(client)
        return result

    async def idle(self) -> None:
        """Returns when everything that was begun before has ended, also what a cancelled call has left behind."""
        barrier = threading.Barrier(self._size)
        loop = asyncio.get_running_loop()
        # Every thread of the pool has to come by, so each has ended what it did.
        await asyncio.gather(*(loop.run_in_executor(self._threads, barrier.wait) for _ in range(self._size)))

    async def close(self) -> None:
        """Waits for what runs, then closes all connections."""
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown, wait=True)
        for client in self._open:
            client.close()
        self._open.clear()
        self._idle.clear()
