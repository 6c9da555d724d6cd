"""A partition in memory: crashes, unknown outcomes and zombies at any moment; what was asked happens once, and all of it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from streams import topics
from streams.causation import depth_headers, depth_of
from streams.log.partition import Checkpointing
from streams.log.ports import Outgoing
from streams.log.rule import FENCED, POSITIONED, type_and_epoch
from streams.records import ModuleMessage, WorkflowCommand, WorkflowTransition
from streams.testing.memory_log import Fault
from streams.testing.toys import TIMEOUT_US, request, start
from tests.unit.log.world import CODEC, PATIENCE_S, World, check_sequences


async def test_flows_complete_and_every_event_tells_its_input() -> None:
    world = World()
    world.own("one")
    for number in range(20):
        world.put(topics.COMMANDS, f"flow-{number}", start(f"flow-{number}", steps=3))
    await world.until_completed(20)
    assert set(world.completed().values()) == {1}
    check_sequences(world)
    inputs = {(event.input.topic, event.input.offset) for event in world.valid() if isinstance(event, WorkflowTransition) and event.input}
    assert {offset for topic, offset in inputs if topic == topics.COMMANDS} == set(range(20))
    assert len([1 for topic, _ in inputs if topic == topics.MESSAGES]) == 60
    assert not world.effects.sent, "everything was handed over in memory"
    await world.kill()


@pytest.mark.parametrize("seed", range(40))
async def test_crashes_zombies_and_unknown_outcomes_lose_and_repeat_nothing(seed: int) -> None:
    chance = random.Random(seed)
    world = World(checkpointing=Checkpointing(records=chance.choice([1, 5, 30, 1000])))
    world.own("owner-0")
    flows, sent = 15, 0
    for round_ in range(200):
        if sent < flows and chance.random() < 0.5:
            world.put(topics.COMMANDS, f"flow-{sent}", start(f"flow-{sent}", steps=2))
            sent += 1
        if chance.random() < 0.15:
            world.broker.faults.append(chance.choice([Fault.LOST, Fault.UNKNOWN, Fault.REPEAT]))
        if chance.random() < 0.1:
            world.broker.snapshot_faults.append(chance.choice([Fault.LOST, Fault.UNKNOWN]))
        if chance.random() < 0.1:
            world.broker.compact(chance.choice([topics.WORKFLOW_SNAPSHOTS, topics.MODULE_SNAPSHOTS]))
        if chance.random() < 0.1:
            if chance.random() < 0.6:
                await world.kill()
            world.own(f"owner-{round_}")  # else the older one goes on as a zombie
            while len(world.owners) > 2:
                await world.kill(0)
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
    world.broker.faults.clear()
    while len(world.owners) > 1:
        await world.kill(0)
    for number in range(sent, flows):
        world.put(topics.COMMANDS, f"flow-{number}", start(f"flow-{number}", steps=2))
    await world.until_completed(flows)
    assert set(world.completed().values()) == {1}
    steps = Counter((event.subject, event.attempt) for event in world.valid() if event.type == "step.completed")
    assert set(steps.values()) == {1}
    assert len(steps) == flows * 2
    answers = Counter(event.subject for event in world.valid(topics.MESSAGES))
    assert set(answers.values()) == {1}, "each request was handled once"
    check_sequences(world)
    await world.kill()


async def test_an_effect_is_performed_only_after_its_events_are_acknowledged() -> None:
    world = World(local=False)
    world.own("one")
    world.broker.faults.extend([Fault.NONE, Fault.STUCK])  # the fence, then the first events
    world.put(topics.COMMANDS, "flow", start("flow"))
    for _ in range(300):
        await asyncio.sleep(0)
    assert not world.effects.sent
    await world.kill()
    world.own("two")
    async with asyncio.timeout(PATIENCE_S):
        while not world.effects.sent:
            await asyncio.sleep(0.001)
    assert [event.type for event in world.valid()] == ["execution.started", "step.started"]
    await world.kill()


async def test_a_successor_performs_unanswered_effects_again_with_the_same_id() -> None:
    world = World(local=False)
    for owner in ("one", "two"):
        runner = world.own(owner)
        if owner == "one":
            world.put(topics.COMMANDS, "flow", start("flow"))
        async with asyncio.timeout(PATIENCE_S):
            await runner.serving.wait()
            while len(world.effects.sent) < (1 if owner == "one" else 2):
                await asyncio.sleep(0.001)
        await world.kill()
    first, second = world.effects.sent
    assert first.record.id == second.record.id == request("flow", 1, 0).record.id


async def test_an_answer_that_arrived_before_the_timeout_counts_after_a_takeover() -> None:
    world = World(local=False)
    runner = world.own("one")
    world.put(topics.COMMANDS, "flow", start("flow"))
    async with asyncio.timeout(PATIENCE_S):
        while not world.effects.sent:
            await asyncio.sleep(0.001)
    await runner.serving.wait()
    await world.kill()
    answer = ModuleMessage(
        type="x", kind="response", source_module="echo", operation="echo", execution_id="flow", attempt=1, status="success"
    )
    world.broker.now_ms += TIMEOUT_US // 1000
    world.put(topics.RESPONSES, "flow", answer)  # at the very moment of the time-out
    world.broker.now_ms += TIMEOUT_US // 1000
    world.own("two")
    await world.until_completed(1)
    assert [event.type for event in world.valid()][-2:] == ["step.completed", "execution.completed"]
    await world.kill()


async def test_a_timer_fires_once_when_it_is_due() -> None:
    world = World(local=False)
    runner = world.own("one")
    world.put(topics.COMMANDS, "flow", start("flow"))
    async with asyncio.timeout(PATIENCE_S):
        await runner.serving.wait()
        while not world.effects.sent:
            await asyncio.sleep(0.001)
        world.broker.now_ms += TIMEOUT_US // 1000
        world.broker.arrived.set()
        world.put(topics.COMMANDS, "other", start("other"))
        while "step.timed_out" not in [event.type for event in world.valid()]:
            await asyncio.sleep(0.001)
    assert [event.type for event in world.valid()].count("step.timed_out") == 1
    await world.kill()


async def test_garbage_and_misplaced_records_stop_nothing() -> None:
    world = World()
    world.own("one")
    broker = world.broker
    broker.store(topics.COMMANDS, 0, [Outgoing(key=b"k", value=b"garbage", headers=[], timestamp_ms=0)], append_time=True)
    world.put(topics.COMMANDS, "flow", start("flow"))
    value = CODEC.encode(start("later"))
    broker.store(topics.COMMANDS, 0, [Outgoing(key=None, value=value, headers=[], timestamp_ms=0)], append_time=True)  # type: ignore[arg-type]
    await world.until_completed(1)
    async with asyncio.timeout(PATIENCE_S):
        while len(world.effects.dead) < 2:
            await asyncio.sleep(0.001)
    assert [(stored.offset, code) for stored, code, _ in world.effects.dead] == [(0, "avro.framing"), (2, "key.missing")]
    assert world.effects.dead[0][0].value == b"garbage"
    await world.kill()


async def test_a_refusal_without_an_aggregate_has_sequence_zero_and_an_id_of_its_own() -> None:
    world = World()
    world.own("one")
    for _ in range(2):
        world.put(
            topics.COMMANDS, "nobody", WorkflowCommand(type="workflow.cancel", subject="nobody", execution_id="nobody", command="cancel")
        )
    async with asyncio.timeout(PATIENCE_S):
        while len(world.valid()) < 2:
            await asyncio.sleep(0.001)
    first, second = world.valid()
    assert isinstance(first, WorkflowTransition)
    assert (first.type, first.sequence, first.aggregate_id) == ("command.refused", 0, None)
    assert first.id != second.id
    await world.kill()


async def test_what_follows_from_an_input_is_as_deep_as_it_is() -> None:
    world = World()
    world.own("one")
    world.put(topics.COMMANDS, "deep", start("deep", steps=2), *depth_headers(7))
    world.put(topics.COMMANDS, "plain", start("plain", steps=2))
    await world.until_completed(2)
    found = {
        (stored.topic, (stored.key or b"").decode(), depth_of(stored.headers))
        for topic in (topics.TRANSITIONS, topics.MESSAGES)
        for stored in world.broker.records(topic)
        if type_and_epoch(stored.headers)[0] not in (FENCED, POSITIONED)
    }
    # What was handed over in memory is as deep as what was read from an inbox.
    assert found == {(topic, flow, depth) for topic in (topics.TRANSITIONS, topics.MESSAGES) for flow, depth in (("deep", 7), ("plain", 0))}
    await world.kill()
