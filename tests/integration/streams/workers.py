"""Worker processes and rules for tests."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from streams.bus.bus import Bus
from streams.records import CompositeEvent
from streams.settings import Settings
from streams.topics import COMPOSITES

START_TIMEOUT_S = 180.0


class WorkerProcess:
    """`python -m services.processes.worker`, with the settings of a test."""

    def __init__(self, settings: Settings, name: str, log: Path, module: str = "services.processes.worker") -> None:
        self._settings = settings
        self._name = name
        self._log = log
        self._module = module
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        environment = {
            **os.environ,
            "MPLP_KAFKA_BOOTSTRAP": self._settings.kafka_bootstrap, "MPLP_TOPIC_PREFIX": self._settings.topic_prefix,
            "MPLP_PARTITIONS": str(self._settings.partitions), "MPLP_DATA_DIR": str(self._settings.data_dir),
            "MPLP_PROCESS_NAME": self._name,
            "MPLP_GROUP_SESSION_TIMEOUT_MS": str(self._settings.group_session_timeout_ms),
        }  # fmt: skip
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self._module, env=environment, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), START_TIMEOUT_S)
        assert line == b"ready\n", f"{self._name} did not start: {self._log.read_text()[-3000:]}"

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself, or was killed."""
        return self._process is not None and self._process.returncode is not None

    async def wait(self) -> int:
        assert self._process is not None
        return await asyncio.wait_for(self._process.wait(), 120)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self.signal(signal.SIGKILL)
            self.signal(signal.SIGCONT)
            await self.wait()


@asynccontextmanager
async def worker(settings: Settings, name: str = "worker-1", **kwargs: Any) -> AsyncIterator[WorkerProcess]:
    """A started worker, killed at the end if it still runs."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    process = WorkerProcess(settings, name, settings.data_dir / f"{name}.log", **kwargs)
    try:
        await process.start()
        yield process
    finally:
        await process.kill()


def count_rule(rule_id: str = "count", **correlation: Any) -> dict[str, Any]:
    """Three `order.failed` of one customer within ten minutes."""
    return {
        "id": rule_id,
        "events": {"failed": {"type": "order.failed"}},
        "correlation": {
            "type": "event_count", "events": ["failed"], "group-by": ["data.customer"], "timespan": "10m",
            "condition": {"gte": 3}, **correlation,
        },
    }  # fmt: skip


async def composites(bus: Bus) -> list[CompositeEvent]:
    """All that count, now."""
    return [delivered.record async for delivered in bus.read(COMPOSITES, since="beginning", until_end=True)]


async def wait_for_composites(bus: Bus, count: int, timeout: float = 180.0) -> list[CompositeEvent]:
    """Waits until there are at least `count`."""
    async with asyncio.timeout(timeout):
        found: list[CompositeEvent] = []
        async for delivered in bus.read(COMPOSITES, since="beginning"):
            found.append(delivered.record)
            if len(found) >= count:
                break
    return found


def assert_gapless(found: list[CompositeEvent]) -> None:
    """Sequences per aggregate begin at 1 and have no gap."""
    by_aggregate: Mapping[str, list[int]] = {}
    for composite in found:
        by_aggregate.setdefault(composite.aggregate_id or "", []).append(composite.sequence or 0)  # type: ignore[attr-defined]
    for aggregate, sequences in by_aggregate.items():
        assert sequences == list(range(1, len(sequences) + 1)), aggregate
