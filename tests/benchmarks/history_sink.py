"""S9: topics to ClickHouse, all columns, exact. `python -m tests.benchmarks.history_sink [RECORDS]`.

Topics are filled with a mix of what a busy installation writes (`history_load`); then a gateway starts with an empty history, as it is
after a lost disk, and its sink catches up from offset 0. The clock runs from the first block that it decides to the note
that the last one is inserted, by the log of blocks. Counts of every table are compared with what was written, and then
`history verify` compares every row of the tables with the topics.

The peer is a sink as one writes it by hand (`peers/home_made_sink.py`): `getmany`, fastavro, rows inserted by clickhouse-connect, offsets
committed after that; at least once. Same tables, same engine, same topics.

At last `history rebuild` makes all tables anew from the topics, and compares them with what it read.

Memory: the greatest resident size of the gateway (HTTP, sink and engine in one process) in the first tenth of the rows, and in all;
also with the verification, and with the rebuild.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvloop
from aiokafka import TopicPartition

from infra.kafka import EmbeddedKafka
from services.history.tables import TABLES
from services.processes.runtime import connected
from streams.codec.avro import local_schemas
from streams.kafka import Kafka
from streams.records import Block, Inserted
from streams.topics import BLOCKS
from streams.topics_apply import apply_topics
from tests.benchmarks import history_load as load
from tests.benchmarks.report import report
from tests.benchmarks.rules import running, settings_of

RECORDS = 1_000_000
PEER_RECORDS = 250_000
PARTITIONS = 4
TIMEOUT_S = 600.0
#: How often memory is looked at, seconds.
LOOK_S = 0.1


class Memory:
    """Resident size of a process over time, MiB, sampled."""

    def __init__(self, pid: int) -> None:
        self._process, self._over = psutil.Process(pid), threading.Event()
        self.samples: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while not self._over.wait(LOOK_S):
            try:
                self.samples.append((time.time(), self._process.memory_info().rss / 2**20))
            except psutil.Error:
                return

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def peak(self, until_s: float = float("inf")) -> int:
        """The greatest one before an instant."""
        return round(max((size for at, size in self.samples if at <= until_s), default=0.0))


class Notes:
    """What the log of blocks says: when the first block was decided, and how far the rows are."""

    def __init__(self) -> None:
        self.begin_s = self.end_s = self.tenth_s = 0.0
        self.inserted = 0

    def take(self, record: Any, at_s: float, total: int) -> None:
        match record:
            case Block() if not self.begin_s:
                self.begin_s = at_s
            case Inserted():
                self.inserted += record.end_offset - record.first_offset
                self.end_s = at_s
                if not self.tenth_s and self.inserted >= total / 10:
                    self.tenth_s = at_s

    async def follow(self, kafka: Kafka, codec: Any, total: int, process: subprocess.Popen[bytes]) -> None:
        """Until so many offsets are inserted."""
        until_s = time.monotonic() + TIMEOUT_S
        async with kafka.consumer() as consumer:
            consumer.assign([TopicPartition(kafka.names.physical(BLOCKS), number) for number in range(PARTITIONS)])
            while self.inserted < total:
                if process.poll() is not None or time.monotonic() > until_s:
                    raise RuntimeError(f"The sink came to {self.inserted:,} of {total:,} offsets.")
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    for record in records:
                        self.take(codec.decode(record.value), record.timestamp / 1000, total)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


async def checked(port: int, filled: Counter[str], data: Path) -> dict[str, Any]:
    """Counts per table, and the verdict of a whole verification."""
    expected = load.rows_expected(filled, PARTITIONS)
    counts = " UNION ALL ".join(
        f"SELECT '{table}' AS name, count() AS n, uniqExact(_topic, _partition, _offset) AS places FROM {table}" for table in expected
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S, trust_env=False) as http:
        answer = (await http.post("/v1/query", json={"sql": counts})).raise_for_status().json()
        rows = answer if isinstance(answer, list) else answer["rows"]
        found = {row["name"]: (row["n"], row["places"]) for row in rows}
        right = found == {table: (count, count) for table, count in expected.items()}
        verdict = (await http.post("/v1/history/verify", json={})).raise_for_status().json()
    megabytes = await asyncio.to_thread(_megabytes, data)
    return {
        "counts_right": right,
        "verdict": verdict["verdict"],
        "verify_rows_per_s": round(verdict["offsets"] / verdict["seconds"]),
        "megabytes_on_disk": round(megabytes),
    }


async def made_anew(port: int) -> dict[str, Any]:
    """How fast all tables are made anew from the topics."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S, trust_env=False) as http:
        began_s = time.monotonic()
        done = (await http.post("/v1/history/rebuild", json={"why": "benchmark"})).raise_for_status().json()
        seconds = time.monotonic() - began_s
    return {"rebuilt_rows": done["rows"], "rebuild_rows_per_s": round(done["rows"] / seconds), "rebuild_paused_s": done["paused_s"]}


