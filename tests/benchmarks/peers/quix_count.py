"""A peer of `rules.py`: Quix Streams counts events per customer in tumbling windows of event time. Runs in an environment of its own.

Arguments: bootstrap, topic, target, schema file, threshold, window and grace in milliseconds. At least once, state in RocksDB with a
changelog topic (its defaults).
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import fastavro
import orjson
from quixstreams import Application
from quixstreams.models import Deserializer, SerializationContext


class Events(Deserializer):
    def __init__(self, schema: Any) -> None:
        super().__init__()
        self._schema = schema

    def __call__(self, value: bytes, ctx: SerializationContext) -> Any:
        record: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), self._schema)
        record["data"] = orjson.loads(record["data"])
        return record


def main() -> None:
    bootstrap, topic, target, schema_file, *numbers = sys.argv[1:]
    threshold, window_ms, grace_ms = map(int, numbers)
    schema = fastavro.parse_schema(json.loads(Path(schema_file).read_text()))
    with tempfile.TemporaryDirectory() as folder:
        app = Application(
            broker_address=bootstrap, consumer_group="quix", auto_offset_reset="earliest", state_dir=folder, loglevel="ERROR",
            auto_create_topics=True,
        )  # fmt: skip
        events = app.topic(
            topic, key_deserializer="str", value_deserializer=Events(schema),
            timestamp_extractor=lambda value, headers, timestamp, timestamp_type: value["time"] // 1000,
        )  # fmt: skip
        composites = app.topic(target, key_serializer="str", value_serializer="json")
        counted = app.dataframe(events)
        counted = counted[counted.apply(lambda record: record["type"] == "order.failed")]
        counts = counted.tumbling_window(duration_ms=window_ms, grace_ms=grace_ms).count().final(closing_strategy="partition")
        enough = counts[counts.apply(lambda window: window["value"] >= threshold)]
        enough.apply(
            lambda window, key, timestamp, headers: {
                "customer": key.removeprefix("customer-"),
                "start_ms": window["start"],
                "count": window["value"],
            },
            metadata=True,
        ).to_topic(composites)
        app.run()


main()
