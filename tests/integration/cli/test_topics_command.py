"""`mplp topics` in a process of its own, as a shell runs it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from streams.kafka import Kafka
from streams.settings import Settings
from streams.topics import CATALOGUE, SYSTEM_EVENTS

pytestmark = pytest.mark.broker


async def mplp(settings: Settings, folder: Path, *arguments: str, **variables: str) -> tuple[int | None, str, str]:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MPLP_")},
        "MPLP_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "MPLP_SCHEMAS_TOPIC": settings.schemas_topic,
        "MPLP_TOPIC_PREFIX": settings.topic_prefix,
        "PYTHONPATH": str(Path(__file__).parents[3]),
        **variables,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.cli",
        *arguments,
        env=environment,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def parsed(out: str) -> Any:
    return json.loads(out)


async def test_apply_says_what_it_created_what_is_as_it_was_and_what_differs(kafka: Kafka, tmp_path: Path) -> None:
    names = {kafka.names.physical(topic.name) for topic in CATALOGUE}
    code, out, _ = await mplp(kafka.settings, tmp_path, "topics", "apply", "--json")
    first = parsed(out)
    assert code == 0
    assert names <= set(first["created"])
    code, out, _ = await mplp(kafka.settings, tmp_path, "topics", "apply", "--json")
    again = parsed(out)
    assert (code, again["created"], again["differences"]) == (0, [], [])
    assert again["schemas"] == first["schemas"]
    code, out, _ = await mplp(kafka.settings, tmp_path, "topics", "apply", MPLP_PARTITIONS="3")
    assert code == 1
    assert f"differs    {kafka.names.physical(SYSTEM_EVENTS)}: partitions is 4, expected 3" in out.splitlines()
    code, out, _ = await mplp(kafka.settings, tmp_path, "topics", "list", "--json")
    listed = {row["topic"]: row for row in parsed(out)}
    assert code == 0
    assert set(listed) == names
    events = listed[kafka.names.physical(SYSTEM_EVENTS)]
    assert {name: events[name] for name in ("exists", "partitions", "records", "cleanup", "types")} == {
        "exists": True,
        "partitions": 4,
        "records": 0,
        "cleanup": "delete",
        "types": "SystemEvent",
    }


async def test_without_a_broker_it_ends_with_three_and_a_sentence(settings: Settings, tmp_path: Path) -> None:
    code, out, err = await mplp(settings, tmp_path, "topics", "apply", MPLP_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert (code, out) == (3, "")
    assert "kafka.unreachable" in err
    assert "Traceback" not in err
