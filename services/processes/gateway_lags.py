"""How far routes are behind, looked up again and again for `/metrics` and lists: nobody who asks waits for Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import structlog
from aiokafka.errors import KafkaError

from streams.bus.bus import Bus
from streams.concurrency import cancelled
from streams.errors import BackboneError
from streams.faust_app.route_reader import RouteChange, RoutesReader
from streams.routing.lag import Lag, Lags

#: Seconds between two looks.
INTERVAL_S = 5.0
_RETRY_S = 1.0

_log = structlog.get_logger("gateway")


class RouteLags:
    """The lags as they were a moment ago."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._found: dict[str, Lag] = {}

    def latest(self) -> Mapping[str, Lag]:
        """Route → how far it was behind when that was looked up last; empty as long as it never was."""
        return self._found

    async def run(self) -> None:
        """Looks until cancelled; begins again when Kafka was away."""
        while True:
            try:
                await self._look_on()
            except (BackboneError, KafkaError, OSError) as error:
                _log.warning("lags.waiting", error=str(error))
            await asyncio.sleep(_RETRY_S)

    async def _look_on(self) -> None:
        reader, lags = RoutesReader(self._bus.kafka, self._bus.codec), Lags(self._bus)
        following: asyncio.Task[None] | None = None
        try:
            await reader.open()
            following = asyncio.create_task(reader.follow(_nothing_to_do))
            while not following.done():
                self._found = await lags.now(reader.routes.values())
                await asyncio.wait([following], timeout=INTERVAL_S)
            following.result()
        finally:
            if following is not None:
                await cancelled(following)
            await reader.close()


async def _nothing_to_do(_: Sequence[RouteChange]) -> None:
    """The reader knows the routes in force; the next look uses them."""
