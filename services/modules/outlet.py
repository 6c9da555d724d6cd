"""Where the messages of operations go that run in a worker: Kafka."""

from __future__ import annotations

from streams.bus.executions import Executions
from streams.bus.publisher import Publisher
from streams.bus.stories import result_of
from streams.records import Json, ModuleMessage, SystemEvent
from streams.topics import SYSTEM_EVENTS


class BusOutlet:
    """`call.Outlet` over a worker's connection."""

    def __init__(self, publisher: Publisher, hub: Executions) -> None:
        self._publisher = publisher
        self._hub = hub

    async def publish(self, event: SystemEvent) -> None:
        """See `Outlet.publish`."""
        await self._publisher.publish(event, SYSTEM_EVENTS, ())

    async def ask(self, request: ModuleMessage, timeout_s: float) -> Json:
        """See `Outlet.ask`."""
        return result_of(await self._hub.answer_of(request.target_module or "", request, timeout_s))
