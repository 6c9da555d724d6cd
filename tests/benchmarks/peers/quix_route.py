"""A peer of `routes.py`: Quix Streams filters and transforms events and delivers each to three topics. Runs in an environment of its own.

Arguments: bootstrap, topic, schema file, targets. Filter and transforms are Python functions, evaluated once for all three; events are
written as they came (Avro in the same frame), with an id of their own. At least once (its default); no delivery is tracked.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import fastavro
from quixstreams import Application
from route_work import read, transformed, wanted, written


def main() -> None:
    bootstrap, topic, schema_file, *targets = sys.argv[1:]
    schema = fastavro.parse_schema(json.loads(Path(schema_file).read_text()))
    with tempfile.TemporaryDirectory() as folder:
        app = Application(
            broker_address=bootstrap, consumer_group="quix", auto_offset_reset="earliest", state_dir=folder, loglevel="ERROR",
            auto_create_topics=False,
        )  # fmt: skip
        events = app.topic(topic, key_deserializer="bytes", value_deserializer="bytes")
        routed = app.dataframe(events).apply(lambda value: read(value, schema)).filter(wanted).apply(transformed)
        for target in targets:
            there = app.topic(target, key_serializer="bytes", value_serializer="bytes")

            def of_target(record: Any, target: str = target) -> bytes:
                return written(record, target, schema)

            routed.apply(of_target).to_topic(there)
        app.run()


main()
