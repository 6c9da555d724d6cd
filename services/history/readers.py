"""Connections that read, each with a thread of its own: an answer is taken from it bit by bit, for as long as its reader likes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from streams.errors import BackboneError, Unavailable

T = TypeVar("T")

_log = structlog.get_logger("history")


class Reader:
    """One connection, opened when first needed, and the thread that it lives on."""

    def __init__(self, open_one: Callable[[], Client]) -> None:
        self._open_one = open_one
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="history-query")
        self._client: Client | None = None

    async def run(self, work: Callable[[Client], T]) -> T:
        """Runs `work` with the connection. A cancelled call leaves the thread to finish; what is run next waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._with_client, work)

    def _with_client(self, work: Callable[[Client], T]) -> T:
        if self._client is None:
            self._client = self._open_one()
        return work(self._client)

    async def close(self) -> None:
        """Closes the connection after what runs on it."""

        def close() -> None:
            if self._client is not None:
                self._client.close()

        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, close)
        except (ClickHouseError, OSError) as error:
            _log.warning("history.close", message=str(error)[:300])
        self._thread.shutdown(wait=False)


class Readers:
    """At most `size` connections. Who borrows one has it alone, and gives it back whole or broken."""

    def __init__(self, open_one: Callable[[], Client], *, size: int, wait_s: float) -> None:
        self._open_one, self._size, self._wait_s = open_one, size, wait_s
        self._slots = asyncio.Semaphore(size)
        self._idle: list[Reader] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def borrow(self) -> Reader:
        """A connection. Raises `Unavailable` (`sql.busy`) if none comes free in time."""
        if self._closed:
            raise Unavailable("history.closed", "The history is closed.")
        try:
            async with asyncio.timeout(self._wait_s):
                await self._slots.acquire()
        except TimeoutError:
            raise Unavailable(
                "sql.busy", f"{self._size} queries run already, and none ended within {self._wait_s:g} s.", advice="Try again later."
            ) from None
        return self._idle.pop() if self._idle else Reader(self._open_one)

    def give_back(self, reader: Reader, *, whole: bool) -> None:
        """Takes a connection back. One that is not whole is closed after what still runs on it, and keeps its slot until then.

        chDB keeps what a failed query had already written of its answer, and would put it before the next one's.
        """
        if whole and not self._closed:
            self._idle.append(reader)
            self._slots.release()
            return
        closing = asyncio.ensure_future(self._retire(reader))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _retire(self, reader: Reader) -> None:
        try:
            await reader.close()
        except BackboneError as error:
            _log.warning("history.close", code=error.code, message=error.message)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """Closes all connections after what runs on those that were given back."""
        self._closed = True
        for reader in self._idle:
            await reader.close()
        self._idle.clear()
        await asyncio.gather(*self._closing, return_exceptions=True)
