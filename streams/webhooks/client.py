"""The client of webhooks: one POST, limited in time and size, to an address that may be called, without redirects, cookies or proxies.

httpcore is httpx's lower half: it does nothing that it is not told to, and lets us connect to the very address that was checked.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import httpcore

from streams.errors import Denied
from streams.records import now
from streams.settings import Settings
from streams.webhooks.addresses import Network, Target, parse_networks, refusal
from streams.webhooks.outcomes import Answer, Failed, Outcome, outcome_of
from streams.webhooks.signing import keys_of, signature

#: Calls under way at a time, to all destinations.
CALLS_MAX = 256
#: Bytes read of a response; the rest is of no interest, and may have no end.
RESPONSE_BYTES_MAX = 64 * 1024
#: Characters of a response that are told.
_EXCERPT_CHARACTERS = 200
#: Names that are looked up at a time, in threads of their own: a name server that hangs must not hold up the clients of Kafka.
_LOOKUPS_MAX = 16
#: How long one of several addresses is tried, seconds.
_CONNECT_S = 3.0
_IDLE_S = 15.0
_IDLE_MAX = 64


#: The addresses of a host; blocks.
Resolve = Callable[[str, int], list[str]]


class AddressRefused(Denied):
    """The host has no address that may be called."""


class _Guarded(httpcore.AsyncNetworkBackend):
    """Resolves names itself, and connects to an address only if it may be called."""

    def __init__(self, scheme: str, allowed: Sequence[Network], resolve: Resolve, lookups: ThreadPoolExecutor) -> None:
        self._scheme = scheme
        self._allowed = allowed
        self._resolve = resolve
        self._lookups = lookups
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:  # fmt: skip
        found = await asyncio.get_running_loop().run_in_executor(self._lookups, self._resolve, host, port)
        refused = {address: refusal(self._scheme, address, self._allowed) for address in found}
        open_to_us = [address for address, why in refused.items() if why is None]
        if not open_to_us:
            raise AddressRefused("webhook.address-refused", f"{host}: {'; '.join(why for why in refused.values() if why)}.")
        for address in open_to_us[:-1]:
            try:
                return await self._backend.connect_tcp(address, port, _CONNECT_S, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue  # a host may have addresses of a family that does not work here
        return await self._backend.connect_tcp(open_to_us[-1], port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def addresses(host: str, port: int) -> list[str]:
    """The addresses of a host, by the system's name service. Raises `OSError`: the name is not known, or is none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{host[:80]} is no name of a host: {error}") from error
    return list(dict.fromkeys(str(info[4][0]) for info in found))


class WebhookClient:
    """Calls webhooks. Connections are kept for a while and closed by `close`."""

    def __init__(self, settings: Settings, resolve: Resolve = addresses) -> None:
        self._keys = keys_of(settings.webhook_secret.get_secret_value())
        self._timeout_s = settings.webhook_timeout_ms / 1000
        self._per_destination = settings.webhook_concurrency
        self._lookups = ThreadPoolExecutor(_LOOKUPS_MAX, thread_name_prefix="webhook-lookup")
        self._resolve = resolve
        allowed = parse_networks(settings.webhook_networks)
        context = httpcore.default_ssl_context()
        if settings.webhook_ca_file:
            context.load_verify_locations(settings.webhook_ca_file)
        self._pools = {scheme: self._pool(scheme, allowed, context) for scheme in ("http", "https")}
        self._all = asyncio.Semaphore(CALLS_MAX)
        self._destinations: dict[str, tuple[asyncio.Semaphore, int]] = {}  # origin → its calls, and how many wait or are under way

    def _pool(self, scheme: str, allowed: Sequence[Network], context: ssl.SSLContext) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=context, max_connections=CALLS_MAX + _IDLE_MAX, max_keepalive_connections=_IDLE_MAX, keepalive_expiry=_IDLE_S,
            network_backend=_Guarded(scheme, allowed, self._resolve, self._lookups),
        )  # fmt: skip

    async def post(self, target: Target, body: bytes, key: str, headers: Mapping[str, str]) -> tuple[Outcome, float]:
        """One attempt, and how long it took in milliseconds, without the wait for others to the same destination.

        `key` tells this delivery from all others: the same in each attempt. Errors of any kind are outcomes.
        """
        async with self._turn(target.origin), self._all:
            started = time.monotonic()
            outcome = await self._attempt(target, body, self._headers(target, body, key, headers))
            return outcome, (time.monotonic() - started) * 1000

    def _headers(self, target: Target, body: bytes, key: str, headers: Mapping[str, str]) -> list[tuple[str, str]]:
        timestamp_s = int(time.time())
        signed = {"webhook-signature": signature(self._keys, key, timestamp_s, body)} if self._keys else {}
        ours = {
            "host": target.origin.partition("://")[2], "content-type": "application/json", "content-length": str(len(body)),
            "user-agent": "mplp-backbone", "idempotency-key": key, "webhook-id": key, "webhook-timestamp": str(timestamp_s),
        }  # fmt: skip
        return [*headers.items(), *ours.items(), *signed.items()]

    async def _attempt(self, target: Target, body: bytes, headers: list[tuple[str, str]]) -> Outcome:
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._exchange(target, body, headers)
        except (TimeoutError, httpcore.TimeoutException):
            return Failed(code="webhook.timeout", message=f"No answer within {self._timeout_s:g} s.", retryable=True)
        except AddressRefused as error:
            return Failed(code=error.code, message=error.message, retryable=False)
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            return Failed(code="webhook.unreachable", message=f"{type(error).__name__}: {error}", retryable=True)
        return outcome_of(answer, now())

    async def _exchange(self, target: Target, body: bytes, headers: list[tuple[str, str]]) -> Answer:
        url = httpcore.URL(scheme=target.scheme, host=target.host, port=target.port, target=target.path)
        async with self._pools[target.scheme].stream("POST", url, headers=headers, content=body) as response:
            content = bytearray()
            async for part in response.aiter_stream():
                content += part
                if len(content) > RESPONSE_BYTES_MAX:
                    break  # the connection is closed with what is left on it
            found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            return Answer(status=response.status, headers=found, excerpt=_excerpt(bytes(content)))

    @asynccontextmanager
    async def _turn(self, origin: str) -> AsyncIterator[None]:
        """A place among the calls to one destination."""
        semaphore, users = self._destinations.get(origin, (asyncio.Semaphore(self._per_destination), 0))
        self._destinations[origin] = (semaphore, users + 1)
        try:
            async with semaphore:
                yield
        finally:
            _, users = self._destinations.pop(origin)
            if users > 1:
                self._destinations[origin] = (semaphore, users - 1)

    async def close(self) -> None:
        """Closes the connections."""
        for pool in self._pools.values():
            await pool.aclose()
        self._lookups.shutdown(wait=False, cancel_futures=True)


def _excerpt(content: bytes) -> str:
    text = content.decode(errors="replace")
    return "".join(character if character.isprintable() else " " for character in text[:_EXCERPT_CHARACTERS]).strip()
