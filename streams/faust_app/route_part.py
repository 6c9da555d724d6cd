"""What a worker does about routes: one place that knows whether it does anything at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import structlog
from aiokafka.errors import KafkaError

from streams.codec.avro import Codec
from streams.concurrency import cancelled
from streams.errors import BackboneError
from streams.faust_app.brought import NextOffset
from streams.faust_app.prefix import Chunk
from streams.faust_app.route_reader import RouteChange, RoutesReader
from streams.faust_app.tenure import Tenure
from streams.kafka import Kafka

if TYPE_CHECKING:
    from streams.faust_app.route_stage import RouteStage

_CATCH_UP_S = 10.0
#: How long what is under way may take when the worker ends, seconds.
_RETIRE_S = 2.0

_log = structlog.get_logger("routes")


class RoutePart:
    """See the module. `failed` gets what must end the process."""

    def __init__(
        self, kafka: Kafka, codec: Codec, *, enabled: bool, failed: Callable[[BaseException], None], next_offset: NextOffset
    ) -> None:
        self.enabled = enabled
        self.tenure = Tenure(kafka.settings.group_session_timeout_ms / 1000)
        self.stage: RouteStage | None = None
        self._kafka = kafka
        self._codec = codec
        self._failed = failed
        self._next_offset = next_offset
        self._reader = RoutesReader(kafka, codec)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def offset(self) -> int:
        """Next offset of the control topic: everything before it is in force here."""
        return self._reader.offset

    @property
    def topics(self) -> frozenset[str]:
        """What routes read."""
        return frozenset() if self.stage is None else self.stage.topics

    async def read(self) -> None:
        """Reads the routes in force. Raises `BackboneError`."""
        if self.enabled:
            from streams.faust_app.route_stage import RouteStage

            await self._reader.open()
            self.stage = RouteStage(self._kafka, self._codec, self._reader, self.tenure, failed=self._failed, next_offset=self._next_offset)

    async def open(self, matched: Iterable[str]) -> None:
        """Begins; see `RouteStage.open`. Raises `BackboneError`."""
        if self.stage is not None:
            await self.stage.open(matched)

    async def follow(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Takes over what changes, until cancelled; then calls `changed`."""

        async def use(changes: Sequence[RouteChange]) -> None:
            assert self.stage is not None
            await self.stage.use(changes)
            _log.info("routes.changed", routes=[change.route_id for change in changes], active=len(self._reader.routes))
            await changed()

        if self.stage is None:
            await asyncio.Event().wait()
        await self._reader.follow(use)

    async def revoked(self) -> None:
        """The group is about to share the partitions anew; whoever gets them goes on from what is written down now."""
        if self.stage is not None:
            await self.stage.revoked()

    def assigned(self, held: set[tuple[str, int]]) -> None:
        """After a rebalance: the source partitions held. Taking them goes on beside the group."""
        if self.stage is not None:
            task = asyncio.create_task(self._take(self.stage, held, self.tenure.generation))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _take(self, stage: RouteStage, held: set[tuple[str, int]], generation: int) -> None:
        try:
            try:
                # We may have slept: nothing is delivered by routes that were changed before the partitions became ours.
                async with asyncio.timeout(_CATCH_UP_S):
                    await self._reader.catch_up()
            except TimeoutError:
                _log.warning("routes.not-caught-up", offset=self._reader.offset)
            await stage.assigned(held, generation)
        except (BackboneError, KafkaError, OSError) as error:
            self._failed(error)

    async def retire(self) -> None:
        """This worker is about to leave the group."""
        await self.tenure.end(_RETIRE_S)
        await self.revoked()

    async def take(self, chunk: Chunk) -> None:
        """What Faust has fetched; waits a little where there is no room for it."""
        if self.stage is not None:
            await self.stage.room(chunk)
            self.stage.offer(chunk)

    async def close(self) -> None:
        """Stops everything."""
        tasks, self._tasks = self._tasks, set()
        await cancelled(*tasks)
        stage, self.stage = self.stage, None
        if stage is not None:
            await stage.close()
        await self._reader.close()
