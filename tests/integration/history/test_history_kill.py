"""The sink killed at random moments under load: the history is exact afterwards."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections import Counter

import pytest

from services.history.store import History
from services.history.verify import Ask, Verifier
from streams.codec.avro import Codec, headers_of
from streams.kafka import Kafka
from streams.records import SystemEvent
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS
from tests.integration.history.helpers import caught_up, offsets_in_kafka, rows_by_partition, sinking, value_of
from tests.integration.history.odd import all_there

pytestmark = pytest.mark.broker

SINK_PROCESS = """
import asyncio, sys
from services.history.sink import Sink
from services.history.store import History
from services.history.verify import Ask, Verifier
from streams.codec.registry import connect_codec
from streams.kafka import Kafka
from streams.settings import Settings

async def main():
    settings = Settings()
    kafka = Kafka(settings)
    codec = await connect_codec(kafka)
    async with History(settings) as history:
        print("ready", flush=True)
        await Sink(kafka, codec, history).run()

asyncio.run(main())
"""


async def test_kill_9_at_random_moments_under_load_is_exact(kafka: Kafka, codec: Codec, settings: Settings) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    environment = {
        **os.environ,
        "MPLP_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "MPLP_TOPIC_PREFIX": settings.topic_prefix,
        "MPLP_PARTITIONS": str(settings.partitions),
        "MPLP_DATA_DIR": str(settings.data_dir),
    }
    sent: Counter[str] = Counter()
    done = asyncio.Event()

    async def load() -> None:
        async with kafka.producer(linger_ms=5) as producer:
            number = 0
            while not done.is_set():
                futures = []
                for _ in range(100):
                    number += 1
                    record = SystemEvent(type=f"t{number % 3}", data={"n": number})
                    futures.append(
                        await producer.send(
                            kafka.names.physical(SYSTEM_EVENTS), codec.encode(record), key=str(number).encode(), headers=headers_of(record)
                        )
                    )
                    sent[record.type] += 1
                for future in futures:
                    await future
                await asyncio.sleep(0.05)

    loading = asyncio.create_task(load())
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", SINK_PROCESS, env=environment, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        await asyncio.sleep(chance.uniform(0.3, 2.5))
        process.send_signal(signal.SIGKILL)
        await process.wait()
    done.set()
    await loading
    async with History(settings) as history, sinking(kafka, codec, history) as sink:
        await caught_up(sink)
        assert await rows_by_partition(history) == await offsets_in_kafka(kafka), f"seed {seed}"
        counts = dict((await history.query("SELECT type, count() FROM system_events GROUP BY type")).rows())
        assert counts == dict(sent), f"seed {seed}"
        assert await value_of(history, "SELECT count() - uniqExact(id) FROM system_events") == 0
        report = await Verifier(kafka, codec, history, all_there).run(Ask())
        assert report.exact, f"seed {seed}: {report.to_dict()['differences']}"
