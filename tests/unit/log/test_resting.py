"""What rests leaves memory and is there whenever somebody asks, for it or for all; whatever is killed, renewed or lost beside the log."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest

from streams import topics
from streams.log import resting
from streams.log.checkpoint import Checkpointer
from streams.log.lanes import Lane
from streams.log.partition import Checkpointing, PartitionRunner
from streams.log.ports import Kept
from streams.log.snapshot import PARKED, RESTED
from streams.log.types import REFOLD, Decision, Due, Entry, Input, Send, View
from streams.records import ModuleMessage, derived_id, from_micros
from streams.testing.memory_log import Fault
from streams.testing.toys import EchoMachine
from tests.unit.log.world import CODEC, World, until

#: Nothing that may rest stays, and checkpoints are written by hand.
BY_HAND = Checkpointing(records=10**9, interval_ms=10**9, live_bytes=0)


class Counts(EchoMachine):
    """Counts `add`s per home, ends a count with `end` (long ago), and tells with `census` how many there are and their sum."""

    def decide(self, view: View[int], input: Input) -> Decision:
        """See `Machine.decide`."""
        if isinstance(input, Due) or not isinstance(input.record, ModuleMessage):
            return Decision()
        asked = input.record
        if view.recall(asked.id) is not None:
            return Decision()
        value = [0, 0]
        if asked.operation == "census":
            for _, state in view.states():
                value = [value[0] + 1, value[1] + state]
        else:
            value = [view.state(f"{asked.subject}/count") or 0]
        told = ModuleMessage(
            type=f"count.{asked.operation}", source="test", subject=asked.id, time=from_micros(input.time_us), kind="response",
            source_module="count", operation=asked.operation, status="success", data=value,
            aggregate_id=f"{asked.subject}/{'count' if asked.operation in ('add', 'end') else 'asked'}",
        )  # fmt: skip
        refold = (Send(topic=REFOLD, key=asked.subject, record=asked),) if asked.operation == "refold" else ()
        return Decision(events=(told,), effects=refold)

    def evolve(self, state: int | None, entry: Entry) -> int | None:
        """See `Machine.evolve`."""
        assert isinstance(entry.event, ModuleMessage)
        return {"add": (state or 0) + 1, "end": 0}.get(entry.event.operation)

    def ended(self, state: int) -> int | None:
        """See `Machine.ended`."""
        return None if state else 1


def lane(runner: PartitionRunner) -> Lane:
    return runner._owned.lanes["modules"]


def ask(world: World, home: str, operation: str, number: int) -> None:
    request = ModuleMessage(
        id=derived_id(home, operation, number), type="count.requested", source="test", subject=home, time=from_micros(0), kind="request",
        source_module="test", target_module="count", operation=operation,
    )  # fmt: skip
    world.put(topics.REQUESTS, home, request)


def told(world: World, operation: str) -> list[list[int]]:
    """The answers to an operation, in order."""
    return [event.data for event in world.valid(topics.MESSAGES) if isinstance(event, ModuleMessage) and event.operation == operation]


async def settled(runner: PartitionRunner, world: World) -> None:
    """Until everything that was asked is answered and acknowledged."""
    await until(lambda: runner.serving.is_set() and not runner._owned.inputs.waiting)
    asked = len(world.broker.records(topics.REQUESTS))
    await until(lambda: lane(runner).fold.positions.get(topics.REQUESTS, -1) == asked - 1)
    await until(lambda: lane(runner).done == lane(runner).fold.next_offset and not lane(runner).waiting)


async def round_of(runner: PartitionRunner) -> None:
    """A round of the checkpointer."""
    await Checkpointer(lane(runner), runner._owned, runner._ports).write()


async def counted(checkpointing: Checkpointing = BY_HAND, homes: int = 20, adds: int = 1) -> tuple[World, PartitionRunner]:
    """Counts, all of them at rest."""
    world = World(checkpointing=checkpointing)
    runner = world.own("one", [Counts()])
    for number in range(adds):
        for home in range(homes):
            ask(world, f"home-{home}", "add", number)
    await until(runner.serving.is_set)
    await settled(runner, world)
    await round_of(runner)
    return world, runner


def in_memory(runner: PartitionRunner) -> set[str]:
    return set(lane(runner).fold.view.aggregates)


async def test_what_rests_is_not_in_memory_and_is_found_and_counted_as_ever() -> None:
    world, runner = await counted(homes=300)
    view = lane(runner).fold.view
    assert (in_memory(runner), view.sequences, view.born, view.since) == (set(), {}, {}, {})
    assert (len(view.resting), view.rested.aggregates, view.rested.blocks) == (300, 300, 2)
    ask(world, "home-7", "get", 1)
    ask(world, "home-7", "add", 1)
    ask(world, "home-7", "get", 2)
    ask(world, "nobody", "get", 1)
    ask(world, "home-1", "census", 1)
    await settled(runner, world)
    assert told(world, "get") == [[1], [2], [0]]
    assert told(world, "census") == [[300, 301]]
    assert in_memory(runner) == {"home-7/count"}
    assert view.rested.aggregates == 299
    await world.kill()


async def test_a_successor_begins_with_nothing_in_memory_and_knows_everything() -> None:
    world, runner = await counted()
    ask(world, "home-3", "add", 1)
    await settled(runner, world)
    await world.kill()
    successor = world.own("two", [Counts()])
    await until(successor.serving.is_set)
    assert lane(successor).checkpoint_offset > 0, "it did not begin with nothing"
    assert in_memory(successor) == {"home-3/count"}, "only what changed behind the checkpoint"
    ask(world, "home-3", "add", 2)
    ask(world, "home-3", "get", 1)
    ask(world, "home-0", "census", 1)
    await settled(successor, world)
    assert (told(world, "get"), told(world, "census")) == ([[3]], [[20, 22]])
    await world.kill()


async def test_what_changes_while_it_leaves_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    world, runner = await counted()
    ask(world, "home-1", "add", 1)
    await settled(runner, world)
    leave = resting.Resting.leave

    async def slowly(self: resting.Resting, chosen: list[resting.Leaving], *, before: int) -> None:
        await leave(self, chosen, before=before)
        ask(world, "home-1", "add", 2)
        await until(lambda: lane(runner).fold.view.aggregates["home-1/count"] == 3)

    with monkeypatch.context() as patch:
        patch.setattr(resting.Resting, "leave", slowly)
        await round_of(runner)
    assert in_memory(runner) == {"home-1/count"}
    await settled(runner, world)
    await world.kill()
    successor = world.own("two", [Counts()])
    ask(world, "home-1", "get", 1)
    await until(successor.serving.is_set)
    await settled(successor, world)
    assert told(world, "get") == [[3]]
    await world.kill()


async def test_a_renewal_leaves_out_what_is_outdated_and_what_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    # given counts that rested several times, and some that were forgotten since
    world, runner = await counted(homes=10)
    for number in (1, 2, 3):
        for home in range(10):
            ask(world, f"home-{home}", "add", number)
        await settled(runner, world)
        await round_of(runner)
    for home in (0, 1):
        ask(world, f"home-{home}", "end", 1)
    await settled(runner, world)
    await round_of(runner)
    ask(world, "home-2", "add", 9)
    await settled(runner, world)
    view = lane(runner).fold.view
    assert len(view.resting) == 40
    # when most is outdated
    monkeypatch.setattr(resting, "OUTDATED_MAX", 0)
    await round_of(runner)
    # then what is outdated is not written again, and nothing that ended comes back
    assert (len(view.resting), view.rested.aggregates, view.rested.blocks) == (8, 8, 2), "seven in one block, then the one that changed"
    view.parked.segments.clear()  # as if the window had passed
    for home in (0, 2, 3):
        ask(world, f"home-{home}", "get", 1)
    ask(world, "home-1", "census", 1)
    await settled(runner, world)
    assert (told(world, "get"), told(world, "census")) == ([[0], [5], [4]], [[8, 33]])
    await world.kill()


async def test_blocks_are_renewed_before_they_are_deleted_by_age() -> None:
    world, runner = await counted(checkpointing=replace(BY_HAND, window_us=1_000_000_000))
    written = [stored.offset for stored in blocks(world)]
    world.broker.now_ms += 600_000  # more than half of the window
    ask(world, "home-0", "add", 1)
    await settled(runner, world)
    await round_of(runner)
    assert [stored.offset for stored in blocks(world)][: len(written)] == written
    renewed = lane(runner).fold.view.resting
    assert min(offset for segment in renewed.segments for offset in segment.offsets) > max(written)
    ask(world, "home-0", "census", 1)
    await settled(runner, world)
    assert told(world, "census") == [[20, 21]]
    await world.kill()


async def test_what_rests_no_more_is_parked_by_a_renewal_and_found_by_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    world, runner = await counted()
    monkeypatch.setattr(Counts, "rests", lambda self, state, time_us: False)
    monkeypatch.setattr(resting, "BLOCKS_SPARE_MAX", 0)
    ask(world, "home-0", "census", 1)
    ask(world, "home-0", "get", 1)
    await settled(runner, world)
    await round_of(runner)
    assert told(world, "census") == [[0, 0]], "it is not listed"
    view = lane(runner).fold.view
    assert (len(view.resting), in_memory(runner)) == (0, set())
    ask(world, "home-0", "get", 2)
    await settled(runner, world)
    assert told(world, "get") == [[1], [1]]
    assert CODEC.decode(world.broker.records(topics.PARKED)[-2].value or b"").type == PARKED
    await world.kill()


def blocks(world: World) -> list[object]:
    return [stored for stored in world.broker.records(topics.PARKED) if CODEC.decode(stored.value or b"").type == RESTED]


@pytest.mark.parametrize("operation", ["get", "census"])
async def test_where_a_block_is_gone_the_log_is_folded(operation: str) -> None:
    world, runner = await counted()
    records = world.broker.records(topics.PARKED)
    records[:] = [stored for stored in records if stored not in blocks(world)]
    ask(world, "home-4", operation, 1)
    await until(lambda: told(world, operation))
    assert told(world, operation) == [{"get": [1], "census": [20, 20]}[operation]]
    assert lane(runner).checkpoint_offset == 0, "it began with nothing"
    await world.kill()


async def test_a_partition_is_folded_anew_when_somebody_asks_for_it() -> None:
    world, runner = await counted()
    epoch = lane(runner).log.epoch
    ask(world, "home-1", "refold", 1)
    await until(lambda: runner.serving.is_set() and lane(runner).log.epoch > epoch)
    assert lane(runner).checkpoint_offset == 0, "it began with nothing"
    assert len(in_memory(runner)) == 20
    ask(world, "home-1", "census", 1)
    ask(world, "home-1", "refold", 1)  # a repeat does nothing
    await settled(runner, world)
    assert told(world, "census") == [[20, 20]]
    assert lane(runner).log.epoch == epoch + 1
    await world.kill()


async def test_a_checkpoint_whose_blocks_may_be_gone_is_not_used() -> None:
    world, _ = await counted()
    await world.kill()
    world.broker.now_ms += BY_HAND.window_us // 1000 + 1
    successor = world.own("two", [Counts()])
    await until(successor.serving.is_set)
    assert lane(successor).checkpoint_offset == 0
    assert len(in_memory(successor)) == 20
    await world.kill()


async def test_what_awakes_during_a_renewal_is_in_the_checkpoint_that_it_belongs_to(monkeypatch: pytest.MonkeyPatch) -> None:
    world, runner = await counted()
    monkeypatch.setattr(resting, "BLOCKS_SPARE_MAX", -1)
    ask(world, "home-0", "add", 1)
    await settled(runner, world)
    renew = resting.Resting.renew

    async def busily(self: resting.Resting, *, before: int, window_us: int) -> None:
        ask(world, "home-3", "add", 1)
        await until(lambda: "home-3/count" in lane(runner).fold.view.aggregates)
        await renew(self, before=before, window_us=window_us)

    monkeypatch.setattr(resting.Resting, "renew", busily)
    await round_of(runner)
    await settled(runner, world)
    await world.kill()
    successor = world.own("two", [Counts()])
    ask(world, "home-3", "get", 1)
    await until(successor.serving.is_set)
    await settled(successor, world)
    assert lane(successor).checkpoint_offset > 0
    assert told(world, "get") == [[2]]
    await world.kill()


async def test_a_zombie_that_puts_to_rest_takes_nothing_from_its_successor() -> None:
    # given an owner that left a count in the topic of snapshots, and a successor that has it in memory
    world = World(checkpointing=replace(BY_HAND, live_bytes=10**6))
    zombie = world.own("one", [Counts()])
    ask(world, "home-1", "add", 1)
    await until(zombie.serving.is_set)
    await settled(zombie, world)
    await round_of(zombie)
    await world.kill()
    successor = world.own("two", [Counts()])
    await until(successor.serving.is_set)
    # when the successor has written a checkpoint and the zombie deletes the snapshot, since to it the count is at rest
    ask(world, "home-2", "add", 1)
    await until(lambda: in_memory(successor) == {"home-1/count", "home-2/count"})
    await until(lambda: lane(successor).done == lane(successor).fold.next_offset)
    await round_of(successor)
    world.broker.keep(topics.MODULE_SNAPSHOTS, 0, Kept(key="1/home-1/count", value=None))
    await world.kill()
    # then the next one still finds it in that checkpoint
    last = world.own("three", [Counts()])
    await until(last.serving.is_set)
    assert lane(last).checkpoint_offset > 3
    assert in_memory(last) == {"home-1/count", "home-2/count"}
    await world.kill()


async def test_a_long_log_is_replayed_in_little_memory() -> None:
    world, _ = await counted(checkpointing=Checkpointing(records=10, interval_ms=10**9, live_bytes=100), homes=30, adds=4)
    await world.kill()
    world.broker.records(topics.MODULE_SNAPSHOTS).clear()
    most = 0
    successor = world.own("two", [Counts()])
    while not successor.serving.is_set():
        await asyncio.sleep(0)
        if successor._owned.lanes:
            view = lane(successor).fold.view
            most = max(most, len(view.sequences), len(view.remembered))
    assert lane(successor).checkpoint_offset == 0, "it began with nothing"
    assert most < 60, "120 answers to requests, and 30 counts"
    ask(world, "home-4", "get", 1)
    ask(world, "home-1", "census", 1)
    await settled(successor, world)
    await round_of(successor)
    assert (told(world, "get"), told(world, "census")) == ([[4]], [[30, 120]])
    for number in range(4):
        ask(world, "home-4", "add", number)
    await settled(successor, world)
    assert told(world, "add").count([4]) == 0, "what was answered before is remembered"
    await world.kill()


@pytest.mark.parametrize("seed", range(8))
async def test_crashes_zombies_and_faults_lose_and_repeat_nothing_of_what_rests(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(resting, "OUTDATED_MAX", chance.choice([0, 20]))
    monkeypatch.setattr(resting, "BLOCK_STATES_MAX", chance.choice([2, 256]))
    world = World(checkpointing=Checkpointing(records=chance.choice([1, 5, 30]), live_bytes=chance.choice([0, 120])))
    world.own("owner-0", [Counts()])
    counts: Counter[str] = Counter()
    for round_ in range(150):
        home = f"home-{chance.randrange(8)}"
        counts[home] += 1
        ask(world, home, "add", counts[home])
        if chance.random() < 0.15:
            ask(world, home, "census", round_)
        if chance.random() < 0.15:
            world.broker.faults.append(chance.choice([Fault.LOST, Fault.UNKNOWN, Fault.REPEAT]))
        if chance.random() < 0.1:
            world.broker.snapshot_faults.append(chance.choice([Fault.LOST, Fault.UNKNOWN]))
        if chance.random() < 0.1:
            world.broker.compact(topics.MODULE_SNAPSHOTS)
        if chance.random() < 0.1:
            if chance.random() < 0.6:
                await world.kill()
            world.own(f"owner-{round_}", [Counts()])  # else the older one goes on as a zombie
            while len(world.owners) > 2:
                await world.kill(0)
        for _ in range(chance.randrange(8)):
            await asyncio.sleep(0)
    world.broker.faults.clear()
    world.broker.snapshot_faults.clear()
    while world.owners:
        await world.kill(0)
    last = world.own("last", [Counts()])
    await until(last.serving.is_set)
    ask(world, "home-0", "census", 1000)
    await settled(last, world)
    assert told(world, "census")[-1] == [len(counts), sum(counts.values())]
    sums = [each[1] for each in told(world, "census")]
    assert sums == sorted(sums), "nothing that was counted was forgotten in between"
    await world.kill()
