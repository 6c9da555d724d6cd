"""The embedded broker for real: it keeps what it acknowledged whatever is killed, it can be moved, and it says why it does not start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest
from aiokafka.admin import NewTopic

from infra import checks
from infra.guard import guarded
from infra.kafka import EmbeddedKafka
from services.processes.liveness import wait_gone
from streams.errors import Refused, Unavailable
from streams.kafka import Kafka
from streams.settings import Settings

COUNT = 500


def client_of(broker: EmbeddedKafka) -> Kafka:
    return Kafka(Settings(kafka_bootstrap=broker.bootstrap))


async def produce(kafka: Kafka, topic: str) -> None:
    async with kafka.admin() as admin:
        await admin.create_topics([NewTopic(topic, 2, 1)])
    async with kafka.producer() as producer:
        await asyncio.gather(*[producer.send_and_wait(topic, str(number).encode()) for number in range(COUNT)])


async def consume(kafka: Kafka, topic: str) -> set[int]:
    async with kafka.consumer(topic) as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        left = sum(ends.values())
        seen: list[int] = []
        while len(seen) < left:
            seen += [int(record.value) for batch in (await consumer.getmany(timeout_ms=500)).values() for record in batch]
    assert len(seen) == len(set(seen))
    return set(seen)


async def test_what_was_acknowledged_survives_kill_9_and_a_move_of_the_folder(tmp_path: Path) -> None:
    # Given a broker with acknowledged records
    async with EmbeddedKafka(tmp_path / "before") as broker:
        await produce(client_of(broker), "kept")
        # When a second one wants the same folder, it is refused and disturbs nothing
        with pytest.raises(Refused) as caught:
            await EmbeddedKafka(tmp_path / "before", log_file=tmp_path / "second.log").start()
        assert caught.value.code == "data.in-use"
        # And when it is killed without a chance to flush anything
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        assert await broker.wait() == -signal.SIGKILL
    # And its folder is moved, its ports are others, and the AOT cache is rubbish
    (tmp_path / "before").rename(tmp_path / "after")
    rubbish = tmp_path / "rubbish.aot"
    rubbish.write_bytes(os.urandom(4096))
    async with EmbeddedKafka(tmp_path / "after", jvm_flags=[f"-XX:AOTCache={rubbish}"]) as broker:
        # Then everything is there, once
        assert await consume(client_of(broker), "kept") == set(range(COUNT))


async def test_it_dies_with_its_parent_however_that_dies(tmp_path: Path) -> None:
    # Given a process that runs a broker
    program = (
        "import asyncio, sys; from pathlib import Path; from infra.kafka import EmbeddedKafka\n"
        "async def main():\n"
        "    async with EmbeddedKafka(Path(sys.argv[1])) as broker:\n"
        "        print(broker.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(*guarded([sys.executable, "-c", program, str(tmp_path)]), stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    broker = psutil.Process(int(await parent.stdout.readline()))
    assert "kafka.Kafka" in broker.cmdline()
    # When it is killed
    parent.kill()
    await parent.wait()
    # Then the broker is gone, without anybody's help
    assert await asyncio.to_thread(wait_gone, [broker], 20) == []


async def test_a_taken_port_is_told_before_anything_is_started(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Refused) as caught:
            await EmbeddedKafka(tmp_path, port=port).start()
    assert caught.value.code == "port.taken"
    assert str(port) in caught.value.message


async def test_a_full_disk_is_told_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "FREE_BYTES_MIN", 2**62)  # more than any disk has
    with pytest.raises(Refused) as caught:
        await EmbeddedKafka(tmp_path).start()
    assert caught.value.code == "disk.full"


async def test_a_broker_that_does_not_start_says_what_its_log_says(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        await EmbeddedKafka(tmp_path, overrides={"num.io.threads": "none"}).start()
    assert caught.value.code == "kafka.failed"
    assert "num.io.threads" in caught.value.message


async def test_topics_without_their_identity_are_not_overwritten(tmp_path: Path) -> None:
    topic = tmp_path / "data" / "precious-0"
    topic.mkdir(parents=True)
    with pytest.raises(Refused) as caught:
        await EmbeddedKafka(tmp_path).start()
    assert caught.value.code == "data.damaged"
    assert topic.is_dir()
