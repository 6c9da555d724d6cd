"""A peer of `rules.py`: a plain Faust agent that counts events per customer and tumbling window of event time in a dict.

Arguments: bootstrap, topic, target, schema file, threshold, window and grace in milliseconds (no grace here: a customer's window closes
with the customer's next event). Nothing survives a crash but the offsets.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import fastavro
import faust
import orjson
from mode import Worker


def main() -> None:
    bootstrap, topic_name, target_name, schema_file, *numbers = sys.argv[1:]
    threshold, window_ms, _ = map(int, numbers)
    schema = fastavro.parse_schema(json.loads(Path(schema_file).read_text()))
    app = faust.App(
        "plain-faust", broker=f"kafka://{bootstrap}", web_enabled=False, topic_allow_declare=False, topic_disable_leader=True,
        datadir=tempfile.mkdtemp(), consumer_auto_offset_reset="earliest", producer_acks=-1,
    )  # fmt: skip
    raw: Any = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    topic, target = app.topic(topic_name, **raw), app.topic(target_name, **raw)
    counts: dict[str, tuple[int, int]] = {}  # customer → start of the window, count

    async def count(stream: Any) -> None:
        async for value in stream:
            record: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schema)
            if record["type"] != "order.failed":
                continue
            customer = str(orjson.loads(record["data"])["customer"])
            start = record["time"] // 1000 // window_ms * window_ms
            before, number = counts.get(customer, (start, 0))
            if before == start:
                counts[customer] = (start, number + 1)
                continue
            counts[customer] = (start, 1)
            if number >= threshold:
                said = orjson.dumps({"customer": customer, "start_ms": before, "count": number})
                await target.send(key=customer.encode(), value=said)

    app.agent(topic, name="count")(count)
    Worker(app, loglevel="error").execute_from_commandline()


main()
