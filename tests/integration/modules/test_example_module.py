"""The example of a user's own module, run as its text says: one line, a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from services.modules.catalogue import OPERATIONS
from services.orchestrator.definitions import validate
from streams.bus import connect
from streams.codec.avro import Codec
from streams.errors import BackboneError
from streams.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "my_module"


@pytest.fixture
async def process(settings: Settings, codec: Codec) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**os.environ, "MPLP_KAFKA_BOOTSTRAP": settings.kafka_bootstrap, "MPLP_TOPIC_PREFIX": settings.topic_prefix}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE / "invoices.py"), cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.broker
async def test_it_serves_until_it_is_told_to_end(process: asyncio.subprocess.Process, settings: Settings) -> None:
    assert process.stdout is not None
    async with asyncio.timeout(180):
        assert await process.stdout.readline() == b"ready\n"
        async with connect(settings) as bus:
            lines = [{"text": "hours", "quantity": 7, "price": "80.005"}]
            invoice = await bus.call_module("invoices", "draft", {"customer": "ada", "lines": lines})
            assert (invoice["net"], invoice["tax"], invoice["gross"]) == ("560.04", "106.41", "666.45")
            assert await bus.call_module("invoices", "check", {"invoice": invoice}) == {"remaining": "333.55"}
            with pytest.raises(BackboneError, match=r"limit\.exceeded"):
                await bus.call_module("invoices", "check", {"invoice": {**invoice, "gross": "1000.01"}})
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def test_without_kafka_it_says_so(unused_tcp_port: int) -> None:
    environment = {**os.environ, "MPLP_KAFKA_BOOTSTRAP": f"127.0.0.1:{unused_tcp_port}"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE / "invoices.py"), cwd=ROOT, env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    assert process.returncode == 3
    assert b"kafka.unreachable" in errors
    assert b" [ERROR] aiokafka: " in errors, "what a library says is told from what we say"
    assert b"Traceback" not in errors


def test_its_workflow_is_valid_where_the_module_is_known() -> None:
    document = orjson.loads((EXAMPLE / "workflow.json").read_bytes())
    assert validate(document, {**OPERATIONS, "invoices": ("draft", "check")}) == []
    assert {fault.code for fault in validate(document, OPERATIONS)} == {"module.unknown"}
