"""The feed of a worker by Faust: one app, one Faust agent per topic, the chunk transport."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import structlog
from faust.types import TP

from streams.faust_app.app import add_agent, consumer_of, new_app
from streams.faust_app.feed import Subscription
from streams.faust_app.prefix import Chunk

_STOP_TIMEOUT_S = 3.0

_log = structlog.get_logger("worker")


class FaustFeed:
    """See `streams.faust_app.feed.Feed`."""

    def __init__(self, subscription: Subscription) -> None:
        self._unhurried = subscription.unhurried
        self._app = new_app(subscription.settings, group=subscription.group, instance=subscription.instance)
        for topic, (name, handle) in subscription.handlers.items():
            add_agent(self._app, [topic], handle, subscription.failed, name)

        tenure = self._tenure = subscription.tenure

        async def assigned(_app: Any, assigned: set[TP], **_: Any) -> None:
            if tenure is not None:
                tenure.begin(consumer_of(self._app).group_generation)
            await subscription.assigned({(tp.topic, tp.partition) for tp in assigned})

        async def revoked(_app: Any, _revoked: set[TP], **_: Any) -> None:
            if tenure is not None:
                await tenure.end()
            await subscription.revoked()

        # mode's signals are typed for functions that take anything
        hooks: tuple[Any, Any] = assigned, revoked
        self._app.on_partitions_assigned.connect(hooks[0])
        self._app.on_partitions_revoked.connect(hooks[1])

    async def start(self) -> None:
        """See `Feed.start`."""
        if self._tenure is not None:
            consumer_of(self._app).heard = self._tenure.heard
        consumer_of(self._app).unhurried = lambda: {TP(topic, partition) for topic, partition in self._unhurried()}
        await self._app.start()

    async def stop(self) -> None:
        """See `Feed.stop`. Faust that has crashed may never come to an end, and what is not committed is fetched again."""
        try:
            await asyncio.wait_for(self._app.stop(), _STOP_TIMEOUT_S)
        except TimeoutError:
            _log.warning("worker.faust-not-stopped", seconds=_STOP_TIMEOUT_S)

    def crash(self) -> BaseException | None:
        """See `Feed.crash`."""
        return self._app.crash_reason

    def place(self, topic: str, partition: int) -> tuple[int, bool] | None:
        """See `Feed.place`."""
        return consumer_of(self._app).place(TP(topic, partition))

    def is_current(self, chunk: Chunk) -> bool:
        """See `Feed.is_current`."""
        return consumer_of(self._app).is_current(chunk)

    def waiting_s(self) -> float:
        """See `Feed.waiting_s`."""
        oldest = consumer_of(self._app).prefix.oldest()
        return 0.0 if oldest is None else monotonic() - oldest
