"""A peer of `routes.py`: a plain Faust agent that filters and transforms events and delivers each to three topics.

Arguments: bootstrap, topic, schema file, targets. Filter and transforms are Python functions, evaluated once for all three; events are
written as they came (Avro in the same frame), with an id of their own. At least once; no delivery is tracked.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import fastavro
import faust
from mode import Worker
from route_work import read, transformed, wanted, written


def main() -> None:
    bootstrap, topic_name, schema_file, *names = sys.argv[1:]
    schema = fastavro.parse_schema(json.loads(Path(schema_file).read_text()))
    app = faust.App(
        "plain-faust-route", broker=f"kafka://{bootstrap}", web_enabled=False, topic_allow_declare=False, topic_disable_leader=True,
        datadir=tempfile.mkdtemp(), consumer_auto_offset_reset="earliest", producer_acks=-1,
    )  # fmt: skip
    raw: Any = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    topic = app.topic(topic_name, **raw)
    targets = {name: app.topic(name, **raw) for name in names}

    async def route(stream: Any) -> None:
        async for key, value in stream.items():
            record = read(value, schema)
            if not wanted(record):
                continue
            record = transformed(record)
            for name, target in targets.items():
                await target.send(key=key, value=written(record, name, schema))

    app.agent(topic, name="route")(route)
    Worker(app, loglevel="error").execute_from_commandline()


main()
