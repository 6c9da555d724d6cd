"""How all blocks of what rests are read."""

from __future__ import annotations

import pytest

from streams import topics
from streams.log import resting
from tests.unit.log.test_resting import ask, counted, in_memory, lane, round_of, settled, told


@pytest.mark.parametrize("run_min", [1, 1000])
async def test_all_blocks_are_read_together_or_one_by_one_and_the_newest_counts(monkeypatch: pytest.MonkeyPatch, run_min: int) -> None:
    monkeypatch.setattr(resting, "BLOCK_STATES_MAX", 1)
    monkeypatch.setattr(resting, "RUN_GAP_MAX", 3)
    monkeypatch.setattr(resting, "RUN_MIN", run_min)
    world, runner = await counted(homes=12)
    for home in (3, 4, 4, 9):
        ask(world, f"home-{home}", "add", len(world.broker.records(topics.REQUESTS)))
    await settled(runner, world)
    await round_of(runner)  # what changed rests again, in newer blocks
    ask(world, "home-5", "end", 1)
    await settled(runner, world)
    await round_of(runner)  # it is parked
    assert in_memory(runner) == set()
    assert lane(runner).fold.view.rested.blocks >= 15
    ask(world, "home-0", "census", 1)
    await settled(runner, world)
    assert told(world, "census") == [[11, 15]]
    await world.kill()


def test_offsets_that_lie_near_each_other_are_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "RUN_GAP_MAX", 2)
    assert list(resting.runs_of([])) == []
    assert list(resting.runs_of([1, 2, 5, 9, 12, 20])) == [[1, 2, 5], [9, 12], [20]]
