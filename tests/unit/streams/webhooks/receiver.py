"""A receiver of webhooks: a small HTTP server on loopback that answers as a test says, and remembers what it was told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

#: Writes the answer to a request.
Answering: TypeAlias = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Request:
    """What came. Names of headers are in lower case."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass(slots=True)
class Receiver:
    """What it was told, and where it listens."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    connections: int = 0


def answer(status: int = 204, body: bytes = b"", **headers: str) -> Answering:
    """Always the same answer."""

    async def write(_: Request, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}", *(f"{name.replace('_', '-')}: {v}" for name, v in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    return write


def in_turn(*answers: Answering) -> Answering:
    """One answer after the other, the last of them for ever."""
    left = list(answers)

    async def write(request: Request, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(request, writer)

    return write


@asynccontextmanager
async def receiver(answering: Answering, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A server until the end of the block."""
    found = Receiver()
    open_ones: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ones.add(task)
        found.connections += 1
        try:
            while (request := await _read(reader)) is not None:
                found.requests.append(request)
                found.under_way += 1
                found.most_under_way = max(found.most_under_way, found.under_way)
                try:
                    await answering(request, writer)
                    await writer.drain()
                finally:
                    found.under_way -= 1
        except (ConnectionError, asyncio.CancelledError):
            pass  # the other side has hung up, or the test is over
        finally:
            open_ones.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for task in list(open_ones):
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    line, *fields = head.strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return Request(line, headers, await reader.readexactly(int(headers.get("content-length", 0))))
