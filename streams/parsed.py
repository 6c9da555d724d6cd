"""Fetched records as aiokafka's parser made them: copying each into a `ConsumerRecord` costs twice the parsing."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import FetchResult


def hand_out_as_parsed(consumer: AIOKafkaConsumer) -> None:
    """What has arrived is handed out by the next `getmany` with offset, timestamp, key, value and headers, and without topic and partition.

    To be called before each: what arrives while that waits may come as `ConsumerRecord`s, which have the same attributes and more.
    """
    for result in consumer._fetcher._records.values():
        if isinstance(result, FetchResult) and result.has_more():
            result._partition_records._consumer_record = _as_parsed


def _as_parsed(_: Any, record: Any) -> Any:
    return record
