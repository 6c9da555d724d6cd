"""A decision that the log never takes costs its input, and nothing else in the partition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from streams import limits, topics
from streams.log.types import Decision, Due, Input, View
from streams.records import WorkflowCommand
from streams.testing.toys import TIMEOUT_US, EchoMachine, FlowMachine, start
from tests.unit.log.world import World, check_sequences, until

HUGE = "x" * (limits.PAYLOAD_BYTES_MAX + 1)


def swollen(decision: Decision, data: str = HUGE) -> Decision:
    """With a last record that is none, or as large as that."""
    *others, last = decision.events
    return replace(decision, events=(*others, replace(last, data={"huge": data})))


def of_huge(input: Input) -> bool:
    if isinstance(input, Due):
        return input.aggregate_id == "huge"
    return "huge" in (getattr(input.record, "execution_id", None), input.record.subject)


class Swelling(FlowMachine):
    """A flow machine that makes too much of some inputs about the flow `huge`."""

    def __init__(self, of: type[Any], data: str = HUGE) -> None:
        self.of = of
        self.data = data
        self.tried = 0

    def decide(self, view: View[Any], input: Input) -> Decision:
        decision = super().decide(view, input)
        if decision.events and of_huge(input) and isinstance(getattr(input, "record", input), self.of):
            self.tried += 1
            return swollen(decision, self.data)
        return decision


class SwellingEcho(EchoMachine):
    """A module that makes too much of requests of the flow `huge`."""

    def decide(self, view: View[int], input: Input) -> Decision:
        decision = super().decide(view, input)
        return swollen(decision) if decision.events and of_huge(input) else decision


async def test_a_record_whose_decision_cannot_be_written_is_a_dead_letter_and_the_others_go_on() -> None:
    world = World()
    machine = Swelling(WorkflowCommand)
    runner = world.own("one", [machine, EchoMachine()])
    for flow in ("before", "huge", "after"):
        world.put(topics.COMMANDS, flow, start(flow))
    await world.until_completed(2)
    await until(runner.serving.is_set)

    assert sorted(world.completed()) == ["after", "before"]
    assert [(stored.key, code) for stored, code, _ in world.effects.dead] == [(b"huge", "payload.too-large")]
    assert machine.tried == 1, "it is decided once, and not for ever"
    check_sequences(world)
    await world.kill()


async def test_a_successor_finds_out_by_itself_and_goes_on_as_well() -> None:
    world = World()
    first = world.own("one", [Swelling(WorkflowCommand), EchoMachine()])
    world.put(topics.COMMANDS, "huge", start("huge"))
    await until(lambda: world.effects.dead)
    await until(first.serving.is_set)
    await world.kill()
    world.own("two", [Swelling(WorkflowCommand), EchoMachine()])
    world.put(topics.COMMANDS, "after", start("after"))
    await world.until_completed(1)

    assert {code for _, code, _ in world.effects.dead} == {"payload.too-large"}
    await world.kill()


async def test_a_timer_whose_decision_cannot_be_written_does_not_fire_for_ever() -> None:
    world = World(local=False)
    machine = Swelling(Due)
    world.own("one", [machine])
    world.put(topics.COMMANDS, "huge", start("huge"))
    world.put(topics.COMMANDS, "slow", start("slow"))
    await until(lambda: len(world.effects.sent) >= 2)
    world.broker.now_ms += TIMEOUT_US // 1000
    await until(lambda: [event.subject for event in world.valid() if event.type == "step.timed_out"] == ["slow"])

    assert machine.tried == 1
    await world.kill()


async def test_a_local_delivery_whose_decision_cannot_be_written_stops_nothing() -> None:
    world = World()
    runner = world.own("one", [FlowMachine(), SwellingEcho()])
    for flow in ("before", "huge", "after"):
        world.put(topics.COMMANDS, flow, start(flow))
    await world.until_completed(2)
    await until(runner.serving.is_set)

    assert sorted(world.completed()) == ["after", "before"]
    check_sequences(world)
    await world.kill()


async def test_a_decision_that_is_larger_than_a_batch_may_be_is_given_up_too() -> None:
    world = World()
    world.broker.batch_bytes_max = 20_000
    world.own("one", [Swelling(WorkflowCommand, "x" * 20_000), EchoMachine()])
    world.put(topics.COMMANDS, "huge", start("huge"))
    await until(lambda: world.effects.dead)
    world.put(topics.COMMANDS, "after", start("after"))
    await world.until_completed(1)

    assert [code for _, code, _ in world.effects.dead] == ["batch.too-large"]
    check_sequences(world)
    await world.kill()
