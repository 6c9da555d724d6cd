"""The partitions of a host: what a rebalance that ends late may still start."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from streams.log.owned import OwnedPartitions
from streams.log.partition import PartitionRunner


class Runner:
    """Stands for a partition's runner: it resumes when it is let."""

    def __init__(self) -> None:
        self.may_resume = asyncio.Event()
        self.resuming = asyncio.Event()
        self.began = False

    async def run(self) -> None:
        self.began = True
        await asyncio.Event().wait()

    async def resume(self) -> None:
        self.resuming.set()
        await self.may_resume.wait()


async def test_a_host_that_gives_up_everything_while_a_rebalance_ends_runs_nothing_afterwards() -> None:
    made: dict[int, Runner] = {}

    def new(partition: int) -> PartitionRunner:
        made[partition] = Runner()
        return cast(Any, made[partition])

    owned = OwnedPartitions(new)
    await owned.assigned([0, 1])
    rebalance = asyncio.create_task(owned.assigned([0, 1, 2]))
    await made[0].resuming.wait()
    await owned.stop_all()
    for runner in made.values():
        runner.may_resume.set()
    await rebalance
    assert (owned.runners, sorted(made)) == ({}, [0, 1])
