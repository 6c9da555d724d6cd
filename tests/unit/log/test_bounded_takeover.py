"""What a takeover has to fold does not grow with the load under which the last owner was killed."""

from __future__ import annotations

from streams import topics
from streams.limits import CHECKPOINTS_BEHIND_MAX
from streams.log.partition import Checkpointing
from streams.testing.toys import start
from tests.unit.log.world import World, until


async def test_what_a_takeover_folds_is_bounded_however_much_there_is_to_decide() -> None:
    world = World(checkpointing=Checkpointing(records=50))
    runner = world.own("one")
    for number in range(1500):
        world.put(topics.COMMANDS, f"flow-{number}", start(f"flow-{number}", steps=3))
    await until(lambda: world.broker.end(topics.TRANSITIONS, 0) > 4000)
    assert runner.figures()["waiting"] > 0, "it had much to do until it was killed"
    await world.kill()
    successor = world.own("two")
    await until(successor.taken.is_set)
    # What is decided from one input, and a batch that is under way, may come on top.
    assert all(each.folded <= (CHECKPOINTS_BEHIND_MAX + 1) * 50 for each in successor._owned.lanes.values())
    await world.kill()
