"""The gateway process: HTTP, and the history when it is embedded (one process owns its folder).

`python -m services.processes.gateway`
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus

from services.gateway.app import create_app
from services.gateway.keys import check_bind, parse_keys
from services.history.sink import Sink
from services.history.store import History
from services.processes.gateway_lags import RouteLags
from services.processes.gateway_ports import Pulse, SunkHistory, ports_over
from services.processes.runtime import connected, run_process, say_ready
from streams.bus.bus import Bus
from streams.errors import Refused
from streams.settings import Settings

#: Seconds that open requests have to end after SIGTERM.
GRACE_S = 3
#: Connections beyond which new ones are answered with 503.
CONNECTIONS_MAX = 1000


class Server(uvicorn.Server):
    """Uvicorn without its own signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield

    async def stop(self, serving: asyncio.Task[None]) -> None:
        """Takes no new requests, lets open ones end, ends live streams, and returns when all is closed."""
        AppStatus.should_exit = True
        self.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)


async def serve(settings: Settings) -> None:
    """Runs until cancelled."""
    keys = parse_keys(settings.api_keys.get_secret_value())
    check_bind(settings.http_host, keys)
    listener = listening(settings.http_host, settings.http_port)
    with contextlib.closing(listener):
        kafka, codec = await connected(settings)
        bus = Bus(kafka, codec)
        store = History(settings)
        history = SunkHistory(store, Sink(kafka, codec, store))
        pulse, lags = Pulse(bus), RouteLags(bus)
        app = create_app(ports_over(bus, history, pulse, lags), keys=keys, bind=settings.http_host)
        try:
            await _run(app, listener, history, pulse, lags)
        finally:
            await bus.close()
            await store.close()


async def _run(app: FastAPI, listener: socket.socket, history: SunkHistory, pulse: Pulse, lags: RouteLags) -> None:
    server = Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            timeout_graceful_shutdown=GRACE_S,
            limit_concurrency=CONNECTIONS_MAX,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            ws="none",
        )
    )
    background = [asyncio.create_task(each) for each in (history.run(), pulse.run(), lags.run())]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    announcing = asyncio.create_task(_announce(server))
    try:
        done, _ = await asyncio.wait([*background, serving], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        announcing.cancel()
        await server.stop(serving)
        for task in background:
            task.cancel()
        await asyncio.gather(announcing, *background, return_exceptions=True)


async def _announce(server: uvicorn.Server) -> None:
    while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)
    say_ready()


def listening(host: str, port: int) -> socket.socket:
    """A bound socket. Raises `Refused` (`port.taken`, `bind.impossible`)."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Refused("port.taken", f"Port {port} of {host} is in use.", advice="Stop what uses it, or set MPLP_HTTP_PORT.") from error
        raise Refused("bind.impossible", f"The gateway cannot listen on {host}:{port}: {error.strerror}.") from error
    return listener


def main() -> None:
    """Entry point."""
    run_process(serve)


if __name__ == "__main__":
    main()
