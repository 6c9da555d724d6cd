"""A peer of `rules.py`: Bytewax counts events per customer in tumbling windows of event time. Runs in an environment of its own.

Arguments: bootstrap, topic, target, schema file, threshold, window and grace in milliseconds. State is in a recovery store, with a
snapshot every 10 s: what the product's checkpoints do.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as windowing
import fastavro
import orjson
from bytewax._bytewax import init_db_dir
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig
from bytewax.testing import run_main

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def main() -> None:
    bootstrap, topic, target, schema_file, *numbers = sys.argv[1:]
    threshold, window_ms, grace_ms = map(int, numbers)
    schema = fastavro.parse_schema(json.loads(Path(schema_file).read_text()))

    def read(message: Any) -> list[tuple[str, int]]:
        record = fastavro.schemaless_reader(io.BytesIO(message.value[5:]), schema)
        if record["type"] != "order.failed":
            return []
        return [(str(orjson.loads(record["data"])["customer"]), record["time"])]

    def written(item: Any) -> KafkaSinkMessage[bytes, bytes]:
        customer, (window, count) = item
        value = orjson.dumps({"customer": customer, "start_ms": window * window_ms, "count": count})
        return KafkaSinkMessage(customer.encode(), value)

    flow = Dataflow("count")
    events = op.input("events", flow, KafkaSource([bootstrap], [topic], tail=False, batch_size=1000))
    read_events = op.flat_map("read", events, read)
    counts = windowing.count_window(
        "count", read_events,
        windowing.EventClock(
            ts_getter=lambda item: EPOCH + timedelta(microseconds=item[1]), wait_for_system_duration=timedelta(milliseconds=grace_ms)
        ),
        windowing.TumblingWindower(length=timedelta(milliseconds=window_ms), align_to=EPOCH),
        lambda item: item[0],
    )  # fmt: skip
    found = op.map("written", op.filter("enough", counts.down, lambda item: item[1][1] >= threshold), written)
    op.output("composites", found, KafkaSink([bootstrap], target))
    with tempfile.TemporaryDirectory() as folder:
        init_db_dir(Path(folder), 1)
        run_main(flow, epoch_interval=timedelta(seconds=10), recovery_config=RecoveryConfig(folder))


main()
