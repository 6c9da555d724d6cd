"""The worker process: the Faust app with matching and correlation. Several workers share the partitions.

`python -m services.processes.worker`
"""

from __future__ import annotations

import os

from services.processes.runtime import Alive, connected, process_name, run_process, say_ready, send_heartbeats
from streams.bus.bus import Bus
from streams.codec.avro import Codec
from streams.concurrency import side_by_side
from streams.faust_app.rule_figures import RuleFigures
from streams.faust_app.rule_guard import RuleGuard
from streams.faust_app.worker import Worker
from streams.kafka import Kafka
from streams.settings import Settings


async def serve(settings: Settings) -> None:
    """Runs until cancelled."""
    kafka, codec = await connected(settings)
    name = process_name("worker")
    # A name that the supervisor gave survives a restart, so the group need not wait for the lost member's session to end.
    worker = Worker(kafka, codec, name=name, static="MPLP_PROCESS_NAME" in os.environ)
    await side_by_side(
        worker.run(), _live(kafka, codec, worker, name), _tell(kafka, codec, worker, name), _guard(kafka, codec, worker, name)
    )


async def _live(kafka: Kafka, codec: Codec, worker: Worker, name: str) -> None:
    """Says `ready` once, and every second, and whenever rules have changed, that the process lives and how far it has come."""
    await worker.ready.wait()
    await send_heartbeats(kafka, codec, name, lambda: Alive(worker.control_offsets(), worker.partitions()), worker.reached, first=say_ready)


async def _tell(kafka: Kafka, codec: Codec, worker: Worker, name: str) -> None:
    await worker.ready.wait()
    await RuleFigures(kafka, codec, name, worker.rule_figures).run()


async def _guard(kafka: Kafka, codec: Codec, worker: Worker, name: str) -> None:
    bus = Bus(kafka, codec)
    try:
        await RuleGuard(bus, name, worker.too_dear).run()
    finally:
        await bus.close()


def main() -> None:
    """Entry point."""
    run_process(serve)


if __name__ == "__main__":
    main()
