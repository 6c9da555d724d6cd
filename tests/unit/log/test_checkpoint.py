"""Checkpoints: a takeover from one equals a fold of the whole log; what ended leaves memory and comes back; nobody's lies are believed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import pytest

from streams import topics
from streams.codec.avro import headers_of
from streams.log.archive import kept_snapshot
from streams.log.checkpoint import Checkpointer
from streams.log.fold import LogFold
from streams.log.freeze import StateFormat
from streams.log.lanes import Lane
from streams.log.partition import Checkpointing, PartitionRunner
from streams.log.ports import Kept
from streams.log.rule import ReadersRule, Verdict
from streams.log.snapshot import CHECKPOINTED, SNAPSHOTTED
from streams.records import ModuleMessage, Position, Snapshot
from streams.testing.memory_log import Fault
from streams.testing.toys import EchoMachine, FlowMachine, FlowState, command, start
from tests.unit.log.world import CODEC, World, until

EAGER = Checkpointing(records=1)
NEVER = Checkpointing(records=10**9, interval_ms=10**9)


def lane(runner: PartitionRunner, machine: str = "workflow") -> Lane:
    return runner._owned.lanes[machine]


def decided(runner: PartitionRunner) -> int | None:
    """The offset of the last command that was decided; None while a takeover has just begun."""
    taken = runner._owned.lanes.get("workflow")
    return taken and taken.fold.positions.get(topics.COMMANDS)


def snapshots(world: World, topic: str = topics.WORKFLOW_SNAPSHOTS) -> dict[str, Snapshot | None]:
    """The newest record of each key, as a compacted topic shows them in the end."""
    newest = {stored.key: stored.value for stored in world.broker.records(topic)}
    records = {(key or b"").decode(): None if value is None else CODEC.decode(value) for key, value in newest.items()}
    return {key: record for key, record in records.items() if record is None or isinstance(record, Snapshot)}


def checkpoint(world: World, epoch: int, topic: str = topics.WORKFLOW_SNAPSHOTS) -> Snapshot | None:
    return snapshots(world, topic).get(f"{epoch}/checkpoint/0")


async def until_checkpointed(runner: PartitionRunner) -> None:
    """Until a checkpoint of each lane contains everything that lies in its log."""
    await until(
        lambda: runner._owned.lanes and all(lane.checkpoint_offset == lane.fold.next_offset for lane in runner._owned.lanes.values())
    )


def ended(world: World) -> int:
    return [event.type for event in world.valid()].count("execution.completed")


def echo(flow: str, step: int) -> ModuleMessage:
    """A module's answer to a step."""
    return ModuleMessage(
        type="x", kind="response", source_module="echo", operation="echo", execution_id=flow, attempt=step, status="success"
    )  # fmt: skip


def whole(world: World, machine: FlowMachine | EchoMachine, name: str) -> LogFold:
    """The fold of the whole log, as a plain loop."""
    fold, rule = LogFold(machine, log=name, partition=0, partitions=1), ReadersRule()
    for stored in world.broker.records(name):
        verdict = rule.judge_headers(stored.headers)
        record = CODEC.decode(stored.value)
        if verdict is Verdict.VALID:
            fold.replay(record, stored.offset)  # type: ignore[arg-type]
        elif verdict is Verdict.POSITION:
            assert isinstance(record, Position)
            fold.replay_position(record)
    return fold


async def busy_world(count: int = 6, checkpointing: Checkpointing = EAGER) -> tuple[World, PartitionRunner]:
    """Flows that wait for an answer of a module elsewhere: alive, with a timer and an outstanding request each."""
    world = World(local=False, checkpointing=checkpointing)
    runner = world.own("one")
    for number in range(count):
        world.put(topics.COMMANDS, f"flow-{number}", start(f"flow-{number}", steps=2))
    await until(lambda: len(world.effects.sent) >= count and runner.serving.is_set())
    return world, runner


async def test_a_takeover_from_a_checkpoint_equals_a_fold_of_the_whole_log() -> None:
    world, runner = await busy_world()
    await until_checkpointed(runner)
    world.checkpointing = NEVER
    world.put(topics.COMMANDS, "late", start("late"))  # behind the checkpoint
    await until(lambda: len(world.effects.sent) == 7)
    await world.kill()
    world.effects.sent.clear()
    successor = world.own("two")
    await until(successor.serving.is_set)
    taken, plain = lane(successor), whole(world, FlowMachine(), topics.TRANSITIONS)
    assert taken.checkpoint_offset > 0, "it did not begin with nothing"
    assert taken.fold.view.aggregates == plain.view.aggregates
    assert taken.fold.view.sequences == plain.view.sequences
    assert taken.fold.next_due() == plain.next_due()
    assert {topic: taken.fold.positions[topic] for topic in plain.positions} == plain.positions
    assert taken.fold.time_us == plain.time_us
    await until(lambda: len(world.effects.sent) == 7)
    assert [send.record.id for send in world.effects.sent] == [send.record.id for send in plain.outstanding()]
    await world.kill()


