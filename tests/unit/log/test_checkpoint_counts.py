"""A checkpoint says how many states it has: neither what comes back while the next one is under way nor a zombie makes it unusable."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from streams import topics
from streams.log.archive import Archive, Leaving
from streams.log.checkpoint import Checkpointer
from streams.log.memory import Memory
from streams.log.partition import Checkpointing, PartitionRunner
from streams.log.snapshot import Checkpoint, Frozen, Shelf, dump_checkpoint, dump_state, usable
from streams.records import ModuleMessage
from streams.testing.toys import FlowMachine, FlowState, command, start
from tests.unit.log.world import World, until

NEVER = Checkpointing(records=10**9, interval_ms=10**9)


def echo(flow: str, step: int) -> ModuleMessage:
    """A module's answer to a step."""
    return ModuleMessage(
        type="x", kind="response", source_module="echo", operation="echo", execution_id=flow, attempt=step, status="success"
    )  # fmt: skip


async def world_with_an_ended_flow() -> tuple[World, PartitionRunner]:
    """One flow that ended, and no checkpoint yet."""
    world = World(local=False, checkpointing=NEVER)
    runner = world.own("one")
    world.put(topics.COMMANDS, "flow", start("flow", steps=1))
    await until(lambda: world.effects.sent)
    world.put(topics.RESPONSES, "flow", echo("flow", 1))
    await world.until_completed(1)
    await settled(runner)
    return world, runner


async def settled(runner: PartitionRunner) -> None:
    """Until everything that is decided is acknowledged."""
    lane = runner._owned.lanes["workflow"]
    await until(lambda: lane.done == lane.fold.next_offset and not lane.waiting)


async def write(runner: PartitionRunner) -> None:
    """A round of the checkpointer."""
    await Checkpointer(runner._owned.lanes["workflow"], runner._owned, runner._ports).write()


async def retry(world: World, runner: PartitionRunner) -> None:
    """The flow that ended goes on."""
    world.put(topics.COMMANDS, "flow", command("flow", "retry"))
    await until(lambda: "execution.retried" in [event.type for event in world.valid()])
    await settled(runner)


async def fail_before_the_checkpoint(runner: PartitionRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that writes its states, and then not the checkpoint itself."""

    def refuse(self: Checkpointer, checkpoint: Checkpoint) -> None:
        raise ConnectionError("the broker is away")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpointer, "_record", refuse)
        with pytest.raises(ConnectionError):
            await write(runner)


async def taken_from(world: World) -> tuple[int, set[str]]:
    """The offset of the checkpoint that a successor begins with, and what it has in memory then."""
    await world.kill()
    successor = world.own("two")
    await until(successor.serving.is_set)
    taken = successor._owned.lanes["workflow"]
    await world.kill()
    return taken.checkpoint_offset, set(taken.fold.view.aggregates)


async def test_what_changed_while_it_was_parked_is_not_among_those_that_the_checkpoint_has(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a flow that goes on while a checkpoint parks it
    world, runner = await world_with_an_ended_flow()
    park = Archive.park

    async def park_slowly(self: Archive, leaving: Sequence[Leaving], *, before: int) -> None:
        await park(self, leaving, before=before)
        await retry(world, runner)

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "park", park_slowly)
        await write(runner)
    offset = runner._owned.lanes["workflow"].checkpoint_offset
    # when the next round ends after its states
    await fail_before_the_checkpoint(runner, monkeypatch)
    # then the checkpoint is used as it is
    assert await taken_from(world) == (offset, {"flow"})


def test_what_came_back_counts_from_its_change_on() -> None:
    # given an aggregate that came back before a checkpoint at 10, to be looked at
    memory = Memory(partition=0, partitions=1)
    memory.revive("flow", Frozen(state="ended", sequence=4, born=2, since=2))
    assert memory.capture().aggregates == []
    # when it changes behind it
    memory.note_change("flow", 5, 12)
    memory.release()
    # then it is not one of those that the checkpoint has
    ((_, frozen),) = memory.capture().aggregates
    assert (frozen.sequence, frozen.born, frozen.since) == (5, 2, 12)


def shelf_with(states: dict[tuple[int, str], tuple[int, int]], **checkpoint: object) -> Shelf:
    """A checkpoint of epoch 6 at offset 20, and states: by epoch and aggregate the offset at which, and since when, they were written."""
    shelf = Shelf("log", 0, fences={5: 1, 6: 15})
    content = dump_checkpoint(Checkpoint(epoch=6, offset=20, time_us=0, positions={}, **checkpoint), FlowMachine.states.version)  # type: ignore[arg-type]
    shelf.checkpoints[6] = ("6/checkpoint/0", 20, content)
    flow = FlowState(flow_id="flow", step=1, steps=2, since_us=0)
    for (epoch, aggregate_id), (offset, since) in states.items():
        raw = dump_state(FlowMachine.states, Frozen(state=flow, sequence=1, born=since, since=since))
        shelf.states.setdefault(aggregate_id, {})[epoch] = (offset, raw)
    return shelf


def test_a_state_that_a_zombie_wrote_after_the_takeover_does_not_count() -> None:
    shelf = shelf_with({(6, "flow"): (20, 10), (5, "ended"): (17, 13)}, live=1, epochs=(6,))
    assert set(usable(shelf, 6, FlowMachine.states).states) == {"flow"}


def test_what_had_gone_and_came_back_is_a_state_and_not_one_that_the_checkpoint_has() -> None:
    shelf = shelf_with({(6, "flow"): (20, 10), (6, "again"): (25, 3)}, live=1, gone=("again",), epochs=(6,))
    found = usable(shelf, 6, FlowMachine.states)
    assert set(found.states) == {"flow", "again"}
    assert found.contained == {"again": 25}
