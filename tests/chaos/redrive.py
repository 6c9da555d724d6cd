"""Dead letters put back by the command, which is killed in the middle again and again, and runs beside another one at last."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from streams.bus.bus import Bus
from streams.bus.handling import error_headers
from streams.bus.outgoing import Outgoing, event_outgoing
from streams.bus.validate import fields_of
from streams.codec.registry import connect_codec
from streams.errors import BackboneError
from streams.kafka import Kafka
from streams.log.ports import Stored
from streams.records import SystemEvent, now
from streams.routing import control, dlq
from streams.routing.selection import LetterSelection
from streams.settings import Settings
from streams.topics import DEAD_LETTER_SUFFIX, SYSTEM_EVENTS
from streams.topics_apply import WantedTopic, apply_topics, create_topics
from tests.integration.streams.workers import worker

AGAIN = "mplp.chaos.again"
ROUTE = {"id": "again", "match": {"topic": SYSTEM_EVENTS, "type": "chaos.lost"}, "destination": {"topic": AGAIN}}
#: Nine letters of ten are chosen.
WHERE = "data.number % 10 != 0"
KEYS = 100
_BATCH = 2000
SETTLE_S = 300.0


async def bury(bus: Bus, count: int) -> None:
    """Letters of a route, as a worker writes them."""
    kafka = bus.kafka
    topic = SYSTEM_EVENTS + DEAD_LETTER_SUFFIX
    wanted = WantedTopic(name=kafka.names.physical(topic), partitions=kafka.settings.partitions, replication=1, config={})
    async with kafka.admin() as admin:
        await create_topics(admin, [wanted])
    refused = BackboneError("webhook.refused", "HTTP 400")
    for first in range(0, count, _BATCH):
        letters = []
        for number in range(first, min(first + _BATCH, count)):
            event = SystemEvent(type="chaos.lost", source="chaos", subject=f"k{number % KEYS}", data={"number": number})
            made = event_outgoing(bus.codec, fields_of(event), kafka.settings.partitions)
            raw = Stored(
                topic=kafka.names.physical(SYSTEM_EVENTS), partition=made.partition, offset=number, timestamp_ms=0, key=made.key,
                value=made.value, headers=tuple(made.headers),
            )  # fmt: skip
            errors = error_headers(raw, route="again", stage="deliver", attempts=4, first_time=now(), error=refused)
            letters.append(Outgoing(made.partition, made.key, made.value, [*made.headers, *errors]))
        await bus.publisher.send(topic, letters)


async def redriven(settings: Settings, count: int, chance: random.Random, *, kills: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole run: what was measured, and what is wrong."""
    kafka = Kafka(settings)
    await apply_topics(kafka)
    bus = Bus(kafka, await connect_codec(kafka))
    try:
        async with worker(settings):
            await control.apply(bus, [ROUTE], who="chaos", timeout=60.0)
            await bury(bus, count)
            say(f"{count} letters written")
            began = time.monotonic()
            killed = [await _killed(settings, chance) for _ in range(kills)]
            reports = await asyncio.gather(_ended(settings), _ended(settings))
            seconds = time.monotonic() - began
            say(f"killed after {killed}; at last {reports}")
            chosen = [number for number in range(count) if number % 10]
            found = await _arrived(bus, len(chosen))
        left = [letter async for letter in dlq.letters(bus, LetterSelection())]
        wrong = list(_faults(chosen, found)) + ([] if len(left) == count - len(chosen) else [f"{len(left)} letters are left"])
        if sum(report["redriven"] for report in reports) > len(chosen):
            wrong.append(f"the last two say that they put back {reports}")
    finally:
        await bus.close()
    return {"letters": count, "chosen": len(chosen), "killed": killed, "seconds": round(seconds, 1), "last": reports, "wrong": wrong[:50]}


async def _start(settings: Settings) -> asyncio.subprocess.Process:
    environment = {
        **os.environ,
        "MPLP_KAFKA_BOOTSTRAP": settings.kafka_bootstrap, "MPLP_TOPIC_PREFIX": settings.topic_prefix,
        "MPLP_PARTITIONS": str(settings.partitions), "MPLP_DATA_DIR": str(settings.data_dir),
    }  # fmt: skip
    command = [sys.executable, "-m", "services.cli", "dlq", "redrive", "--route", "again", "--where", WHERE, "--who", "chaos", "--json"]
    return await asyncio.create_subprocess_exec(*command, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)


async def _killed(settings: Settings, chance: random.Random) -> str:
    """A redrive that is killed a moment after it has put back its first letters; the last that it said of that."""
    process = await _start(settings)
    assert process.stderr is not None
    said = (await process.stderr.readline()).decode().strip()
    await asyncio.sleep(chance.uniform(0.0, 0.3))
    if process.returncode is None:
        process.kill()
    await process.communicate()
    return said


async def _ended(settings: Settings) -> Mapping[str, int]:
    """A redrive that runs to its end; its report."""
    process = await _start(settings)
    out, told = await process.communicate()
    if process.returncode:
        raise RuntimeError(told.decode())
    report = json.loads(out)
    return {name: report[name] for name in ("matched", "redriven", "overtaken")}


async def _arrived(bus: Bus, wanted: int) -> list[int]:
    deadline = time.monotonic() + SETTLE_S
    while True:
        found = [delivered.record.data["number"] async for delivered in bus.read(AGAIN, since="beginning", until_end=True)]
        if len(set(found)) >= wanted or time.monotonic() > deadline:
            return found
        await asyncio.sleep(1.0)


def _faults(chosen: list[int], found: list[int]) -> Iterator[str]:
    if missing := set(chosen) - set(found):
        yield f"{len(missing)} letters did not come back: {sorted(missing)[:10]}"
    if others := set(found) - set(chosen):
        yield f"{len(others)} letters came back that were not chosen: {sorted(others)[:10]}"
    if len(found) != len(set(found)):
        yield f"{len(found) - len(set(found))} letters came back twice"
    by_key: dict[int, list[int]] = defaultdict(list)
    for number in found:
        by_key[number % KEYS].append(number)
    yield from (f"letters of k{key} came back out of order" for key, numbers in by_key.items() if numbers != sorted(numbers))
