"""The supervisor for real, with a real broker and stand-ins for the processes: order, restarts, and that nothing is ever left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.processes.liveness import is_alive_pid, wait_gone
from services.processes.status import system_status
from services.processes.supervisor import Supervisor
from services.processes.supervisor_child import ChildSpec
from services.processes.supervisor_detached import ReportedError, start_detached, stop_running
from services.processes.supervisor_files import holder
from streams.errors import Refused, Unavailable
from streams.kafka import Kafka
from streams.settings import Settings

HERE = Path(__file__).parent
WAIT_S = 180.0


class Running:
    """A supervisor in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, run_info: dict[str, Any], settings: Settings, notes: Path) -> None:
        self.process = process
        self.run_info = run_info
        self.settings = settings
        self._notes = notes

    @classmethod
    async def start(cls, folder: Path) -> Running:
        notes = folder / "notes"
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / "supervise.py"), str(folder / "data"), str(notes), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        line = await process.stdout.readline()
        assert line, "the supervisor ended before it was ready; its progress is on stderr"
        run_info = json.loads(line)
        settings = Settings(data_dir=folder / "data", kafka_bootstrap=run_info["kafka"], topic_prefix="supervised", partitions=1)
        return cls(process, run_info, settings, notes)

    def family(self) -> list[psutil.Process]:
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def pids(self) -> dict[str, int]:
        return {entry["name"]: entry["pid"] for entry in self.settings.run_info()["processes"]}

    def notes(self) -> list[str]:
        return [line.rsplit(" ", 1)[0] for line in self._notes.read_text().splitlines()]

    async def ended(self, family: list[psutil.Process]) -> None:
        await asyncio.wait_for(self.process.wait(), WAIT_S)
        assert await asyncio.to_thread(wait_gone, family, WAIT_S) == []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.02)


async def produce(running: Running, value: bytes) -> None:
    async with Kafka(running.settings).producer() as producer:
        await producer.send_and_wait("supervised.system.events", value)


async def values(running: Running, count: int) -> list[bytes]:
    async with Kafka(running.settings).consumer("supervised.system.events") as consumer, asyncio.timeout(WAIT_S):
        return [(await consumer.getone()).value for _ in range(count)]


async def test_a_life_of_mplp_up(tmp_path: Path) -> None:
    # When it is started
    running = await Running.start(tmp_path)
    # Then the run file says what it says, and status finds all of it
    assert running.settings.run_info() == running.run_info
    assert set(running.pids()) == {"kafka", "core-1", "worker-1", "gateway-1"}
    seen = await system_status(running.settings)
    assert seen["status"] == "ready", seen
    assert {process["name"]: process["status"] for process in seen["processes"]} == dict.fromkeys(
        ("supervisor", *running.pids()), "running"
    )

    # When a second one wants the same folder, it is refused and told by whom
    with pytest.raises(Refused) as caught:
        await Supervisor(running.settings, lambda _: None).run(lambda _: None)
    assert caught.value.code == "data.in-use"
    assert str(running.process.pid) in caught.value.message

    # When a child dies, it is started again under its name, and the run file says so
    await produce(running, b"first")
    victim = running.pids()["worker-1"]
    os.kill(victim, signal.SIGKILL)
    await until(lambda: running.notes().count("worker-1 started") == 2)
    assert running.pids()["worker-1"] != victim

    # When Kafka dies, it comes back on the same port, with what it had acknowledged
    os.kill(running.pids()["kafka"], signal.SIGKILL)
    await until(lambda: running.pids()["kafka"] not in (None, running.run_info["processes"][0]["pid"]))
    await produce(running, b"second")
    assert await values(running, 2) == [b"first", b"second"]

    # When the supervisor itself is killed, nothing is left, not even Kafka
    family = running.family()
    assert len(family) == 5
    running.process.kill()
    await running.ended(family)
    assert holder(running.settings.data_dir) is None
    assert (await system_status(running.settings))["status"] == "stopped"

    # When it is started again on the same folder, everything is there
    running = await Running.start(tmp_path)
    await produce(running, b"third")
    assert await values(running, 3) == [b"first", b"second", b"third"]

    # When it is stopped, the children end before the broker, the last first, and nothing is left
    family = running.family()
    pids = await asyncio.to_thread(stop_running, running.settings)
    await running.ended(family)
    assert set(pids) == {process.pid for process in family}
    assert running.notes()[-3:] == ["gateway-1 stopped", "worker-1 stopped", "core-1 stopped"]
    assert running.settings.run_info() == {}
    assert running.process.returncode == 0


async def test_a_child_that_cannot_start_fails_the_start_with_its_reason(settings: Settings, tmp_path: Path) -> None:
    # Given an external broker, and a child that ends before it is ready
    notes = tmp_path / "notes"
    specs = [
        ChildSpec(name=name, command=(sys.executable, str(HERE / "stand_in.py"), str(notes), what))
        for name, what in (("core-1", "serve"), ("worker-1", "fail"))
    ]
    started: list[Any] = []
    # When it is started
    with pytest.raises(Unavailable) as caught:
        await Supervisor(settings, lambda _: None, children=specs, probe=None).run(started.append)
    # Then the error says which, how, and what it said; nothing is left, and the folder is free again
    assert caught.value.code == "start.failed"
    assert "worker-1" in caught.value.message
    assert "exit code 7: a reason" in caught.value.message
    assert started == []
    pids = [int(line.rsplit(" ", 1)[1]) for line in notes.read_text().splitlines()]
    assert not any(is_alive_pid(pid) for pid in pids)
    assert holder(settings.data_dir) is None
    assert settings.run_info() == {}


async def test_a_taken_gateway_port_is_told_before_anything_is_started(settings: Settings) -> None:
    async with await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        taken = settings.model_copy(update={"http_port": port})
        with pytest.raises(Refused) as caught:
            await Supervisor(taken, lambda _: None, probe=None).run(lambda _: None)
    assert caught.value.code == "port.taken"
    assert "--port" in (caught.value.advice or "")


async def test_a_detached_start_that_fails_says_why_to_whoever_asked(settings: Settings) -> None:
    async with await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ReportedError) as caught:
            await asyncio.to_thread(start_detached, settings.model_copy(update={"http_port": port}), lambda _: None)
    assert (caught.value.code, caught.value.exit_code) == ("port.taken", 1)
    assert str(port) in caught.value.message
    assert holder(settings.data_dir) is None
    assert "port.taken" in (settings.data_dir / "logs" / "supervisor.log").read_text()
