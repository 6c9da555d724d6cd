"""A host is ready when every partition that is still its own serves."""

from __future__ import annotations

import asyncio

from streams.codec.avro import Codec, SchemaIds
from streams.kafka import Kafka
from streams.log.host import Host
from streams.log.owned import OwnedPartitions
from streams.log.partition import PartitionRunner
from streams.settings import Settings
from streams.testing.toys import FlowMachine


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

    await asyncio.wait_for(waiting, 5)
    assert host.ready
