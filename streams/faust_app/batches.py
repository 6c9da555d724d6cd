"""Writes many records to given partitions of a topic as explicit batches: far cheaper than a send per record."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaProducer

from streams.errors import TooLarge

#: (key, value, headers)
Raw = tuple[bytes, bytes | None, list[tuple[str, bytes]]]


async def send_batches(producer: AIOKafkaProducer, topic: str, records: Mapping[int, Iterable[Raw]]) -> None:
    """Sends the records of each partition in order; returns when all are acknowledged.

    Raises `TooLarge` (`record.too-large`) before anything of that partition's batch is sent, and what the producer raises.
    """
    sent: list[asyncio.Future[Any]] = []
    for partition, raws in records.items():
        builder = producer.create_batch()
        for key, value, headers in raws:
            if builder.append(key=key, value=value, timestamp=None, headers=headers) is not None:
                continue
            if builder.record_count():
                sent.append(await producer.send_batch(builder, topic, partition=partition))
                builder = producer.create_batch()
            if builder.append(key=key, value=value, timestamp=None, headers=headers) is None:
                raise TooLarge("record.too-large", f"A record of {len(value or b'')} bytes does not fit into a batch.")
        if builder.record_count():
            sent.append(await producer.send_batch(builder, topic, partition=partition))
    await asyncio.gather(*sent)
