"""The core process: the host of all machines (orchestrator, modules). Several cores share the partitions.

`python -m services.processes.core`
"""

from __future__ import annotations

from typing import Any

from services.modules.catalogue import OPERATIONS
from services.modules.machine import ModulesMachine
from services.orchestrator.machine import OrchestratorMachine
from services.orchestrator.shell import DefinitionKeeper
from services.processes.runtime import Alive, connected, process_name, run_process, say_ready, send_heartbeats
from streams import topics
from streams.concurrency import side_by_side
from streams.log.host import Host
from streams.log.types import Machine
from streams.settings import Settings


async def serve(settings: Settings) -> None:
    """Runs until cancelled."""
    kafka, codec = await connected(settings)
    name = process_name("core")
    keeper = DefinitionKeeper(kafka, codec, operations=OPERATIONS)
    await keeper.start()
    machines: list[Machine[Any]] = [OrchestratorMachine(keeper.store, OPERATIONS), ModulesMachine()]
    host = Host(kafka, codec, machines, name=name, group=f"{settings.topic_prefix}-core", prepare=keeper.prepare)

    def state() -> Alive:
        commands = kafka.names.physical(topics.COMMANDS)
        partitions = [f"{commands}/{partition}" for partition in host.partitions]
        return Alive({topics.CONTROL_WORKFLOWS: keeper.offset}, partitions, host.figures())

    async def tell_ready() -> None:
        await host.wait_taken()  # a backlog takes as long as it takes: who waits for us, and whoever watches us, knows us meanwhile
        say_ready()
        await send_heartbeats(kafka, codec, name, state)

    try:
        await side_by_side(host.run(), tell_ready(), keeper.run())
    finally:
        await keeper.stop()


def main() -> None:
    """Entry point."""
    run_process(serve)


if __name__ == "__main__":
    main()
