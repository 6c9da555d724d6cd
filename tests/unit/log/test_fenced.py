"""A hold on a log partition: claims, zombies, and appends that end in anything but the expected offset."""

from __future__ import annotations

from typing import Any

import pytest

from streams import topics
from streams.codec.avro import Codec, SchemaIds
from streams.errors import TooLarge
from streams.log.fenced import FencedLog, LogRecord, UnknownOutcome
from streams.log.rule import ReadersRule, Verdict
from streams.records import SystemEvent
from streams.testing.memory_log import Fault, MemoryBroker, MemoryLog

CODEC = Codec(SchemaIds.local())
LOG = topics.MESSAGES


def log(broker: MemoryBroker, owner: str) -> FencedLog:
    return FencedLog(None, CODEC, topic=LOG, partition=0, owner=owner, port=MemoryLog(broker, LOG))


def event(owned: FencedLog, number: int = 1, **fields: Any) -> tuple[str, SystemEvent]:
    record = SystemEvent(type="thing.done", subject="a", aggregate_id="a", sequence=number, epoch=owned.epoch, **fields)
    return "a", record


def valid_types(broker: MemoryBroker) -> list[str]:
    rule = ReadersRule()
    return [CODEC.decode(stored.value or b"").id for stored in broker.records(LOG) if rule.judge_headers(stored.headers) is Verdict.VALID]


async def test_the_first_owner_has_epoch_one_and_reads_its_own_fence_back() -> None:
    broker, seen = MemoryBroker(), list[LogRecord]()
    owned = log(broker, "one")
    await owned.claim(seen.append)
    assert (owned.epoch, owned.next_offset, owned.held) == (1, 1, True)
    assert [record.verdict for record in seen] == [Verdict.FENCE]
    index = [stored.key for stored in broker.records(topics.MODULE_SNAPSHOTS)]
    assert index == [f"fence/{LOG}/0/1".encode()], "the fence is in the index before the first event"


async def test_appends_get_the_offsets_that_were_foreseen() -> None:
    owned = log(MemoryBroker(), "one")
    await owned.claim()
    assert await owned.append([event(owned, 1), event(owned, 2)]) == 1
    assert await owned.append([event(owned, 3)]) == 3
    assert owned.next_offset == 4


async def test_a_zombie_loses_its_hold_with_its_next_append_and_nobody_sees_the_event() -> None:
    broker = MemoryBroker()
    zombie, successor = log(broker, "zombie"), log(broker, "successor")
    await zombie.claim()
    await zombie.append([event(zombie)])
    await successor.claim()
    with pytest.raises(UnknownOutcome) as refused:
        await zombie.append([event(zombie, 2)])
    assert refused.value.code == "log.offset-unexpected"
    assert not zombie.held
    with pytest.raises(UnknownOutcome):
        await zombie.append([event(zombie, 3)])
    assert len(valid_types(broker)) == 1, "the event after the successor's fence is void"


async def test_of_two_equal_claims_the_first_wins_and_the_other_claims_again() -> None:
    broker = MemoryBroker()
    first, second = log(broker, "first"), log(broker, "second")
    slow = MemoryLog(broker, LOG)
    ends = iter([0])  # the second owner saw an empty log before the first one's fence arrived

    class Late(MemoryLog):
        async def end(self) -> int:
            return next(ends, len(self.broker.records(LOG)))

    second._port = Late(broker, slow.topic)
    await first.claim()
    seen: list[LogRecord] = []
    await second.claim(seen.append)
    assert [record.verdict for record in seen] == [Verdict.FENCE, Verdict.FENCE_IGNORED, Verdict.FENCE]
    assert (first.epoch, second.epoch) == (1, 2)


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.UNKNOWN, Fault.REPEAT])
async def test_any_other_end_of_an_append_loses_the_hold_and_nothing_is_sent_twice(fault: Fault) -> None:
    broker = MemoryBroker()
    owned = log(broker, "one")
    await owned.claim()
    broker.faults.append(fault)
    with pytest.raises(UnknownOutcome):
        await owned.append([event(owned)])
    assert not owned.held
    stored = len(broker.records(LOG))
    await owned.claim()
    assert owned.epoch == 2
    assert len(broker.records(LOG)) == stored + 1, "the new claim adds its fence alone"


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.UNKNOWN, Fault.REPEAT])
async def test_a_fence_of_unknown_outcome_is_claimed_again(fault: Fault) -> None:
    broker = MemoryBroker()
    broker.faults.append(fault)
    owned = log(broker, "one")
    await owned.claim()
    assert owned.held
    assert await owned.append([event(owned)]) == len(broker.records(LOG)) - 1
    assert len(valid_types(broker)) == 1


async def test_a_batch_that_is_too_large_is_refused_before_it_is_sent() -> None:
    broker = MemoryBroker(batch_bytes_max=1000)
    owned = log(broker, "one")
    await owned.claim()
    with pytest.raises(TooLarge):
        await owned.append([event(owned, data={"text": "x" * 2000})])
    assert owned.held
    assert await owned.append([event(owned)]) == 1


async def test_a_claim_folds_what_lies_before_it() -> None:
    broker = MemoryBroker()
    first = log(broker, "one")
    await first.claim()
    await first.append([event(first, 1), event(first, 2)])
    seen: list[LogRecord] = []
    second = log(broker, "two")
    await second.claim(seen.append)
    assert [record.verdict for record in seen] == [Verdict.FENCE, Verdict.VALID, Verdict.VALID, Verdict.FENCE]
    third = log(broker, "three")
    seen.clear()
    await third.claim(seen.append, start=3, start_epoch=1)
    assert [record.verdict for record in seen] == [Verdict.FENCE, Verdict.FENCE]
    assert third.epoch == 3
    assert not await first.still_ours()
    assert await third.still_ours()
