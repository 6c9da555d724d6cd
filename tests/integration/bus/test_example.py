"""The example of the how-to runs as it stands."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from streams.codec.avro import Codec
from streams.settings import Settings

pytestmark = pytest.mark.broker

ROOT = Path(__file__).parents[3]


async def test_the_example_does_what_it_says(settings: Settings, codec: Codec) -> None:
    environment = {
        **os.environ,
        "MPLP_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "MPLP_TOPIC_PREFIX": settings.topic_prefix,
        "PYTHONPATH": str(ROOT),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(ROOT / "examples" / "produce_and_consume.py"), env=environment, cwd=settings.data_dir.parent,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)
    lines = out.decode().splitlines()

    assert process.returncode == 0, err.decode()
    assert "refused: number.invalid at /events/1/data/total" in lines
    assert "dead letter order.returned" in lines
    assert [line for line in lines if line.startswith("history")] == [
        "history order.paid",
        "history order.packed",
        "history order.sent",
        "history order.returned",
    ]