async def test_only_the_log_behind_the_checkpoint_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    world, runner = await busy_world()
    await until_checkpointed(runner)
    await world.kill()
    offset = lane(runner).checkpoint_offset
    replayed: list[int] = []
    real = LogFold.replay
    monkeypatch.setattr(LogFold, "replay", lambda self, event, at: (replayed.append(at), real(self, event, at))[1])
    world.put(topics.COMMANDS, "next", start("next"))
    successor = world.own("two")
    await until(lambda: successor.serving.is_set() and lane(successor).fold.view.state("next") is not None)
    assert [at for at in replayed if at < offset] == []
    await world.kill()


async def test_what_ended_leaves_memory_and_its_snapshot_goes() -> None:
    world = World(checkpointing=EAGER)
    runner = world.own("one")
    for number in range(10):
        world.put(topics.COMMANDS, f"flow-{number}", start(f"flow-{number}", steps=3))
    await world.until_completed(10)
    await until(lambda: not lane(runner).fold.view.aggregates)
    await until(lambda: not lane(runner).kept.stale)
    view = lane(runner).fold.view
    assert (view.sequences, view.born, view.since, len(view.parked)) == ({}, {}, {}, 10)
    world.broker.compact(topics.WORKFLOW_SNAPSHOTS)
    left = {key for key, record in snapshots(world).items() if record is not None}
    assert left == {"1/checkpoint/0"}
    await world.kill()


@pytest.mark.parametrize("taken_over", [False, True])
async def test_a_parked_flow_answers_as_if_it_were_in_memory(taken_over: bool) -> None:
    world = World(checkpointing=EAGER)
    runner = world.own("one")
    world.put(topics.COMMANDS, "flow", start("flow", steps=2))
    await world.until_completed(1)
    await until(lambda: not lane(runner).fold.view.aggregates)
    await until_checkpointed(runner)
    if taken_over:
        await world.kill()
        runner = world.own("two")
    world.put(topics.COMMANDS, "flow", start("flow", steps=2))  # a repeat: it is there already
    world.put(topics.COMMANDS, "flow", command("flow", "retry"))
    await until(lambda: ended(world) == 2)
    events = [event.type for event in world.valid()]
    assert events.count("execution.started") == 1
    assert events[-3:] == ["execution.retried", "step.completed", "execution.completed"]
    assert [event.sequence for event in world.valid()] == list(range(1, len(events) + 1))  # type: ignore[attr-defined]
    answers = world.valid(topics.MESSAGES)
    assert len(answers) == 2, "the module answered the repeated request from the log"
    await until(lambda: not lane(runner).fold.view.aggregates)
    await world.kill()


async def test_after_the_deduplication_window_the_id_may_be_used_again() -> None:
    world = World(checkpointing=replace(EAGER, window_us=5_000_000))
    runner = world.own("one")
    world.put(topics.COMMANDS, "flow", start("flow"))
    await world.until_completed(1)
    await until(lambda: not lane(runner).fold.view.aggregates)
    world.broker.now_ms += 4_000
    world.put(topics.COMMANDS, "flow", start("flow"))
    await until(lambda: decided(runner) == 1)
    assert [event.type for event in world.valid()].count("execution.started") == 1, "within the window it is a repeat"
    world.broker.now_ms += 2_000
    world.put(topics.COMMANDS, "flow", command("flow", "retry"))
    await until(lambda: [event.type for event in world.valid()].count("command.refused") == 1)
    world.put(topics.COMMANDS, "flow", start("flow"))
    await until(lambda: [event.type for event in world.valid()].count("execution.started") == 2)
    await world.kill()
    world.broker.partitions[topics.WORKFLOW_SNAPSHOTS, 0] = []
    again = world.own("two")
    await until(again.serving.is_set)  # the whole log, with both lives of the flow
    await world.kill()


