"""A peer of `history_sink.py`: the sink that one writes in an afternoon, at least once. Runs in our own environment.

aiokafka's `getmany`, fastavro, and an insert per table through clickhouse-connect into the same tables of a database of its own; then the
offsets are committed. A crash between insert and commit doubles rows, and what cannot be decoded stops it.

Arguments: bootstrap, data folder, schema ids as JSON (id → table, schema), records after which it ends, topics. Prints one JSON line.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import fastavro
import orjson
from aiokafka import AIOKafkaConsumer

from services.history.engine import open_client
from services.history.migrate import migrate
from streams.settings import Settings

BATCH_RECORDS = 50_000


def inserted(client: Any, table: str, rows: list[dict[str, Any]]) -> None:
    body = b"\n".join(map(orjson.dumps, rows))
    settings = {"async_insert": 0, "input_format_try_infer_datetimes": 0}
    client.raw_insert(table, list(rows[0]), body, fmt="JSONEachRow", settings=settings)


async def main() -> None:
    bootstrap, folder, schemas, limit, *topics = sys.argv[1:]
    settings = Settings(data_dir=Path(folder))
    client = open_client(settings, database=None, session={})
    migrate(client, settings.clickhouse_database)
    client.database = settings.clickhouse_database
    writers = {int(number): (table, fastavro.parse_schema(schema)) for number, (table, schema) in json.loads(schemas).items()}
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=bootstrap,
        group_id="home-made",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_bytes=2**26,
        max_partition_fetch_bytes=2**24,
    )
    await consumer.start()
    total, began_s = 0, 0.0
    waiting: dict[str, list[dict[str, Any]]] = defaultdict(list)
    while total < int(limit):
        for tp, records in (await consumer.getmany(timeout_ms=500, max_records=BATCH_RECORDS)).items():
            began_s = began_s or time.monotonic()
            for record in records:
                number = int.from_bytes(record.value[1:5], "big")
                if number not in writers:  # fences
                    continue
                table, schema = writers[number]
                row: Any = fastavro.schemaless_reader(io.BytesIO(record.value[5:]), schema, None)
                row["data_text"] = row.pop("data")
                row |= {"_topic": tp.topic, "_partition": tp.partition, "_offset": record.offset, "_timestamp": record.timestamp}
                waiting[table].append(row)
        if sum(map(len, waiting.values())) < BATCH_RECORDS:
            continue
        for table, rows in waiting.items():
            await asyncio.to_thread(inserted, client, table, rows)
            total += len(rows)
        waiting.clear()
        await consumer.commit()
    seconds = time.monotonic() - began_s
    await consumer.stop()
    client.close()
    sys.stdout.write(json.dumps({"rows": total, "seconds": seconds}) + "\n")


asyncio.run(main())
