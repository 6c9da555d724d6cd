"""The partitions that a group gives to this process, and a runner for each: suspended, resumed, started and stopped as a
rebalance says. It knows no broker: `Host` drives it with aiokafka's group, the simulation with a group of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from streams.concurrency import cancelled
from streams.log.partition import PartitionRunner


class OwnedPartitions:
    """Runs a `PartitionRunner` for every partition of ours. `failed` gets what ends a runner for good."""

    def __init__(self, new_runner: Callable[[int], PartitionRunner]) -> None:
        self._new_runner = new_runner
        self._closed = False
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.runners: dict[int, PartitionRunner] = {}
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def revoked(self, partitions: Iterable[int]) -> None:
        """A rebalance begins: nothing more is decided until it has ended."""
        for partition in partitions:
            if partition in self.runners:
                self.runners[partition].suspend()

    async def assigned(self, partitions: Iterable[int]) -> None:
        """A rebalance ended: gives up what went, goes on with what stayed, takes over what is new."""
        ours = set(partitions)
        for partition in sorted(set(self.runners) - ours):
            await self._stop(partition)
        for partition in sorted(ours & set(self.runners)):
            runner = self.runners.get(partition)
            if runner is not None:  # else everything was given up meanwhile
                await runner.resume()
        for partition in () if self._closed else sorted(ours - set(self.runners)):
            self._start(partition)

    async def stop_all(self) -> None:
        """Gives up everything, for good: a rebalance that is under way starts nothing any more."""
        self._closed = True
        for partition in list(self.runners):
            await self._stop(partition)

    def _start(self, partition: int) -> None:
        runner = self.runners[partition] = self._new_runner(partition)
        task = self._tasks[partition] = asyncio.create_task(runner.run())
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.failed.done():
            return
        error = task.exception()
        if error is not None:
            self.failed.set_exception(error)

    async def _stop(self, partition: int) -> None:
        self.runners.pop(partition, None)
        task = self._tasks.pop(partition, None)
        if task is not None:
            await cancelled(task)


__all__ = ["OwnedPartitions"]
