"""The product through its shell, and many workflows at once through the bus."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition

from streams import connect
from streams.kafka import Kafka, cluster_metadata
from streams.settings import Settings
from streams.topics import CATALOGUE

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Its output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines() if line.strip()]


@dataclass(frozen=True, slots=True)
class Product:
    """A running product; `mplp` runs a command against it."""

    data_dir: Path

    @property
    def environment(self) -> dict[str, str]:
        """Environment of every command."""
        return {**os.environ, "MPLP_DATA_DIR": str(self.data_dir), "MPLP_HTTP_PORT": "0", "MPLP_KAFKA_PORT": "0"}

    def mplp(self, *arguments: str, stdin: str | bytes | None = None, timeout: float = 120) -> Answer:
        """Runs a command to its end."""
        raw = stdin.encode() if isinstance(stdin, str) else stdin
        command = [sys.executable, "-m", "services.cli", *arguments]
        done = subprocess.run(command, env=self.environment, cwd=ROOT, input=raw, capture_output=True, timeout=timeout, check=False)
        return Answer(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command that goes on."""
        command = [sys.executable, "-m", "services.cli", *arguments]
        return subprocess.Popen(command, env=self.environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run_info(self) -> dict[str, Any]:
        """What `mplp up` wrote."""
        found: dict[str, Any] = json.loads((self.data_dir / "run.json").read_text())
        return found

    def rows(self, sql: str, **parameters: str) -> list[dict[str, Any]]:
        """Rows of a query."""
        options = [option for name, value in parameters.items() for option in ("--param", f"{name}={value}")]
        answer = self.mplp("query", sql, *options, "--json")
        assert answer.code == 0, answer.err
        found: list[dict[str, Any]] = answer.json
        return found


def run_many(product: Product, definition: str, count: int, *, at: int, then: Callable[[], None]) -> list[str]:
    """Starts `count` executions of a definition; calls `then` after the first `at`. Returns their ids."""
    document = json.loads((ROOT / definition).read_text())

    async def run() -> list[str]:
        started = []
        async with connect(Settings(data_dir=product.data_dir)) as bus:
            for number in range(count):
                started.append(await bus.start_workflow(document, input={"number": number}))
                if number + 1 == at:
                    then()
        return started

    return asyncio.run(run())


def end_offsets(product: Product) -> dict[tuple[str, int], int]:
    """End offset of every partition of every topic that the history keeps, by (logical topic, partition)."""
    settings = Settings(data_dir=product.data_dir)

    async def read() -> dict[tuple[str, int], int]:
        kafka = Kafka(settings)
        async with kafka.consumer() as consumer:
            sunk = [topic.name for topic in CATALOGUE if topic.sunk]
            cluster = await cluster_metadata(consumer._client)
            places = [TopicPartition(topic, partition) for topic in sunk for partition in cluster.partitions_for_topic(topic) or ()]
            return {(tp.topic, tp.partition): end for tp, end in (await consumer.end_offsets(places)).items()}

    return asyncio.run(read())
