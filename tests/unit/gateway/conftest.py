"""A gateway over ports in memory, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from services.gateway.app import create_app
from services.gateway.keys import Keys
from services.gateway.memory import Memory


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def client_of() -> Callable[..., httpx.AsyncClient]:
    """Makes clients of a gateway over given ports; a defect comes back as the 500 that a real client would see."""

    def client(memory: Memory, keys: Keys | None = None, bind: str = "127.0.0.1") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(create_app(memory.ports(), keys=keys, bind=bind), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8700")

    return client


@pytest.fixture
async def http(memory: Memory, client_of: Callable[..., httpx.AsyncClient]) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(memory) as client:
        yield client
