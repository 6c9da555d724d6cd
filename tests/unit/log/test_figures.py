"""What an owner says of its partition: how much it holds, and by how much a timer is late."""

from __future__ import annotations

import asyncio

from streams import topics
from streams.log.figures import in_sum
from streams.testing.toys import TIMEOUT_US, start
from tests.unit.log.world import PATIENCE_S, World


async def test_figures_tell_what_is_in_memory_and_a_timer_that_does_not_fire() -> None:
    world = World(local=False)  # nobody answers, so the flow waits for its time-out
    runner = world.own("one")
    await asyncio.wait_for(runner.serving.wait(), PATIENCE_S)
    assert runner.figures() == {"workflow": 0, "waiting": 0, "overdue_ms": 0}
    world.put(topics.COMMANDS, "flow-1", start("flow-1"))
    async with asyncio.timeout(PATIENCE_S):
        while runner.figures()["workflow"] == 0:
            await asyncio.sleep(0.001)
    assert runner.figures() == {"workflow": 1, "waiting": 0, "overdue_ms": 0}
    runner.suspend()
    world.broker.now_ms += TIMEOUT_US // 1000 + 7000
    assert 6900 < runner.figures()["overdue_ms"] <= 7100
    await world.kill()


def test_figures_of_many_are_added_but_of_lateness_the_greatest_counts() -> None:
    one, other = {"workflow": 1, "overdue_ms": 5}, {"workflow": 2, "waiting": 1, "overdue_ms": 3, "note": "no figure"}
    assert in_sum([one, other]) == {"workflow": 3, "waiting": 1, "overdue_ms": 5}
    assert in_sum([]) == {"overdue_ms": 0}
