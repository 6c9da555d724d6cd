"""What every request passes before any route: Host and Origin checks (DNS rebinding, forged requests), body size, metrics.

Plain ASGI, so that streams pass through untouched.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.gateway import problems
from services.gateway.keys import is_loopback
from services.gateway.metrics import Metrics
from streams.errors import BackboneError, Denied, TooLarge

#: Bytes of a request body; beyond it 413.
BODY_BYTES_MAX = 10 * 1024 * 1024


def host_of(authority: str) -> str:
    """The host of `host`, `host:port`, `[v6]:port`, lower case; empty if it is none."""
    try:
        return (urlsplit(f"//{authority}").hostname or "").lower()
    except ValueError:
        return ""


class Guard:
    """Checks Host, Origin and Content-Length."""

    def __init__(self, app: ASGIApp, *, bind: str) -> None:
        self._app = app
        self._loopback = is_loopback(bind)
        self._bind = bind.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses, or passes on with a body that ends with an error when it grows too large."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(headers)
        if refusal is not None:
            await problems.of_error(refusal)(scope, receive, send)
            return
        await _Bounded(self._app)(scope, receive, send)

    def _refusal(self, headers: Mapping[str, str]) -> BackboneError | None:
        host = headers.get("host", "")
        if self._loopback and not (is_loopback(host_of(host)) or host_of(host) == self._bind):
            return Denied("host.refused", "The Host header names another machine; this gateway answers on loopback only.")
        origin = headers.get("origin")
        if origin is not None and authority_of(origin) != host.lower():
            return Denied("origin.refused", "Requests from pages of other origins are refused.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            return _too_large()
        return None


def authority_of(origin: str) -> str:
    """`host[:port]` of an Origin header, lower case; empty for `null` and nonsense."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _too_large() -> TooLarge:
    return TooLarge("body.too-large", f"A body has at most {BODY_BYTES_MAX} bytes.", advice="Send it in parts.")


class _Bounded:
    """Counts the body as it comes (it may come without a length); one that grows too large is answered with 413."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0
        begun = False

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > BODY_BYTES_MAX:
                raise _too_large()
            return message

        async def unless_exceeded(message: Message) -> None:
            nonlocal begun
            if begun or size <= BODY_BYTES_MAX:
                begun = True
                await send(message)

        await self._app(scope, bounded, unless_exceeded)
        if not begun and size > BODY_BYTES_MAX:
            # Whatever a framework made of our error on its way up was held back: the client gets ours.
            await problems.of_error(_too_large())(scope, receive, send)


class Measured:
    """Counts requests and their durations by method, route and status."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on and takes the time until the response has begun (streams last as long as they last)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unknown")
                seconds = time.monotonic() - began
                self._metrics.http_seconds.labels(
                    scope["method"] if scope["method"] in METHODS else "other", route, str(message["status"])
                ).observe(seconds)
            await send(message)

        await self._app(scope, receive, measured)


#: Methods that become label values; anything a client invents does not.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
