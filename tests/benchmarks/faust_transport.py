"""Plain Faust against the chunk transport: the same topic, the same work (decode every record and count it), in the same run.

`python -m tests.benchmarks.faust_transport`. Both are Faust apps with one agent in a process of their own, started one after the other on
a topic that is already full; the clock runs from the first record handled to the last, so starting and joining the group cost nothing.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
import uvloop

from infra.kafka import EmbeddedKafka
from streams.codec.avro import Codec
from streams.codec.registry import connect_codec
from streams.faust_app.app import add_agent, new_app
from streams.faust_app.prefix import Chunk
from streams.kafka import Kafka
from streams.records import SystemEvent, new_id
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS
from streams.topics_apply import apply_topics
from tests.benchmarks.report import report

RECORDS = 40_000
ROUNDS = 3
TIMEOUT_S = 180.0


class Count:
    """Counts records and says how long the whole took."""

    def __init__(self) -> None:
        self._first = self._records = 0.0
        self.done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def add(self, records: int) -> None:
        """Some more were handled."""
        now = time.perf_counter()
        self._first = self._first or now
        self._records += records
        if self._records >= RECORDS and not self.done.done():
            self.done.set_result(now - self._first)


def plain_app(settings: Settings, codec: Codec, count: Count, group: str) -> faust.App:
    """What anybody writes: `async for` over single events."""
    app = faust.App(
        group, broker=f"kafka://{settings.bootstrap_servers()}", web_enabled=False, topic_allow_declare=False, topic_disable_leader=True,
        loghandlers=[], datadir=tempfile.mkdtemp(),
    )  # fmt: skip
    topic = app.topic(SYSTEM_EVENTS, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    async def agent(stream: Any) -> None:
        async for value in stream:
            codec.decode_raw(value)
            count.add(1)

    app.agent(topic, name="plain")(agent)
    return app


def chunk_app(settings: Settings, codec: Codec, count: Count, group: str) -> faust.App:
    """The same with whole fetches."""

    async def handle(chunk: Chunk) -> None:
        for record in chunk.records:
            codec.decode_raw(record.value)
        count.add(len(chunk.records))

    def failed(error: BaseException) -> None:
        raise error

    app = new_app(settings, group=group)
    add_agent(app, [SYSTEM_EVENTS], handle, failed, "chunks")
    return app


async def _drain(bootstrap: str, make: Callable[..., faust.App], group: str) -> float:
    settings = Settings(kafka_bootstrap=bootstrap)
    codec = await connect_codec(Kafka(settings))
    count = Count()
    app = make(settings, codec, count, group)
    await app.start()
    try:
        return await asyncio.wait_for(count.done, TIMEOUT_S)
    finally:
        await app.stop()


def _drained(bootstrap: str, make: Callable[..., faust.App], group: str, results: Any) -> None:
    results.put(uvloop.run(_drain(bootstrap, make, group)))


def rate(bootstrap: str, make: Callable[..., faust.App], group: str) -> float:
    """Records per second of one app, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_drained, args=(bootstrap, make, group, results))
    process.start()
    seconds: float = results.get(timeout=TIMEOUT_S)
    process.join()
    return RECORDS / seconds


async def fill(settings: Settings) -> None:
    """The topics, and the records in four partitions."""
    kafka = Kafka(settings)
    await apply_topics(kafka)
    codec = await connect_codec(kafka)
    async with kafka.producer(linger_ms=5) as producer:
        sent = []
        for number in range(RECORDS):
            event = SystemEvent(
                id=new_id(), type="order.failed", source="shop", subject=f"order-{number}", data={"customer": number % 1000, "total": 12.5}
            )
            sent.append(await producer.send(SYSTEM_EVENTS, key=event.subject.encode(), value=codec.encode(event)))
        await asyncio.gather(*sent)


async def measure() -> dict[str, Any]:
    """Alternates between the two; the best round of each counts, since noise only ever slows down."""
    with tempfile.TemporaryDirectory(prefix="mplp-bench-") as folder:
        async with EmbeddedKafka(Path(folder)) as broker:
            await fill(Settings(kafka_bootstrap=broker.bootstrap))
            plain, chunks = [], []
            for number in range(ROUNDS):
                plain.append(await asyncio.to_thread(rate, broker.bootstrap, plain_app, f"plain-{number}"))
                chunks.append(await asyncio.to_thread(rate, broker.bootstrap, chunk_app, f"chunks-{number}"))
    return {
        "plain_per_second": round(max(plain)), "chunks_per_second": round(max(chunks)), "ratio": round(max(chunks) / max(plain), 1),
        "plain_rounds": [round(value) for value in plain], "chunks_rounds": [round(value) for value in chunks],
    }  # fmt: skip


def main() -> None:
    """Measures and reports."""
    report(
        "faust-transport", f"{RECORDS} events decoded and counted by one Faust agent", uvloop.run(measure()),
        bar="10 x plain Faust", durability="reading only",
    )  # fmt: skip


if __name__ == "__main__":
    main()
