"""What a core process runs, within the test's own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.modules.catalogue import OPERATIONS
from services.modules.machine import ModulesMachine
from services.orchestrator.machine import OrchestratorMachine
from services.orchestrator.shell import DefinitionKeeper
from services.processes.runtime import Alive, send_heartbeats
from streams import topics
from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.log.host import Host


@asynccontextmanager
async def core(kafka: Kafka, codec: Codec, name: str) -> AsyncIterator[DefinitionKeeper]:
    """What a core process runs, within this one."""
    keeper = DefinitionKeeper(kafka, codec, operations=OPERATIONS)
    await keeper.start()
    machines = [OrchestratorMachine(keeper.store, OPERATIONS), ModulesMachine()]
    host = Host(kafka, codec, machines, name=name, group=f"{kafka.settings.topic_prefix}-core", prepare=keeper.prepare)
    commands = kafka.names.physical(topics.COMMANDS)

    def state() -> Alive:
        return Alive({topics.CONTROL_WORKFLOWS: keeper.offset}, [f"{commands}/{partition}" for partition in host.partitions])

    tasks = [asyncio.create_task(host.run()), asyncio.create_task(keeper.run())]
    tasks.append(asyncio.create_task(send_heartbeats(kafka, codec, name, state)))
    try:
        await asyncio.wait_for(host.wait_ready(), 120)
        yield keeper
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await keeper.stop()
