"""The worker on a real broker: from events to composites, once, whatever happens to the process."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from streams.bus.bus import Bus
from streams.codec.avro import Codec
from streams.correlation import control
from streams.kafka import Kafka
from streams.log.fenced import FencedLog, UnknownOutcome
from streams.records import SystemEvent, WorkflowTransition, derived_id, now
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS, TRANSITIONS, partition_of
from streams.topics_apply import WantedTopic, create_topics
from tests.integration.streams.workers import assert_gapless, composites, count_rule, wait_for_composites, worker
from tests.raw_records import raw_records

if TYPE_CHECKING:
    from streams.topics_apply import AppliedTopics

pytestmark = pytest.mark.broker

#: How long a takeover may take on a machine that does much else, seconds.
PATIENT_S = 180.0


def failed(customer: str, subject: str, *, seconds_ago: float = 0.0, **more: object) -> SystemEvent:
    time = now() - timedelta(seconds=seconds_ago)
    return SystemEvent(type="order.failed", source="shop", subject=subject, time=time, data={"customer": customer, **more})


def subjects_in_different_partitions(count: int, partitions: int) -> list[str]:
    found: dict[int, str] = {}
    number = 0
    while len(found) < count:
        found.setdefault(partition_of(f"s{number}", partitions), f"s{number}")
        number += 1
    return list(found.values())


async def test_three_events_of_one_group_in_different_partitions_make_one_composite(settings: Settings, bus: Bus) -> None:
    async with worker(settings) as process:
        report = await control.apply(bus, [count_rule()], who="test")
        assert report.reached == ("worker-1",)
        assert not report.missing
        events = [failed("ann", subject) for subject in subjects_in_different_partitions(3, settings.partitions)]
        published = await bus.publish([*events, failed("bob", "s0"), failed("bob", "s1")])
        assert len({place.partition for place in published[:3]}) == 3

        (composite,) = await wait_for_composites(bus, 1)
        assert composite.group_key == {"data.customer": "ann"}
        assert set(composite.event_ids) == {event.id for event in events}
        assert composite.event_count == 3
        assert composite.sequence == 1
        assert composite.input is not None
        assert composite.input.topic.endswith("internal.matches")
        assert "3 records of failed for data.customer=ann" in composite.explanation
        assert composite.rule_version == 1

        process.signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert len(await composites(bus)) == 1


async def test_rules_change_without_a_restart_and_every_change_is_an_event(settings: Settings, bus: Bus) -> None:
    async with worker(settings):
        await control.apply(bus, [count_rule(), count_rule("other", condition={"gte": 2})], who="ann", why="begin")
        await bus.publish([failed("a", "x"), failed("a", "x")])
        assert [composite.rule_id for composite in await wait_for_composites(bus, 1)] == ["other"]

        same = await control.apply(bus, [count_rule()], who="ann")
        assert [(rule.version, rule.changed) for rule in same.documents] == [(1, False)]
        # `other` loses its state with a new version, `count` keeps its own.
        changed = await control.apply(bus, [count_rule("other", condition={"gte": 4})], who="ann")
        assert [(rule.version, rule.changed) for rule in changed.documents] == [(2, True)]
        await bus.publish([failed("a", "x")])
        assert {composite.rule_id for composite in await wait_for_composites(bus, 2)} == {"other", "count"}

        await control.delete(bus, "count", who="bob", why="enough")
        await bus.publish([failed("a", "x") for _ in range(3)])
        found = await wait_for_composites(bus, 3)
        assert {(composite.rule_id, composite.rule_version) for composite in found} == {("other", 1), ("count", 1), ("other", 2)}
        assert [stored.record.id for stored in await control.list_rules(bus)] == ["other"]

    told = [(event.type, event.data["id"], event.data["version"], event.data["who"]) for event in await bus.history(source="mplp/rules")]  # type: ignore[attr-defined]
    assert told == [
        ("rule.applied", "count", 1, "ann"),
        ("rule.applied", "other", 1, "ann"),
        ("rule.applied", "other", 2, "ann"),
        ("rule.deleted", "count", 2, "bob"),
    ]


async def test_final_output_waits_for_the_clock_of_all_partitions_and_idle_ones_do_not_hold_it_up(settings: Settings, bus: Bus) -> None:
    async with worker(settings):
        await control.apply(bus, [count_rule(output="final", grace="2s")], who="test")
        await bus.publish([failed("ann", "x", seconds_ago=ago) for ago in (3, 1, 2)])
        (composite,) = await wait_for_composites(bus, 1)
        assert list(composite.event_ids) == [
            event.id for event in sorted(await bus.history(type="order.failed"), key=lambda event: event.time)
        ]


async def test_a_record_ahead_of_its_time_moves_no_clock_and_takes_no_part(settings: Settings, bus: Bus) -> None:
    async with worker(settings):
        await control.apply(bus, [count_rule(condition={"gte": 1})], who="test")
        await bus.publish([failed("future", "x", seconds_ago=-3600), failed("now", "x")])
        assert [composite.group_key["data.customer"] for composite in await wait_for_composites(bus, 1)] == ["now"]


async def test_garbage_goes_to_the_dead_letters_and_stops_nothing(settings: Settings, bus: Bus, kafka: Kafka) -> None:
    async with worker(settings):
        await control.apply(bus, [count_rule(condition={"gte": 1})], who="test")
        async with kafka.producer() as producer:
            for value in (b"no avro", b"\0\0\0\xff\xff\x01", None, b""):
                await producer.send_and_wait(kafka.names.physical(SYSTEM_EVENTS), key=b"k", value=value)
        await bus.publish([failed("ann", "k")])
        await wait_for_composites(bus, 1)
        letters = await raw_records(kafka, f"{SYSTEM_EVENTS}.dlq", 4)
    assert sorted((letter.value or b"") for letter in letters) == [b"", b"", b"\0\0\0\xff\xff\x01", b"no avro"]
    assert all(dict(letter.headers)["mplp.errors.stage"] == b"match" for letter in letters)


async def test_killed_in_mid_stream_again_and_again_each_composite_is_there_once(
    settings: Settings, bus: Bus, topics: AppliedTopics
) -> None:
    groups, chaos = 400, random.Random(7)
    events = [failed(f"c{group}", f"s{chaos.randrange(50)}") for group in range(groups) for _ in range(3)]
    chaos.shuffle(events)
    async with worker(settings) as first:
        await control.apply(bus, [count_rule()], who="test")

        async def produce() -> None:
            for start in range(0, len(events), 20):
                await bus.publish(events[start : start + 20])
                await asyncio.sleep(0.1)

        producing = asyncio.create_task(produce())
        process = first
        for _ in range(3):
            await asyncio.sleep(chaos.uniform(0.2, 0.6))
            await process.kill()
            await process.start()
        await producing
        found = await wait_for_composites(bus, groups)
        # What comes after the last expected one would be one too many: let everything settle, then look again.
        await bus.publish([failed("last", "s0") for _ in range(3)])
        await wait_for_composites(bus, groups + 1)
        found = await composites(bus)
    assert Counter(composite.group_key["data.customer"] for composite in found) == {
        **{f"c{group}": 1 for group in range(groups)},
        "last": 1,
    }
    assert len({composite.id for composite in found}) == groups + 1
    used = [event_id for composite in found if composite.group_key["data.customer"] != "last" for event_id in composite.event_ids]
    assert sorted(used) == sorted(event.id for event in events)
    assert_gapless(found)


async def test_a_checkpoint_carries_open_windows_over_a_restart(settings: Settings, bus: Bus) -> None:
    async with worker(settings) as process:
        await control.apply(bus, [count_rule(**{"after-match": "continue"})], who="test")
        await bus.publish([failed("ann", subject) for subject in ("a", "b", "c")])
        await wait_for_composites(bus, 1)
        process.signal(signal.SIGTERM)  # a clean end writes a checkpoint
        assert await process.wait() == 0
        await bus.publish([failed("ann", "d")])
        await process.start()
        found = await wait_for_composites(bus, 2)
    assert [(composite.event_count, composite.sequence) for composite in found] == [(3, 1), (4, 2)]
    assert found[1].epoch > found[0].epoch


async def test_a_stopped_and_continued_worker_adds_nothing(settings: Settings, bus: Bus) -> None:
    short = settings.model_copy(update={"group_session_timeout_ms": 6000})
    async with worker(short, "worker-a") as zombie:
        await control.apply(bus, [count_rule(condition={"gte": 1}, grace="60s")], who="test")
        await bus.publish([failed(f"before-{number}", f"s{number}") for number in range(40)])
        await wait_for_composites(bus, 40, PATIENT_S)
        zombie.signal(signal.SIGSTOP)
        await bus.publish([failed(f"during-{number}", f"s{number}") for number in range(40)])
        async with worker(short, "worker-b"):
            await wait_for_composites(bus, 80, PATIENT_S)
            zombie.signal(signal.SIGCONT)
            await bus.publish([failed(f"after-{number}", f"s{number}") for number in range(40)])
            found = await wait_for_composites(bus, 120, PATIENT_S)
            await bus.publish([failed("last", "s0")])
            await wait_for_composites(bus, 121, PATIENT_S)
            found = await composites(bus)
    counts = Counter(composite.group_key["data.customer"] for composite in found)
    assert set(counts.values()) == {1}
    assert len(counts) == 121


async def test_a_rule_may_name_a_topic_of_the_user_even_before_it_exists(settings: Settings, bus: Bus, kafka: Kafka) -> None:
    mine = "mplp.mine"
    physical = kafka.names.physical(mine)
    rule = count_rule(condition={"gte": 1})
    rule["events"]["failed"]["topic"] = mine
    async with worker(settings):
        report = await control.apply(bus, [rule, count_rule("default", condition={"gte": 1})], who="test")
        assert not report.missing
        await bus.publish([failed("ann", "s")])  # the missing topic stops nothing
        assert [composite.rule_id for composite in await wait_for_composites(bus, 1)] == ["default"]
        async with kafka.admin() as admin:
            await create_topics(admin, [WantedTopic(name=physical, partitions=3, replication=1, config={})])
        await bus.publish([failed("bob", "s")], topic=mine)
        assert [composite.rule_id for composite in await wait_for_composites(bus, 2)] == ["default", "count"]


async def test_of_a_log_only_what_counts_is_matched(settings: Settings, bus: Bus, kafka: Kafka, codec: Codec) -> None:
    rule = {
        "id": "steps",
        "events": {"failed": {"type": "step.failed"}},
        "correlation": {"type": "event_count", "group-by": ["execution_id"], "timespan": "5m", "condition": {"gte": 3}},
    }
    zombie = FencedLog(kafka, codec, topic=TRANSITIONS, partition=0, owner="zombie")
    owner = FencedLog(kafka, codec, topic=TRANSITIONS, partition=0, owner="owner")
    await zombie.claim()
    await zombie.append([("e", step_failed(1, zombie.epoch))])
    await owner.claim()
    await control.apply(bus, [rule], who="test")
    async with worker(settings):
        with pytest.raises(UnknownOutcome):
            await zombie.append([("e", step_failed(2, zombie.epoch)), ("e", step_failed(3, zombie.epoch))])
        # Where the zombie's append lies is not what the owner expects: it claims again, as the kernel does.
        await owner.claim()
        await owner.append([("e", step_failed(number, owner.epoch)) for number in (4, 5)])
        (composite,) = await wait_for_composites(bus, 1)
    assert composite.event_ids == tuple(step_failed(number, 0).id for number in (1, 4, 5))
    await zombie.close()
    await owner.close()


def step_failed(number: int, epoch: int) -> WorkflowTransition:
    return WorkflowTransition(
        id=derived_id("step", number), type="step.failed", execution_id="e", workflow_id="w", step_id="s", status="running",
        aggregate_id="e", sequence=number, epoch=epoch,
    )  # fmt: skip
