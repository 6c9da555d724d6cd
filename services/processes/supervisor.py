"""`mplp up`: one process that runs Kafka, the cores, the workers and the gateway, and keeps them running.

Start: the data folder's lock → children are started and import while Kafka boots → topics and schemas → the children are let go →
each says `ready`, the gateway's `/readyz` answers → `run.json`. Whatever dies afterwards is started again with a growing delay, under
the same name, so that its consumer groups know it. Stop: gateway, workers, cores, then Kafka. A killed supervisor takes all with it.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import SecretStr

from infra import setup
from infra.checks import LOOPBACK, check_port, free_port
from infra.kafka import EmbeddedKafka
from services.processes.extensions_wanted import is_wanted
from services.processes.supervisor_child import Child, ChildSpec, process_module
from services.processes.supervisor_files import DataLock, remove_run_file, write_run_file
from streams.errors import BackboneError, Unavailable
from streams.kafka import Kafka
from streams.records import iso, now
from streams.settings import Settings
from streams.topics_apply import apply_topics

KAFKA = "kafka"
READY_TIMEOUT_S = 180.0
PROBE_INTERVAL_S = 0.05
#: Waits before a process that died is started again; the last one repeats. Starts over after `STABLE_S` of life.
BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
STABLE_S = 30.0
#: Deaths before the first `ready` after which the start as a whole has failed.
START_ATTEMPTS = 3

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Tell = Callable[[str], None]


def children_of(settings: Settings) -> tuple[ChildSpec, ...]:
    """What is run beside Kafka, in the order in which it is let go; it is stopped in the opposite one.

    Whoever waits for a workflow waits for Kafka and the core: rules and history, which catch up a moment later, have less priority.
    """
    cores = (process_module(f"core-{number + 1}", "services.processes.core") for number in range(settings.cores))
    workers = (process_module(f"worker-{number + 1}", "services.processes.worker", niceness=5) for number in range(settings.workers))
    more = (process_module("extensions-1", "services.processes.extensions", niceness=5),) if is_wanted(settings) else ()
    return (*cores, *workers, *more, process_module("gateway-1", "services.processes.gateway", niceness=5))


class Supervisor:
    """Everything that `mplp up` runs on one data folder. `run` starts it, says when it is ready, and returns when it was stopped."""

    def __init__(
        self, settings: Settings, tell: Tell, *, children: Sequence[ChildSpec] | None = None, probe: str | None = "/readyz"
    ) -> None:  # fmt: skip
        data_dir = settings.data_dir.absolute()
        self._settings = settings.model_copy(update={"data_dir": data_dir, "http_port": settings.http_port or free_port()})
        self._tell = tell
        self._run_file_retry: asyncio.TimerHandle | None = None
        self._specs = tuple(children) if children is not None else children_of(settings)
        self._probe = probe
        self._lock = DataLock(data_dir)
        self._logs = data_dir / "logs"
        self._kafka: EmbeddedKafka | None = None
        self._children: dict[str, Child] = {}
        self._let_go = asyncio.Event()
        self._ready = False
        self._stopping = asyncio.Event()
        self._started_at = now()

    def stop(self) -> None:
        """Asks `run` to stop everything and return; again: at once, without order."""
        if self._stopping.is_set():
            for child in self._children.values():
                if child.pid:
                    os.kill(child.pid, signal.SIGKILL)
        self._stopping.set()

    async def run(self, on_ready: Callable[[Mapping[str, Any]], None]) -> None:
        """Starts all, calls `on_ready` with the content of `run.json`, keeps all running until `stop`.

        Raises `Refused` (`data.in-use`, `port.taken`, `disk.full`, `retention.too-short`), `Unavailable` (`start.failed`, `kafka.failed`,
        `kafka.unreachable`, `java.missing`, `jars.missing`) when it cannot be started; nothing is left running then.
        """
        loop = asyncio.get_running_loop()
        if self._settings.history_retention:
            from services.history.retention import check_setting  # only where there is something to check: it takes a moment to import

            check_setting(self._settings.history_retention)
        self._lock.acquire()
        for number in SIGNALS:
            loop.add_signal_handler(number, self.stop)
        life = asyncio.create_task(self._live(on_ready))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({life, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                life.result()
        except BaseExceptionGroup as group:
            raise _first_error(group) from None
        finally:
            for task in (life, stopping):
                task.cancel()
            await asyncio.gather(life, stopping, return_exceptions=True)
            await self._stop_all()
            remove_run_file(self._settings.data_dir)
            for number in SIGNALS:
                loop.remove_signal_handler(number)
            self._lock.release()

    def run_info(self) -> dict[str, Any]:
        """Where everything is: the content of `run.json`."""
        settings = self._settings
        kafka = [{"name": KAFKA, "pid": self._kafka.pid}] if self._kafka else []
        return {
            "pid": os.getpid(),
            "http": f"http://{_reachable(settings.http_host)}:{settings.http_port}",
            "kafka": settings.kafka_bootstrap,
            "controller_port": self._kafka.controller_port if self._kafka else None,
            "data_dir": str(settings.data_dir),
            "webhook_networks": settings.webhook_networks,
            "processes": kafka + [{"name": name, "pid": child.pid} for name, child in self._children.items()],
            "started_at": iso(self._started_at),
        }

    async def _live(self, on_ready: Callable[[Mapping[str, Any]], None]) -> None:
        """Starts all in the right order, then keeps it running for ever."""
        check_port(self._settings.http_port, host=self._settings.http_host, what="the gateway", option="--port")
        self._logs.mkdir(parents=True, exist_ok=True)
        await self._choose_kafka()
        async with asyncio.TaskGroup() as tasks:
            # Kafka's address is known before it answers: the children start now and import while it boots.
            for spec in self._specs:
                tasks.create_task(self._keep_child(spec))
            if self._kafka:
                await self._kafka.start()
                tasks.create_task(self._keep_kafka(self._kafka))
            applied = await apply_topics(Kafka(self._settings))
            if applied.created:
                self._tell(f"{len(applied.created)} topics created")
            self._let_go.set()
            await self._all_ready()
            self._ready = True
            self._write_run_file()
            on_ready(self.run_info())

    async def _choose_kafka(self) -> None:
        """Decides which broker: the configured one, else the embedded one, whose address becomes the setting."""
        settings = self._settings
        if settings.kafka_bootstrap:
            return
        await setup.prepare(self._tell)
        self._kafka = EmbeddedKafka(
            settings.data_dir / "kafka",
            port=settings.kafka_port or free_port(),
            log_file=self._logs / "kafka.log",
            progress=self._tell,
        )
        self._settings = settings.model_copy(update={"kafka_bootstrap": self._kafka.bootstrap})

    async def _keep_child(self, spec: ChildSpec) -> None:
        """Runs a child, again whenever it ends. Raises `Unavailable` (`start.failed`) if it keeps ending before the first `ready`."""
        environment = {**os.environ, **settings_environment(self._settings)}
        backoff = _Backoff()
        for deaths in itertools.count(1):
            child = self._children[spec.name] = Child(spec, self._logs)
            await child.start(environment)
            if self._ready:
                self._write_run_file()
            await self._let_go.wait()
            child.go()
            code = await child.wait()
            self._tell(f"{spec.name} ended with {_exit_text(code)}; its log is {child.log_file}")
            if not self._ready and deaths == START_ATTEMPTS:
                last = child.last_lines[-1] if child.last_lines else "it said nothing"
                raise Unavailable(
                    "start.failed",
                    f"{spec.name} ended {deaths} times before it was ready, at last with {_exit_text(code)}: {last}",
                    advice=f"Its log is {child.log_file}.",
                )
            await asyncio.sleep(backoff.delay_s())

    async def _keep_kafka(self, kafka: EmbeddedKafka) -> None:
        """Starts the broker again whenever it ends; one that cannot start (`disk.full`, …) is tried for ever."""
        backoff = _Backoff()
        while True:
            code = await kafka.wait()
            self._tell(f"kafka ended with {_exit_text(code)}: {kafka.failure()}")
            await asyncio.sleep(backoff.delay_s())
            try:
                await kafka.start()
            except (BackboneError, OSError) as error:  # OSError: no space for its properties, or for its log
                self._tell(f"kafka cannot start: {error}")
            self._write_run_file()

    async def _all_ready(self) -> None:
        """Returns when every child said that it is ready and the gateway says so for the whole; `Unavailable` (`start.timeout`) else."""
        seen = ""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while late := [name for name, child in self._children.items() if not child.ready.is_set()]:
                    seen = f"{', '.join(late)} did not become ready"
                    await asyncio.sleep(PROBE_INTERVAL_S)
                if self._probe is None:
                    return
                while seen := await asyncio.to_thread(_complaint, self._settings, self._probe):  # noqa: ASYNC110  there is no event to wait for
                    await asyncio.sleep(PROBE_INTERVAL_S)
        except TimeoutError:
            raise Unavailable("start.timeout", f"{seen} within {READY_TIMEOUT_S:.0f} s.", advice=f"The logs are in {self._logs}.") from None

    def _write_run_file(self) -> None:
        """Tries again later if it cannot be written: a full disk must not end what runs."""
        if self._run_file_retry is not None:
            self._run_file_retry.cancel()
            self._run_file_retry = None
        if self._stopping.is_set():
            return
        try:
            write_run_file(self._settings.data_dir, self.run_info())
        except OSError as error:
            self._tell(f"where everything runs cannot be written down: {error}")
            self._run_file_retry = asyncio.get_running_loop().call_later(BACKOFF_S[-1], self._write_run_file)

    async def _stop_all(self) -> None:
        for _, alike in itertools.groupby(reversed(list(self._children.values())), key=lambda child: child.spec.name.rstrip("0123456789")):
            await asyncio.gather(*(child.stop() for child in alike))
        if self._kafka:
            await self._kafka.stop()


def settings_environment(settings: Settings) -> dict[str, str]:
    """The settings as environment, secrets in clear: what a child is started with."""
    values = ((name, getattr(settings, name)) for name in Settings.model_fields)
    return {f"MPLP_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value) for name, value in values}


class _Backoff:
    """How long to wait before something that ended is started again: growing while its lives are short, not at all after a long one."""

    def __init__(self) -> None:
        self._short_lives = -1
        self._since = time.monotonic()

    def delay_s(self) -> float:
        """To be asked once at each end."""
        lived_s, self._since = time.monotonic() - self._since, time.monotonic()
        self._short_lives = 0 if lived_s > STABLE_S else self._short_lives + 1
        return BACKOFF_S[min(self._short_lives, len(BACKOFF_S) - 1)]


def _complaint(settings: Settings, path: str) -> str:
    """What is wrong with the gateway's answer to a probe; empty if nothing is."""
    connection = http.client.HTTPConnection(_reachable(settings.http_host), settings.http_port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return (
            ""
            if response.status == http.HTTPStatus.OK
            else f"{path} answers {response.status} {response.read(500).decode(errors='replace')}"
        )
    except (OSError, http.client.HTTPException) as error:
        return f"the gateway does not answer ({error})"
    finally:
        connection.close()


def _reachable(host: str) -> str:
    """An address that reaches a server bound to `host`."""
    return {"0.0.0.0": LOOPBACK, "::": "[::1]"}.get(host, host)


def _exit_text(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that made the start fail; the others are its consequences or as good a reason."""
    first = group.exceptions[0]
    return _first_error(first) if isinstance(first, BaseExceptionGroup) else first
