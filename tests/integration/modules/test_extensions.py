"""Extensions as their users see them: installed, activated, asked how they are; with a real host beside a core."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.processes.liveness import is_alive_pid, wait_gone
from streams.bus import Bus, connect
from streams.codec.avro import Codec
from streams.errors import ModuleFailed
from streams.kafka import Kafka
from streams.settings import Settings
from tests.integration.orchestrator.cores import core
from tests.unit.modules.extensions_of_tests import REPOSITORY, install

pytestmark = pytest.mark.broker

PATIENCE_S = 180.0

SERVED = """

from services.modules import Module

greetings = Module("greetings-of-tests")


@greetings.operation("greet")
def greet() -> str:
    return "hello"
"""


@asynccontextmanager
async def hosting(settings: Settings, site: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A host of extensions that is ready."""
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(REPOSITORY)]), "MPLP_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "MPLP_TOPIC_PREFIX": settings.topic_prefix,
    }  # fmt: skip
    command = (sys.executable, "-m", "services.processes.extensions")
    running = await asyncio.create_subprocess_exec(*command, cwd=REPOSITORY, env=environment, stdout=asyncio.subprocess.PIPE)
    try:
        assert running.stdout is not None
        assert await asyncio.wait_for(running.stdout.readline(), PATIENCE_S) == b"ready\n"
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def ask(bus: Bus, operation: str, **parameters: Any) -> Any:
    return await bus.call_module("extension", operation, parameters, home="extensions")


async def shown(bus: Bus, extension_id: str, status: str) -> Any:
    """The extension once it has this status."""
    async with asyncio.timeout(PATIENCE_S):
        while (found := await ask(bus, "get", extensionId=extension_id))["status"] != status:
            await asyncio.sleep(0.05)
    return found


async def test_extensions_live_and_die_alone_and_outlive_their_host(settings: Settings, kafka: Kafka, codec: Codec, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, SERVED, "served = extensions_for_tests:greetings\n")
    async with core(kafka, codec, "core-1"), connect(settings) as bus:
        ids = {}
        for name, config in (("good", {"colour": "red"}), ("leaving", {"how": "later"}), ("broken", {}), ("served", {})):
            ids[name] = (await ask(bus, "install", name=name, entryPoint=name, config=config))["extensionId"]
        async with hosting(settings, site) as host:
            for name in ("good", "leaving", "served"):
                assert (await ask(bus, "activate", extensionId=ids[name]))["status"] == "active"
            with pytest.raises(ModuleFailed, match=r"extension\.failed: activate: RuntimeError: no such thing"):
                await ask(bus, "activate", extensionId=ids["broken"])
            assert (await shown(bus, ids["broken"], "error"))["detail"].startswith("extension.failed: activate")
            assert (await shown(bus, ids["leaving"], "error"))["detail"] == "Its process ended with exit code 7."
            health = await ask(bus, "health", extensionId=ids["good"])
            assert (health["healthy"], health["report"]["config"]) == (True, {"colour": "red"})
            assert await bus.call_module("greetings-of-tests", "greet", {}) == "hello"

            family = psutil.Process(host.pid).children(recursive=True)
            assert health["report"]["pid"] in [each.pid for each in family]
            host.send_signal(signal.SIGKILL)
            await host.wait()
            assert wait_gone(family, PATIENCE_S) == [], "extensions die with their host"
        async with hosting(settings, site) as host:
            async with asyncio.timeout(PATIENCE_S):
                while len(psutil.Process(host.pid).children()) < 2:
                    await asyncio.sleep(0.05)
            again = await ask(bus, "health", extensionId=ids["good"])
            assert (again["healthy"], again["report"]["pid"] == health["report"]["pid"]) == (True, False)
            assert (await ask(bus, "deactivate", extensionId=ids["good"]))["status"] == "inactive"
            assert not is_alive_pid(again["report"]["pid"])
            host.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(host.wait(), PATIENCE_S) == 0
