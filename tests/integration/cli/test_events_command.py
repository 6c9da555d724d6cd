"""`mplp events` and `mplp composites` in processes of their own, as a shell runs them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from streams.bus import connect
from streams.codec.avro import Codec, headers_of
from streams.kafka import Kafka
from streams.records import CompositeEvent, Fence, from_micros
from streams.settings import Settings
from streams.topics import COMPOSITES, SYSTEM_EVENTS

pytestmark = pytest.mark.broker

SOON = 120.0

BAD_LINES = b"\n".join(
    [
        b'{"type": "order.paid", "subject": "order-1", "data": {"total": 12.5}}',
        b"",
        b"{bad",
        b"   ",
        b"[1, 2]",
        b'{"type": "order.paid", "nope": 1}',
        b'{"type": "\xff\xfe"}',
        b'{"type": "x", "data": "' + b"y" * 1_100_000 + b'"}',
        b"x" * 8_000_000,
        b'{"type": "order.paid", "subject": "order-2"}\r',
        b'{"type": "order.paid", "subject": "last line, no line feed"}',
    ]
)


async def start(settings: Settings, *arguments: str, stdin: int | None = None) -> asyncio.subprocess.Process:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MPLP_")},
        "MPLP_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "MPLP_SCHEMAS_TOPIC": settings.schemas_topic,
        "MPLP_TOPIC_PREFIX": settings.topic_prefix,
        "PYTHONPATH": str(Path(__file__).parents[3]),
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.cli", *arguments, env=environment, cwd=settings.data_dir.parent, limit=64 * 2**20,
        stdin=stdin if stdin is not None else asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def mplp(settings: Settings, *arguments: str, given: bytes | None = None) -> tuple[int | None, str, str]:
    process = await start(settings, *arguments, stdin=asyncio.subprocess.PIPE if given is not None else None)
    out, err = await asyncio.wait_for(process.communicate(given), SOON)
    return process.returncode, out.decode(), err.decode()


async def subjects(settings: Settings, topic: str = SYSTEM_EVENTS) -> list[str]:
    async with connect(settings) as bus:
        return sorted([delivered.record.subject async for delivered in bus.read(topic, until_end=True)])


@pytest.mark.parametrize("way", ["pipe", "file"])
async def test_bad_lines_are_named_and_the_good_ones_kept(settings: Settings, codec: Codec, tmp_path: Path, way: str) -> None:
    if way == "file":
        (tmp_path / "in.ndjson").write_bytes(BAD_LINES)
        code, out, _ = await mplp(settings, "events", "produce", str(tmp_path / "in.ndjson"), "--json")
    else:
        code, out, _ = await mplp(settings, "events", "produce", "--json", given=BAD_LINES)

    report = json.loads(out)
    assert code == 1
    assert report["accepted"] == 3
    assert [(refusal["line"], refusal["code"]) for refusal in report["rejected"]] == [
        (3, "json.invalid"),
        (5, "event.not-object"),
        (6, "field.unknown"),
        (7, "json.invalid"),
        (8, "payload.too-large"),
        (9, "payload.too-large"),
    ]
    assert all(refusal["message"] for refusal in report["rejected"])
    assert await subjects(settings) == ["last line, no line feed", "order-1", "order-2"]


async def test_ten_thousand_lines_are_accepted_whole(settings: Settings, codec: Codec) -> None:
    lines = b"".join(
        b'{"type": "order.paid", "subject": "order-%05d", "data": {"total": %d}}\n' % (number, number) for number in range(10_000)
    )

    code, out, _ = await mplp(settings, "events", "produce", "-", "--json", given=lines)

    assert (code, json.loads(out)) == (0, {"accepted": 10_000, "rejected": []})
    assert await subjects(settings) == [f"order-{number:05d}" for number in range(10_000)]


async def test_a_slow_source_is_not_held_back(settings: Settings, codec: Codec) -> None:
    producing = await start(settings, "events", "produce", stdin=asyncio.subprocess.PIPE)
    assert producing.stdin is not None
    async with connect(settings) as bus, bus.subscribe(SYSTEM_EVENTS) as subscription:
        producing.stdin.write(b'{"type": "order.paid", "subject": "first"}\n{"type": "half')
        # It arrives although the input has not ended, and not even its second line.
        assert (await asyncio.wait_for(anext(subscription), SOON)).subject == "first"
        producing.stdin.write(b' a line"}')
        producing.stdin.close()
        assert (await asyncio.wait_for(anext(subscription), SOON)).type == "half a line"
    assert await asyncio.wait_for(producing.wait(), SOON) == 0


async def test_produce_refuses_topics_that_are_not_for_events(settings: Settings, codec: Codec) -> None:
    for topic, expected in (("nowhere", "topic.unknown"), ("mplp.workflow.commands", "record.unexpected"), (COMPOSITES, "topic.log")):
        code, out, err = await mplp(settings, "events", "produce", "--topic", topic, "--json", given=b'{"type": "x"}')
        assert (code, json.loads(out)["error"]["code"]) == (1, expected)
        assert "Traceback" not in err


async def test_tail_follows_filters_counts_and_ends(settings: Settings, codec: Codec) -> None:
    tailing = await start(settings, "events", "tail", "--filter", "data.total > 10.0", "--count", "2", "--json")
    assert tailing.stdout is not None
    assert tailing.stderr is not None
    assert b"following" in await asyncio.wait_for(tailing.stderr.readline(), SOON)
    async with connect(settings) as bus:
        for total in (5, 12.5, 7, 20):
            await bus.publish({"type": "order.paid", "data": {"total": total}})
            if total == 12.5:  # flushed at once, not when the command ends
                first: Any = json.loads(await asyncio.wait_for(tailing.stdout.readline(), SOON))
    second = json.loads(await asyncio.wait_for(tailing.stdout.readline(), SOON))

    assert await asyncio.wait_for(tailing.wait(), SOON) == 0
    assert [first["data"]["total"], second["data"]["total"]] == [12.5, 20]
    assert set(first) >= {"id", "type", "source", "subject", "time", "severity", "correlation_id"}

    code, out, _ = await mplp(settings, "events", "tail", "--from", "beginning", "--count", "4")
    assert code == 0
    assert sorted(line.split("  ")[-1] for line in out.splitlines()) == ['{"total":12.5}', '{"total":20}', '{"total":5}', '{"total":7}']


async def test_tail_ends_after_its_time(settings: Settings, codec: Codec) -> None:
    code, out, err = await mplp(settings, "events", "tail", "--timeout", "500ms")
    assert (code, out) == (0, "")
    assert "ended after 500ms" in err


async def test_a_record_that_cannot_be_read_stands_on_stderr_and_stops_nothing(settings: Settings, kafka: Kafka, codec: Codec) -> None:
    async with kafka.producer() as producer, connect(settings) as bus:
        [before] = await bus.publish([{"type": "order.made", "subject": "s"}])
        await producer.send_and_wait(kafka.names.physical(SYSTEM_EVENTS), b"garbage", key=b"s", partition=before.partition)
        await bus.publish({"type": "order.paid", "subject": "s"})

    code, out, err = await mplp(settings, "events", "tail", "--from", "beginning", "--count", "2", "--json")

    assert (code, [json.loads(line)["type"] for line in out.splitlines()]) == (0, ["order.made", "order.paid"])
    assert "avro.framing" in err
    assert "1 record(s) could not be read" in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--filter", "data.total >"], "expression.invalid"),
        (["--from", "yesterday"], "since.invalid"),
        (["--timeout", "soon"], "duration.invalid"),
        (["--topic", "nowhere"], "topic.unknown"),
    ],
)
async def test_tail_refuses_with_a_code(settings: Settings, codec: Codec, arguments: list[str], code: str) -> None:
    status, out, err = await mplp(settings, "events", "tail", "--json", *arguments)
    assert (status, json.loads(out)["error"]["code"]) == (1, code)
    assert "Traceback" not in err


async def test_without_a_broker_the_exit_code_is_3(settings: Settings, codec: Codec) -> None:
    away = settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    for arguments in (["events", "tail"], ["events", "history"], ["composites", "tail"], ["events", "produce"]):
        code, _, err = await mplp(away, *arguments, given=b'{"type": "x"}')
        assert code == 3
        assert "kafka.unreachable" in err


async def test_history_looks_back(settings: Settings, codec: Codec) -> None:
    async with connect(settings) as bus:
        await bus.publish(
            [{"type": "order.paid", "subject": "a", "correlation_id": "s"}, {"type": "order.failed", "correlation_id": "s"}, {"type": "x"}]
        )

    code, out, _ = await mplp(settings, "events", "history", "--correlation-id", "s", "--json")
    assert (code, [record["type"] for record in json.loads(out)]) == (0, ["order.paid", "order.failed"])
    code, out, _ = await mplp(settings, "events", "history", "--type", "*.failed")
    assert code == 0
    assert len(out.splitlines()) == 1
    code, out, _ = await mplp(
        settings, "events", "history", "--since", "1h ago", "--until", "2099-01-01T00:00:00Z", "--type", "order.*", "--json"
    )
    assert (code, len(json.loads(out))) == (0, 2)
    code, out, _ = await mplp(settings, "events", "history", "--until", "1h ago", "--type", "order.*", "--json")
    assert (code, json.loads(out)) == (0, [])
    code, out, _ = await mplp(settings, "events", "history", "--since", "some day", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (1, "time.invalid")


async def test_composites_are_shown_with_their_explanation(settings: Settings, kafka: Kafka, codec: Codec) -> None:
    physical = kafka.names.physical(COMPOSITES)
    time = from_micros(1_800_000_000_000_000)
    composite = CompositeEvent(
        type="composite.steps-failing", time=time, rule_id="steps-failing", correlation_type="event_count", group_key={"customer": "c-1"},
        window_start=time, window_end=time, event_count=3, confidence=0.8, severity="error", explanation="3 order.failed in 5 m",
        epoch=1, sequence=1, aggregate_id="a",
    )  # fmt: skip
    async with kafka.producer() as producer:
        for record in (Fence(type="log.fenced", log=physical, partition=0, epoch=1, owner="o"), composite):
            await producer.send_and_wait(physical, codec.encode(record), key=b"k", partition=0, headers=headers_of(record))

    code, out, _ = await mplp(settings, "composites", "tail", "--from", "beginning", "--count", "1")
    assert code == 0
    assert out == ("2027-01-15T08:00:00.000000Z  [error]  steps-failing  customer=c-1  3 events, confidence 0.80: 3 order.failed in 5 m\n")
    code, out, _ = await mplp(settings, "composites", "tail", "--from", "beginning", "--count", "1", "--json")
    assert json.loads(out)["explanation"] == composite.explanation
