"""Waiting until the processes that live have read a control topic far enough: what makes a change of it take effect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from streams.records import Heartbeat, now
from streams.topics import WORKERS

if TYPE_CHECKING:
    from streams.bus.bus import Bus

#: A process whose last heartbeat is older than this is not waited for, seconds.
LIVE_S = 5.0


async def wait_reached(bus: Bus, topic: str, offset: int, timeout: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The live processes that have read the control topic up to `offset`, and those that have not within `timeout` seconds.

    Only processes whose heartbeats tell a position in this topic count.
    """
    newest: dict[str, Heartbeat] = {}

    def split(beats: Iterable[Heartbeat]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        live = [beat for beat in beats if topic in beat.control_offsets and beat.time > now() - timedelta(seconds=LIVE_S)]
        done = {beat.process for beat in live if beat.control_offsets[topic] >= offset}
        return tuple(sorted(done)), tuple(sorted({beat.process for beat in live} - done))

    since = now() - timedelta(seconds=LIVE_S)
    async for delivered in bus.read(WORKERS, since=since, until_end=True):
        if isinstance(delivered.record, Heartbeat):
            newest[delivered.record.process] = delivered.record
    begun = now()
    try:
        async with asyncio.timeout(timeout):
            if split(newest.values())[1]:
                async for delivered in bus.read(WORKERS, since=begun - timedelta(seconds=1)):
                    if isinstance(delivered.record, Heartbeat):
                        newest[delivered.record.process] = delivered.record
                        if not split(newest.values())[1]:
                            break
    except TimeoutError:
        pass
    return split(newest.values())
