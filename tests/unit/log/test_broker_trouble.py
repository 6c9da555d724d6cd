"""A broker that refuses appends for a while (it is away, its disk is full): the partition waits, loses nothing, and does not spin."""

from __future__ import annotations

import asyncio

import pytest

from streams import topics
from streams.log import partition
from streams.log.partition import Checkpointing
from streams.testing.memory_log import Fault
from streams.testing.toys import start
from tests.unit.log.world import World, check_sequences, until


async def test_refused_appends_are_waited_out_with_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    real = asyncio.sleep

    class Sleepless:
        """asyncio as the runner sees it: its pauses are noted, not slept."""

        def __getattr__(self, name: str) -> object:
            return getattr(asyncio, name)

        @staticmethod
        async def sleep(seconds: float) -> None:
            if seconds:
                pauses.append(seconds)
            await real(0)

    monkeypatch.setattr(partition, "asyncio", Sleepless())
    world = World(checkpointing=Checkpointing(records=1))
    runner = world.own("one")
    for number in range(5):
        world.put(topics.COMMANDS, f"flow-{number}", start(f"flow-{number}", steps=2))
    await world.until_completed(5)
    # The disk is full: events and fences are refused alike, some of them stored all the same.
    refused = [Fault.LOST, Fault.LOST, Fault.UNKNOWN, Fault.LOST] * 10
    world.broker.faults.extend(refused)
    for number in range(5, 10):
        world.put(topics.COMMANDS, f"flow-{number}", start(f"flow-{number}", steps=2))
    await until(lambda: not world.broker.faults)
    await world.until_completed(10)
    assert set(world.completed().values()) == {1}
    check_sequences(world)
    await until(runner.serving.is_set)
    assert pauses == sorted(pauses), "each pause is at least as long as the one before"
    assert pauses[-1] <= partition.RECLAIM_PAUSE_S_MAX
    await world.kill()


async def test_snapshots_that_are_refused_for_a_while_stop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.log.checkpoint.RETRY_S", 0.0)
    world = World(checkpointing=Checkpointing(records=1))
    world.broker.snapshot_faults.extend([Fault.LOST] * 50)
    runner = world.own("one")
    for number in range(10):
        world.put(topics.COMMANDS, f"flow-{number}", start(f"flow-{number}", steps=2))
    await world.until_completed(10)
    await until(lambda: not world.broker.snapshot_faults and not runner._owned.lanes["workflow"].fold.view.aggregates)
    await world.kill()
