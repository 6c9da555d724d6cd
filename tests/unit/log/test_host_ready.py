"""A host is ready when every partition that is still its own serves: when what had arrived by the takeover is decided."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from streams.codec.avro import Codec, SchemaIds
from streams.kafka import Kafka
from streams.log.host import Host
from streams.log.inputs import RANK_ANSWER, RANK_COMMAND, Arrived
from streams.log.lanes import Ownership
from streams.log.owned import OwnedPartitions
from streams.log.partition import PartitionRunner
from streams.records import InputPosition
from streams.settings import Settings
from streams.testing.toys import FlowMachine, start
from streams.topics import COMMANDS
from tests.unit.log.world import World, until


class NoConsumer:
    """Stands for the group's consumer: nothing is paused where nothing is read."""

    def pause(self, *partitions: object) -> None:
        pass


async def test_a_partition_that_goes_to_another_host_while_it_is_taken_over_is_not_waited_for() -> None:
    host = Host(Kafka(Settings(kafka_bootstrap="127.0.0.1:1")), Codec(SchemaIds.local()), [FlowMachine()], name="core-1", group="core")
    host._consumer = NoConsumer()
    host._owned = OwnedPartitions(host._new_runner)
    host._owned.runners[0] = PartitionRunner([], None, partition=0, partitions=1)  # type: ignore[arg-type]  # it is never run
    host.assigned.set()
    waiting = asyncio.create_task(host.wait_ready())
    await asyncio.sleep(0)
    assert not waiting.done()

    await host.on_partitions_assigned([])

    await asyncio.wait_for(waiting, 60)
    assert host.ready


class Inbox:
    """Stands for what is fetched: where its reader is."""

    def __init__(self, at: int) -> None:
        self.at = at

    def position(self, topic: str) -> int:
        return self.at


def arrived(offset: int | None, time_us: int, lane: str = "workflow") -> Arrived:
    position = None if offset is None else InputPosition(topic="inbox", partition=0, offset=offset)
    return Arrived(lane=lane, time_us=time_us, record=None, position=position)


def taken(*, at: int, queued: list[int], behind: bool = False) -> Ownership:
    """A partition that was taken when its inbox ended at offset 10: read up to `at`, of which `queued` are to be decided."""
    owned = Ownership(0, 1, {"inbox": "workflow"}, inboxes=cast(Any, Inbox(at)), ends={"inbox": 10})
    owned.lanes["workflow"] = cast(Any, None)
    owned.inputs.add("inbox", RANK_COMMAND, behind=behind).queue.extend(arrived(offset, 100) for offset in queued)
    owned.inputs.add("local/workflow", RANK_ANSWER)
    owned.inputs.add("log/workflow", RANK_ANSWER)
    return owned


@pytest.mark.parametrize(
    ("at", "queued", "backlog"), [(4, [], 6), (10, [7, 8, 9], 3), (12, [9, 10, 11], 1), (12, [10, 11], 0), (10, [], 0), (900, [899], 0)]
)
def test_the_backlog_is_what_had_arrived_by_the_takeover_and_nothing_of_what_has_since(at: int, queued: list[int], backlog: int) -> None:
    owned = taken(at=at, queued=queued)
    assert owned.backlog() == backlog
    assert owned.caught_up(None, 200) == (backlog == 0)


def test_what_is_still_to_be_fetched_is_waited_for_though_the_reader_is_there() -> None:
    owned = taken(at=10, queued=[], behind=True)  # it came with the last fetch, and is being made ready
    assert not owned.caught_up(None, 200)


def test_what_follows_from_the_backlog_belongs_to_it() -> None:
    owned = taken(at=10, queued=[])
    owned.inputs.sources["log/workflow"].queue.append(arrived(5, 50))
    assert not owned.caught_up(None, 200), "an event of another machine's log that it has not decided on"
    owned.inputs.sources["log/workflow"].queue.clear()
    owned.inputs.sources["local/workflow"].queue.append(arrived(None, 150))
    assert not owned.caught_up(None, 200), "handed over before the inboxes were decided"
    assert not owned.caught_up(180, 210)
    owned.inputs.sources["local/workflow"].queue.popleft()
    assert not owned.caught_up(180, 210), "a timer that was due"
    owned.inputs.sources["local/workflow"].queue.append(arrived(None, 220))
    assert owned.caught_up(230, 240), "what has come since may wait"


async def test_an_owner_with_ever_more_to_decide_serves_and_repeats_what_was_not_answered() -> None:
    world = World(local=False)
    first = world.own("one")
    world.put(COMMANDS, "unanswered", start("unanswered"))
    await until(lambda: len(world.effects.sent) == 1 and first.serving.is_set())
    await world.kill()
    for number in range(500):
        world.put(COMMANDS, f"waited-{number}", start(f"waited-{number}"))
    successor = world.own("two")
    await asyncio.wait_for(successor.taken.wait(), 60)
    for number in range(3000):
        world.put(COMMANDS, f"new-{number}", start(f"new-{number}"))
    await asyncio.wait_for(successor.serving.wait(), 60)
    assert successor.figures()["waiting"] > 0
    assert [send.key for send in world.effects.sent].count("unanswered") == 2
    await world.kill()
    assert not successor.taken.is_set()
    assert not successor.serving.is_set()