async def test_a_checkpoint_waits_for_the_acknowledgement_and_a_failed_one_is_made_up_for() -> None:
    world, runner = await busy_world(2, NEVER)
    offset = lane(runner).done
    world.broker.faults.append(Fault.STUCK)
    world.put(topics.COMMANDS, "stuck", start("stuck"))
    await until(lambda: lane(runner).fold.next_offset > offset)
    writing = asyncio.create_task(Checkpointer(lane(runner), runner._owned, runner._ports).write())
    for _ in range(50):
        await asyncio.sleep(0)
    assert snapshots(world) == {}, "events that are not acknowledged are in no snapshot"
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert set(lane(runner).fold.view.changed) == {"flow-0", "flow-1", "stuck"}, "the next one writes what this one had taken"
    await world.kill()


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.UNKNOWN])
async def test_snapshots_that_fail_hold_nothing_up_and_are_written_again(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.log.checkpoint.RETRY_S", 0.0)
    world = World(checkpointing=EAGER)
    world.broker.snapshot_faults.extend([fault] * 7)
    runner = world.own("one")
    for number in range(5):
        world.put(topics.COMMANDS, f"flow-{number}", start(f"flow-{number}", steps=2))
    await world.until_completed(5)
    await until(lambda: not world.broker.snapshot_faults and not lane(runner).fold.view.aggregates)
    await until_checkpointed(runner)
    await world.kill()
    successor = world.own("two")
    await until(successor.serving.is_set)
    assert lane(successor).checkpoint_offset > 0
    await world.kill()


async def test_a_checkpoint_that_is_not_written_holds_no_decision_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.log.partition.CHECKPOINT_PATIENCE_S", 0.05)
    world = World(checkpointing=EAGER)
    world.broker.snapshot_faults.append(Fault.STUCK)
    world.own("one")
    for number in range(5):
        world.put(topics.COMMANDS, f"flow-{number}", start(f"flow-{number}", steps=2))
    await world.until_completed(5)
    await world.kill()


async def test_what_a_checkpoint_names_as_gone_is_no_state_though_it_still_lies_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(self: Checkpointer) -> None:
        raise ConnectionError("nothing is deleted today")

    monkeypatch.setattr(Checkpointer, "_tombstone", refuse)
    monkeypatch.setattr("streams.log.checkpoint.RETRY_S", 0.0)
    world, runner = await busy_world(2)
    await until_checkpointed(runner)
    world.put(topics.RESPONSES, "flow-0", echo("flow-0", 1))
    world.put(topics.RESPONSES, "flow-0", echo("flow-0", 2))
    await until(lambda: ended(world) == 1)
    await until_checkpointed(runner)
    await world.kill()
    assert snapshots(world)["1/flow-0"] is not None, "its state was not deleted"
    world.checkpointing = NEVER
    successor = world.own("two")
    await until(successor.serving.is_set)
    assert lane(successor).checkpoint_offset > 0
    assert set(lane(successor).fold.view.aggregates) == {"flow-1"}
    await world.kill()


# --- what is not believed ---------------------------------------------------------------------------------------------


def forged(record_type: str, key: str, epoch: int, offset: int, content: bytes) -> Kept:
    return kept_snapshot(
        CODEC, key, record_type, key.partition("/")[2],
        log=topics.TRANSITIONS, partition=0, offset=offset, epoch=epoch, state=content, time_us=0,
    )  # fmt: skip


async def test_a_zombies_checkpoint_is_not_used() -> None:
    world, runner = await busy_world(3)
    await until_checkpointed(runner)
    first = checkpoint(world, 1)
    assert first is not None
    await world.kill()
    world.checkpointing = NEVER
    second = world.own("two")
    world.put(topics.COMMANDS, "more", start("more"))
    await until(lambda: second.serving.is_set() and lane(second).fold.view.state("more") is not None)
    await until(lambda: lane(second).done == lane(second).fold.next_offset)
    await world.kill()
    # The zombie of epoch 1 says that it had the partition at an offset behind the fence of epoch 2, with a state of its own.
    content = orjson.loads(first.state)
    end = world.broker.end(topics.TRANSITIONS)
    lie = orjson.dumps({**content, "live": 1, "gone": [f"flow-{n}" for n in range(3)]})
    ghost = [FlowMachine.states.version, 9, 1, 1, {"flow_id": "ghost", "step": 1, "steps": 9, "since_us": 0}]
    lies = forged(SNAPSHOTTED, "1/ghost", 1, end, orjson.dumps(ghost)), forged(CHECKPOINTED, "1/checkpoint/0", 1, end, lie)
    for kept in lies:
        world.broker.keep(topics.WORKFLOW_SNAPSHOTS, 0, kept)
    third = world.own("three")
    await until(third.serving.is_set)
    assert lane(third).checkpoint_offset == 0, "the whole log was folded"
    assert set(lane(third).fold.view.aggregates) == {"flow-0", "flow-1", "flow-2", "more"}
    await world.kill()


async def test_a_checkpoint_of_an_epoch_that_the_log_does_not_show_is_not_used() -> None:
    world, runner = await busy_world(2)
    await until_checkpointed(runner)
    await world.kill()
    genuine = checkpoint(world, 1)
    assert genuine is not None
    # A claim that never reached the log, yet stands in the index of fences, with a checkpoint of its own.
    index = next(stored for stored in world.broker.records(topics.WORKFLOW_SNAPSHOTS) if (stored.key or b"").startswith(b"fence/"))
    fence = CODEC.decode(index.value)
    never = replace(fence, epoch=7, offset=genuine.offset - 2)  # type: ignore[call-arg]
    world.broker.keep(
        topics.WORKFLOW_SNAPSHOTS, 0,
        Kept(key=f"fence/{topics.TRANSITIONS}/0/7", value=CODEC.encode(never), headers=headers_of(never)),
    )  # fmt: skip
    content = {**orjson.loads(genuine.state), "live": 0, "gone": ["flow-0", "flow-1"]}
    world.broker.keep(topics.WORKFLOW_SNAPSHOTS, 0, forged(CHECKPOINTED, "7/checkpoint/0", 7, genuine.offset, orjson.dumps(content)))
    successor = world.own("two")
    await until(successor.serving.is_set)
    assert set(lane(successor).fold.view.aggregates) == {"flow-0", "flow-1"}
    await world.kill()


async def test_a_missing_snapshot_makes_the_checkpoint_useless() -> None:
    world, runner = await busy_world(3)
    await until_checkpointed(runner)
    await world.kill()
    world.broker.keep(topics.WORKFLOW_SNAPSHOTS, 0, Kept(key="1/flow-1", value=None))
    world.checkpointing = NEVER
    successor = world.own("two")
    await until(successor.serving.is_set)
    assert lane(successor).checkpoint_offset == 0
    assert set(lane(successor).fold.view.aggregates) == {"flow-0", "flow-1", "flow-2"}
    await world.kill()


class LaterFlows(FlowMachine):
    """A later version, whose states mean something else."""

    states = StateFormat(FlowState, meaning=2)


@pytest.mark.parametrize("window_open", [True, False])
async def test_states_of_another_version_are_not_read_the_log_is(window_open: bool) -> None:
    world = World(checkpointing=EAGER)
    runner = world.own("one")
    world.put(topics.COMMANDS, "flow", start("flow", steps=2))
    await world.until_completed(1)
    await until(lambda: not lane(runner).fold.view.aggregates)
    await until_checkpointed(runner)
    await world.kill()
    successor = world.own("two", [LaterFlows(), EchoMachine()])
    await until(successor.serving.is_set)
    assert lane(successor).checkpoint_offset == 0 or "flow" not in lane(successor).fold.view.aggregates
    world.put(topics.COMMANDS, "flow", command("flow", "retry") if window_open else start("flow"))
    if window_open:
        await until(lambda: ended(world) == 2)
    else:
        await until(lambda: decided(successor) == 1)
    assert [event.type for event in world.valid()].count("execution.started") == 1
    await world.kill()


async def test_an_owner_whose_predecessor_left_no_checkpoint_writes_all_states_anew() -> None:
    world, runner = await busy_world(3)
    await until_checkpointed(runner)
    await world.kill()
    world.checkpointing = NEVER
    second = world.own("two")
    await until(second.serving.is_set)
    await world.kill()
    world.checkpointing = EAGER
    third = world.own("three")
    await until(third.serving.is_set)
    world.put(topics.COMMANDS, "more", start("more"))
    await until(lambda: "3/more" in snapshots(world))
    await until_checkpointed(third)
    await until(lambda: not lane(third).kept.stale)
    world.broker.compact(topics.WORKFLOW_SNAPSHOTS)
    left = {key for key, record in snapshots(world).items() if record is not None}
    assert left == {"3/checkpoint/0", *(f"3/flow-{number}" for number in range(3)), "3/more"}
    await world.kill()


async def test_a_direct_successor_leaves_unchanged_states_where_they_are() -> None:
    world, runner = await busy_world(3)
    await until_checkpointed(runner)
    await world.kill()
    second = world.own("two")
    world.put(topics.COMMANDS, "more", start("more"))
    await until(lambda: second.serving.is_set() and "2/more" in snapshots(world))
    await until_checkpointed(second)
    await until(lambda: not lane(second).kept.stale)
    world.broker.compact(topics.WORKFLOW_SNAPSHOTS)
    left = {key for key, record in snapshots(world).items() if record is not None}
    assert left == {"2/checkpoint/0", *(f"1/flow-{number}" for number in range(3)), "2/more"}
    await world.kill()
    third = world.own("three")
    await until(third.serving.is_set)
    assert lane(third).checkpoint_offset > 0
    assert set(lane(third).fold.view.aggregates) == {"flow-0", "flow-1", "flow-2", "more"}
    await world.kill()
