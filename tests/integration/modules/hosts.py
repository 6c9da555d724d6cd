"""A core process in miniature on the real broker: the modules' machine in a host, with whatever else a test needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from services.modules.machine import ModulesMachine
from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.log.host import Host


@asynccontextmanager
async def serving(kafka: Kafka, codec: Codec, name: str, machines: Sequence[Any] | None = None) -> AsyncIterator[Host]:
    """A host that serves all partitions; at the end it is gone without a farewell."""
    host = Host(kafka, codec, machines or [ModulesMachine()], name=name, group=f"{kafka.settings.topic_prefix}-core")
    task = asyncio.create_task(host.run())
    ready = asyncio.create_task(host.wait_ready())
    try:
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        yield host
    finally:
        task.cancel()
        ready.cancel()
        await asyncio.gather(task, ready, return_exceptions=True)
