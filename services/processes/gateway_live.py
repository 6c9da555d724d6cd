"""The gateway's port of live streams and of looking back, over the bus."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from services.gateway.ports import Item, LookBack
from streams.bus.bus import Bus
from streams.bus.history import EVENT_TOPICS
from streams.codec.avro import to_json


class BusLive:
    """`ports.Live` over the bus: a reader, and a connection to Kafka, for every stream."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def follow(
        self, topic: str, *, since: str, where: str | None, type: str | None, source: str | None
    ) -> AsyncGenerator[Item, None]:
        """See `ports.Live`."""
        subscription = self._bus.read(topic, since=since, where=where, type=type, source=source)
        await subscription.start()

        async def items() -> AsyncGenerator[Item, None]:
            try:
                async for delivered in subscription:
                    place = f"{delivered.topic}/{delivered.partition}/{delivered.offset}"
                    yield Item(id=place, record=to_json(delivered.record))
            finally:
                await subscription.aclose()

        return items()

    async def page(self, asked: LookBack) -> tuple[Sequence[Mapping[str, Any]], str | None]:
        """See `ports.Live`."""
        found = await self._bus.history_page(
            type=asked.type, source=asked.source, subject=asked.subject, correlation_id=asked.correlation_id, since=asked.since,
            until=asked.until, where=asked.where, topics=asked.topics or EVENT_TOPICS, limit=asked.limit, after=asked.after,
        )  # fmt: skip
        return [to_json(record) for record in found.records], found.next
