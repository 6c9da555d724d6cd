"""The worker process: the Faust app with matching and correlation. Several workers share the partitions.

`python -m services.processes.worker`
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from services.processes.runtime import HEARTBEAT_INTERVAL_S, connected, process_name, run_process, say_ready
from streams import topics
from streams.codec.avro import Codec, headers_of
from streams.faust_app.worker import Worker
from streams.kafka import Kafka
from streams.records import Heartbeat, new_id
from streams.settings import Settings


async def serve(settings: Settings) -> None:
    """Runs until cancelled."""
    kafka, codec = await connected(settings)
    name = process_name("worker")
    # A name that the supervisor gave survives a restart, so the group need not wait for the lost member's session to end.
    worker = Worker(kafka, codec, name=name, static="MPLP_PROCESS_NAME" in os.environ)
    tasks = [asyncio.create_task(worker.run()), asyncio.create_task(_live(kafka, codec, worker, name))]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _live(kafka: Kafka, codec: Codec, worker: Worker, name: str) -> None:
    """Says `ready` once, and every second, and whenever rules have changed, that the process lives and how far it has come."""
    await worker.ready.wait()
    say_ready()
    topic, host = kafka.names.physical(topics.WORKERS), f"{socket.gethostname()}:{os.getpid()}"
    async with kafka.producer() as producer:
        try:
            while True:
                worker.reached.clear()
                beat = Heartbeat(
                    id=new_id(), type="process.lived", source=f"mplp/{name}", subject=name, process=name, host=host,
                    control_offsets=worker.control_offsets(), partitions=tuple(worker.partitions()),
                )  # fmt: skip
                await producer.send_and_wait(topic, key=name.encode(), value=codec.encode(beat), headers=headers_of(beat))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(worker.reached.wait(), HEARTBEAT_INTERVAL_S)
        except asyncio.CancelledError:
            # A tombstone: nobody need wait for this worker any more.
            await asyncio.shield(producer.send_and_wait(topic, key=name.encode(), value=None))
            raise


def main() -> None:
    """Entry point."""
    run_process(serve)


if __name__ == "__main__":
    main()