async def ours(settings: Any, folder: Path, filled: Counter[str], codec: Any) -> dict[str, Any]:
    """The gateway's sink from offset 0."""
    port, notes, total = free_port(), Notes(), filled.total()
    command = [sys.executable, "-m", "services.processes.gateway"]
    environment = {
        "MPLP_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "MPLP_TOPIC_PREFIX": settings.topic_prefix,
        "MPLP_PARTITIONS": str(PARTITIONS),
        "MPLP_DATA_DIR": str(folder / "ours"),
        "MPLP_HTTP_PORT": str(port),
    }
    with running(command, folder / "gateway.log", **environment) as (process, processor):
        memory = Memory(process.pid)
        try:
            await notes.follow(Kafka(settings), codec, total, process)
            spent_s = processor.between(notes.begin_s, notes.end_s)
            sizes = {"peak_mib_first_tenth": memory.peak(notes.tenth_s), "peak_mib": memory.peak()}
            said = await checked(port, filled, folder / "ours" / "clickhouse")
            sizes["peak_mib_with_verify"] = memory.peak()
            said |= await made_anew(port)
            sizes["peak_mib_with_rebuild"] = memory.peak()
        finally:
            memory.stop()
    seconds = notes.end_s - notes.begin_s
    return {
        "rows_per_s": round(total / seconds),
        "seconds": round(seconds, 2),
        "cpu_us_each": round(spent_s / total * 1e6, 1),
        **sizes,
        **said,
    }


def home_made(settings: Any, folder: Path, filled: Counter[str], codec: Any) -> dict[str, Any]:
    """The peer, on the same topics."""
    schemas = {codec.schema_id(name): (table, local_schemas()[name]) for name, table in TABLES.items()}
    topics = [settings.names.physical(topic) for topic in filled]
    limit = str(min(PEER_RECORDS, filled.total() // 2))
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.peers.home_made_sink",
        settings.kafka_bootstrap,
        str(folder / "peer"),
        json.dumps(schemas),
        limit,
        *topics,
    ]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    found = json.loads(done.stdout.splitlines()[-1])
    return {"rows_per_s": round(found["rows"] / found["seconds"]), "rows": found["rows"], "seconds": round(found["seconds"], 2)}


async def measure(records: int, peers: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="mplp-bench-") as name:
        folder = Path(name)
        async with EmbeddedKafka(folder / "kafka") as broker:
            settings = settings_of(broker.bootstrap, "bench", folder)
            await apply_topics(Kafka(settings))
            kafka, codec = await connected(settings)
            began_s = time.monotonic()
            filled = await load.fill(kafka, codec, records, PARTITIONS)
            sys.stderr.write(f"filled {filled.total():,} offsets in {time.monotonic() - began_s:.1f} s\n")
            figures: dict[str, Any] = {"product": await ours(settings, folder, filled, codec)}
            if "home-made" in peers:
                figures["home-made"] = await asyncio.to_thread(home_made, settings, folder, filled, codec)
                figures["ratio"] = round(figures["product"]["rows_per_s"] / figures["home-made"]["rows_per_s"], 2)
    report(
        "S9",
        f"{filled.total():,} offsets of five topics into ClickHouse (embedded), all columns, from offset 0",
        figures,
        bar="100,000 rows/s, exact; aim 200,000",
        durability="as ClickHouse is by default (no fsync)",
    )


def main() -> None:
    """Measures and reports."""
    arguments = sys.argv[1:]
    uvloop.run(measure(int(arguments[0]) if arguments else RECORDS, arguments[1:] or ["home-made"]))


if __name__ == "__main__":
    main()
