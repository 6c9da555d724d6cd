"""A peer of `routes.py`: Bytewax filters and transforms events and delivers each to three topics. Runs in an environment of its own.

Arguments: bootstrap, topic, schema file, targets. Filter and transforms are Python functions, evaluated once for all three; events are
written as they came (Avro in the same frame), with an id of their own. At least once, with a recovery store and a snapshot every 10 s;
no delivery is tracked.
"""

from __future__ import annotations

import json
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import fastavro
from bytewax._bytewax import init_db_dir
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig
from bytewax.testing import run_main
from route_work import read, transformed, wanted, written


def main() -> None:
    bootstrap, topic, schema_file, *targets = sys.argv[1:]
    schema = fastavro.parse_schema(json.loads(Path(schema_file).read_text()))

    def routed(message: Any) -> list[tuple[Any, dict[str, Any]]]:
        record = read(message.value, schema)
        return [(message.key, transformed(record))] if wanted(record) else []

    flow = Dataflow("route")
    events = op.input("events", flow, KafkaSource([bootstrap], [topic], tail=False, batch_size=1000))
    made = op.flat_map("routed", events, routed)
    for target in targets:

        def of_target(item: tuple[Any, dict[str, Any]], target: str = target) -> Any:
            key, record = item
            return KafkaSinkMessage(key, written(record, target, schema))

        op.output(f"to {target}", op.map(f"written {target}", made, of_target), KafkaSink([bootstrap], target))
    with tempfile.TemporaryDirectory() as folder:
        init_db_dir(Path(folder), 1)
        run_main(flow, epoch_interval=timedelta(seconds=10), recovery_config=RecoveryConfig(folder))


main()
