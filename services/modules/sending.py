"""Answers on their way to Kafka: those that wait go out together, in one request, while the next ones gather.

Sending each on its own would let every answer wait for the one before it in its partition.
"""

from __future__ import annotations

import asyncio

from streams.bus.outgoing import Outgoing, outgoing
from streams.bus.publisher import Publisher
from streams.codec.avro import Codec
from streams.records import Record


class GroupSender:
    """Sends records to one topic; `run` does the work, as long as it runs."""

    def __init__(self, publisher: Publisher, codec: Codec, topic: str) -> None:
        self._publisher = publisher
        self._codec = codec
        self._topic = topic
        self._waiting: list[tuple[Outgoing, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()

    async def send(self, key: str, record: Record) -> None:
        """Returns when the broker has the record.

        Raises what `streams.bus.outgoing.outgoing` raises about the record, and `Unavailable` when Kafka did not take it: then
        it may be there or not, and sending it again is safe.
        """
        ready = outgoing(self._codec, record, await self._publisher.partitions(self._topic), key=key)
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ready, acknowledged))
        self._wake.set()
        await acknowledged

    async def run(self) -> None:
        """Sends until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            group, self._waiting = self._waiting, []
            error: Exception | None = None
            try:
                await self._publisher.send(self._topic, [ready for ready, _ in group])
            except Exception as caught:  # noqa: BLE001  whoever waits gets it
                error = caught
            for _, acknowledged in group:
                if acknowledged.done():
                    continue  # whoever waited is gone
                if error is None:
                    acknowledged.set_result(None)
                else:
                    acknowledged.set_exception(error)
