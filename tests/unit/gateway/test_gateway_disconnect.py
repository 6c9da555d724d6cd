"""A client that goes: its work is given up, its stream is closed. Spoken in plain ASGI, since clients cannot go half-way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx
import orjson
import pytest

from services.gateway.app import create_app
from services.gateway.memory import Memory, MemoryHistory, MemoryLive, MemoryRows
from services.gateway.ports import Item

PATIENCE_S = 60.0


class Caller:
    """One request whose client goes when it is told to."""

    def __init__(self, memory: Memory, method: str, path: str, body: Any = None) -> None:
        self.gone = asyncio.Event()
        self.sent: list[Mapping[str, Any]] = []
        self.app = create_app(memory.ports())
        self._body: bytes | None = b"" if body is None else orjson.dumps(body)
        self._scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
            "http_version": "1.1",
            "asgi": {"spec_version": "2.3"},
        }

    async def run(self) -> None:
        await self.app(self._scope, self._receive, self._send)

    async def _receive(self) -> Mapping[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        self.sent.append(message)


async def test_a_query_whose_client_has_gone_is_cancelled() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    class Slow(MemoryHistory):
        async def query(self, sql: str, parameters: Mapping[str, Any]) -> MemoryRows:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise
            raise AssertionError

    caller = Caller(Memory(history=Slow()), "POST", "/v1/query", {"sql": "SELECT 1"})
    async with asyncio.timeout(PATIENCE_S):
        asking = asyncio.create_task(caller.run())
        await begun.wait()
        caller.gone.set()
        await cancelled.wait()
        await asking
    assert 'mplp_queries_total{outcome="cancelled"} 1.0' in caller.app.state.metrics.render()[0].decode()


async def test_rows_that_nobody_takes_any_more_are_closed() -> None:
    endless = [{"n": n} for n in range(1000)]
    first = asyncio.Event()

    class Rows(MemoryRows):
        async def batches(self) -> Any:
            yield endless
            first.set()
            await asyncio.Event().wait()

    history = MemoryHistory(answer=lambda sql, parameters: Rows(endless, 1000))
    caller = Caller(Memory(history=history), "POST", "/v1/query", {"sql": "SELECT 1"})
    async with asyncio.timeout(PATIENCE_S):
        asking = asyncio.create_task(caller.run())
        await first.wait()
        caller.gone.set()
        await asyncio.gather(asking, return_exceptions=True)
    assert history.given[0].closed


class Endless(MemoryLive):
    """Gives what it has, then waits for more until it is closed."""

    async def _items(self) -> AsyncGenerator[Item, None]:
        try:
            for item in self.items:
                yield item
            await asyncio.Event().wait()
        finally:
            self.closed += 1


async def test_a_stream_whose_client_has_gone_is_closed_and_gives_its_place_back() -> None:
    live = Endless(items=[Item(id="t/0/1", record={"type": "a"})])
    caller = Caller(Memory(live=live), "GET", "/v1/stream")
    async with asyncio.timeout(PATIENCE_S):
        following = asyncio.create_task(caller.run())
        while not any(b"t/0/1" in message.get("body", b"") for message in caller.sent):
            await asyncio.sleep(0)
        assert caller.app.state.streams_open == 1
        caller.gone.set()
        await following
    assert live.closed == 1
    assert caller.app.state.streams_open == 0


async def test_more_streams_than_allowed_are_refused(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.gateway.stream.STREAMS_MAX", 0)
    refused = await http.get("/v1/stream")
    assert (refused.status_code, refused.json()["code"]) == (429, "streams.too-many")
    assert refused.headers["retry-after"]
