"""The fold of a log: sequences, positions, timers, memory; replay equals live."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import topics
from streams.errors import Defect
from streams.log.fold import LogFold
from streams.log.types import Entry, Received
from streams.records import InputPosition, ModuleMessage, Record
from streams.testing.toys import TIMEOUT_US, EchoMachine, FlowMachine, request, start

SECOND = 1_000_000


def fold(machine: FlowMachine | EchoMachine | None = None) -> LogFold:
    made = LogFold(machine or FlowMachine(), log="log", partition=0, partitions=1)
    made.epoch, made.next_offset = 1, 1
    return made


def received(record: Record, offset: int, topic: str = topics.COMMANDS, time_us: int = SECOND) -> Received:
    return Received(record=record, position=InputPosition(topic=topic, partition=0, offset=offset), time_us=time_us)


def answer(flow: str, step: int) -> ModuleMessage:
    return ModuleMessage(type="x", kind="response", source_module="echo", operation="echo", execution_id=flow, attempt=step)


def test_events_get_ids_sequences_epoch_input_and_cause() -> None:
    live = fold()
    decided = live.decide(received(start("f", 1), 4))
    events = [entry.event for entry in decided.entries]
    assert [event.sequence for event in events] == [1, 2]
    assert {event.epoch for event in events} == {1}
    assert {event.causation_id for event in events} == {start("f").id}
    assert {event.correlation_id for event in events} == {"f"}
    assert {event.input for event in events} == {InputPosition(topic=topics.COMMANDS, partition=0, offset=4)}
    assert [entry.position.offset for entry in decided.entries] == [1, 2]
    assert decided.effects[0][1] == decided.entries[1].position, "a local delivery lies where its event lies"
    assert live.handled(topics.COMMANDS, 4)
    assert not live.handled(topics.COMMANDS, 5)


def test_the_same_decision_under_the_same_epoch_has_the_same_ids() -> None:
    first, second = (fold().decide(received(start("f"), 0)).entries for _ in range(2))
    assert first == second


def test_a_repeat_in_the_log_is_ignored_and_a_gap_is_a_defect() -> None:
    live, successor = fold(), fold()
    entries = live.decide(received(start("f", 2), 0)).entries
    for entry in entries:
        assert successor.replay(entry.event, entry.position.offset) is not None
    state = successor.view.state("f")
    assert successor.replay(entries[1].event, 9) is None
    assert successor.view.state("f") == state
    ahead = dataclasses.replace(entries[1].event, sequence=9)
    with pytest.raises(Defect) as refused:
        successor.replay(ahead, 10)
    assert refused.value.code == "log.gap"


@given(st.lists(st.tuples(st.sampled_from(["start", "answer"]), st.integers(0, 3), st.integers(1, 3)), max_size=30))
def test_replay_equals_live(inputs: list[tuple[str, int, int]]) -> None:
    live, log = fold(), list[Entry]()
    for offset, (kind, flow, step) in enumerate(inputs):
        record = start(f"f{flow}", 3) if kind == "start" else answer(f"f{flow}", step)
        log.extend(live.decide(received(record, offset, topics.COMMANDS, SECOND * (offset + 1))).entries)
        successor = fold()
        for entry in log:
            successor.replay(entry.event, entry.position.offset)
        assert successor.view.aggregates == live.view.aggregates
        assert successor.view.sequences == live.view.sequences
        assert successor.next_due() == live.next_due()
        assert list(successor.outstanding()) == list(live.outstanding())


def test_an_answer_is_remembered_until_it_expires() -> None:
    live = fold(EchoMachine())
    asked = request("f", 1, SECOND).record
    decided = live.decide(received(asked, 0, topics.REQUESTS))
    repeated = live.decide(received(asked, 1, topics.REQUESTS))
    assert not repeated.entries
    assert repeated.effects[0][0].record == decided.entries[0].event
    assert live.moved_positions() == (InputPosition(topic=topics.REQUESTS, partition=0, offset=1),), "no event tells this position"
    later = live.decide(received(asked, 2, topics.REQUESTS, time_us=SECOND + 3_600_000_001))
    assert len(later.entries) == 1


def test_the_earliest_timer_is_next_and_ends_with_its_flow() -> None:
    live = fold()
    live.decide(received(start("a"), 0, time_us=2 * SECOND))
    live.decide(received(start("b"), 1, time_us=3 * SECOND))
    assert live.next_due() == (2 * SECOND + TIMEOUT_US, "a")
    live.decide(received(answer("a", 1), 0, topics.RESPONSES, 4 * SECOND))
    assert live.next_due() == (3 * SECOND + TIMEOUT_US, "b")
    live.decide(live.due_of(3 * SECOND + TIMEOUT_US, "b", 3 * SECOND + TIMEOUT_US, 3 * SECOND + TIMEOUT_US))
    assert live.next_due() is None
