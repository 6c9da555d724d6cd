"""Writes what is told in the order in which it is told, many records at a time, beside those who tell it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import structlog

from streams.bus.bodies import Bodies, bodies_of, joined
from streams.bus.publisher import Publisher
from streams.bus.rendering import Rendered
from streams.concurrency import cancelled
from streams.errors import BackboneError, Fault

#: Records that wait to be written, beyond which those who tell wait.
_WAITING_MAX = 20_000
#: Records beyond which no more are written together.
_BATCH_MIN = 5000
_AGAIN_S = 1.0

_log = structlog.get_logger("routes")


class Teller:
    """One topic's. `failed` gets what must end the process."""

    def __init__(self, publisher: Publisher, topic: str, failed: Callable[[BaseException], None]) -> None:
        self._publisher = publisher
        self._topic = topic
        self._waiting: deque[Mapping[int, Bodies]] = deque()
        self._told = self._written = 0
        self._changed = asyncio.Condition()
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._write())
        self._failed = failed
        self._task.add_done_callback(self._ended)

    async def tell(self, records: Sequence[Rendered]) -> None:
        """Takes records; waits only while there are too many."""
        bodies: dict[int, list[bytes]] = {}
        for partition, body in records:
            bodies.setdefault(partition, []).append(body)
        await self.tell_all({partition: bodies_of(each) for partition, each in bodies.items()})

    async def tell_all(self, records: Mapping[int, Bodies]) -> None:
        """As `tell`, of records by partition."""
        while self._told - self._written > _WAITING_MAX:
            async with self._changed:
                await self._changed.wait()
        self._waiting.append(records)
        self._told += sum(map(len, records.values()))
        self._wake.set()

    async def flush(self) -> None:
        """Returns when the broker has all that was told before."""
        wanted = self._told
        async with self._changed:
            await self._changed.wait_for(lambda: self._written >= wanted)

    async def close(self) -> None:
        """Stops; what is not written is lost."""
        await cancelled(self._task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def _write(self) -> None:
        while True:
            self._wake.clear()
            if not self._waiting:
                await self._wake.wait()
            pieces: dict[int, list[Bodies]] = {}
            records = 0
            while self._waiting and records < _BATCH_MIN:
                for partition, bodies in self._waiting.popleft().items():
                    pieces.setdefault(partition, []).append(bodies)
                    records += len(bodies)
            batch = {partition: joined(each) for partition, each in pieces.items()}
            while True:
                try:
                    await self._publisher.send_rendered(self._topic, batch)
                    break
                except BackboneError as error:
                    if error.fault is not Fault.PEER:
                        _log.error("report.lost", topic=self._topic, records=records, code=error.code, message=error.message)
                        break
                    await asyncio.sleep(_AGAIN_S)
            self._written += records
            async with self._changed:
                self._changed.notify_all()
