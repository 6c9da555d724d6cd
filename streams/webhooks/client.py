"""The client of webhooks: one POST, limited in time and size, to an address that may be called, without redirects, cookies or proxies.

aiohttp parses in C and keeps connections without asking the system about each of them for every call. It is told to do nothing of its own
accord, resolves names by us alone, and opens each socket by us: so the address that is connected to is the one that was checked.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

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
_IDLE_S = 15.0
#: Headers that aiohttp would add.
_UNWANTED = ("accept", "accept-encoding", "user-agent", "content-type")


#: The addresses of a host; blocks.
Resolve = Callable[[str, int], list[str]]


class AddressRefused(Denied):
    """The host has no address that may be called."""


class _Resolver(AbstractResolver):
    """Of the addresses of a name only those that may be called."""

    def __init__(self, scheme: str, allowed: Sequence[Network], resolve: Resolve, lookups: ThreadPoolExecutor) -> None:
        self._scheme = scheme
        self._allowed = allowed
        self._resolve = resolve
        self._lookups = lookups

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """See `AbstractResolver`. Raises `AddressRefused`, `OSError`."""
        found = await asyncio.get_running_loop().run_in_executor(self._lookups, self._resolve, host, port)
        refused = {address: refusal(self._scheme, address, self._allowed) for address in found}
        open_to_us = [address for address, why in refused.items() if why is None]
        if not open_to_us:
            raise AddressRefused("webhook.address-refused", f"{host}: {'; '.join(why for why in refused.values() if why)}.")
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=socket.AF_INET6 if ":" in address else socket.AF_INET, proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in open_to_us
        ]  # fmt: skip

    def open(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for an address; also of hosts that are written as one, which nobody resolves. Raises `AddressRefused`."""
        family, kind, protocol, _, address = info
        why = refusal(self._scheme, str(address[0]), self._allowed)
        if why is not None:
            raise AddressRefused("webhook.address-refused", f"{why}.")
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """See `AbstractResolver`: who made the lookups ends them."""


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
        self._allowed = parse_networks(settings.webhook_networks)
        # The authorities of the system, and those that come with Python.
        self._trusted = ssl.create_default_context()
        self._trusted.load_verify_locations(certifi.where())
        if settings.webhook_ca_file:
            self._trusted.load_verify_locations(settings.webhook_ca_file)
        self._sessions: dict[str, aiohttp.ClientSession] = {}  # by scheme
        self._all = asyncio.Semaphore(CALLS_MAX)
        self._destinations: dict[str, tuple[asyncio.Semaphore, int]] = {}  # origin → its calls, and how many wait or are under way

    def _session(self, scheme: str) -> aiohttp.ClientSession:
        if scheme not in self._sessions:
            resolver = _Resolver(scheme, self._allowed, self._resolve, self._lookups)
            connector = aiohttp.TCPConnector(
                resolver=resolver, socket_factory=resolver.open, use_dns_cache=False, ssl=self._trusted, limit=0, keepalive_timeout=_IDLE_S,
            )  # fmt: skip
            self._sessions[scheme] = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, skip_auto_headers=_UNWANTED,
                timeout=aiohttp.ClientTimeout(total=None),
            )  # fmt: skip
        return self._sessions[scheme]

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
            "host": target.origin.partition("://")[2], "content-type": "application/json", "user-agent": "mplp-backbone",
            "idempotency-key": key, "webhook-id": key, "webhook-timestamp": str(timestamp_s),
        }  # fmt: skip
        return [*headers.items(), *ours.items(), *signed.items()]

    async def _attempt(self, target: Target, body: bytes, headers: list[tuple[str, str]]) -> Outcome:
        heard: list[Answer] = []
        failed: Failed | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._exchange(target, body, headers, heard)
        except AddressRefused as error:
            failed = Failed(code=error.code, message=error.message, retryable=False)
        except aiohttp.InvalidURL as error:  # what some systems take for an address: 127.1, 2130706433
            failed = Failed(code="webhook.address-refused", message=f"{target.host}: {error}.", retryable=False)
        except TimeoutError:
            failed = Failed(code="webhook.timeout", message=f"No answer within {self._timeout_s:g} s.", retryable=True)
        except aiohttp.ClientResponseError as error:  # as text it names the URL, whose query may be a secret
            said = _excerpt(error.message.encode())
            failed = Failed(code="webhook.unreachable", message=f"This is no answer of HTTP: {said}", retryable=True)
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            failed = Failed(code="webhook.tls-failed", message=f"{type(error).__name__}: {error}", retryable=True)
        except (aiohttp.ClientError, OSError) as error:
            failed = Failed(code="webhook.unreachable", message=f"{type(error).__name__}: {error}", retryable=True)
        # The status decides, also if the body breaks off or has no end: who says 2xx has it, and would get it again.
        return outcome_of(heard[-1], now()) if heard else failed or Failed(code="webhook.unreachable", message="No answer.", retryable=True)

    async def _exchange(self, target: Target, body: bytes, headers: list[tuple[str, str]], heard: list[Answer]) -> None:
        """Adds to `heard` what is known of the answer: its head, then all of it."""
        url = URL(target.url, encoded=True)
        async with self._session(target.scheme).post(url, data=body, headers=headers, allow_redirects=False) as response:
            found = {name.lower(): value for name, value in response.headers.items()}
            heard.append(Answer(status=response.status, headers=found))
            content = bytearray()
            async for part in response.content.iter_any():
                content += part
                if len(content) > RESPONSE_BYTES_MAX:
                    response.close()  # with what is left on it
                    break
            heard.append(Answer(status=response.status, headers=found, excerpt=_excerpt(bytes(content))))

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
        for session in self._sessions.values():
            await session.close()
        self._lookups.shutdown(wait=False, cancel_futures=True)


def _excerpt(content: bytes) -> str:
    text = content.decode(errors="replace")
    return "".join(character if character.isprintable() else " " for character in text[:_EXCERPT_CHARACTERS]).strip()
