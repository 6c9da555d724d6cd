"""One child of the supervisor: started early, let go when Kafka is there, ready when it says so, its output in a log file."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.guard import guarded

READY_LINE = "ready"
STOP_TIMEOUT_S = 8.0
LOG_BYTES_MAX = 10 * 2**20
#: Lines of output that are kept to explain a failed start.
LINES_KEPT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What a child is: a command that waits for a line on stdin, then starts and prints `ready` when it serves."""

    name: str  #: unique; the static member id of its consumer groups
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def process_module(name: str, module: str, *, niceness: int = 0) -> ChildSpec:
    """The child that runs `module`'s `main`; with `niceness` the others go before it when processors are short (see `preload`)."""
    return ChildSpec(name=name, command=(sys.executable, "-m", "services.processes.preload", module, str(niceness)))


class Child:
    """A running process of a spec. A new one is made for every start."""

    def __init__(self, spec: ChildSpec, logs: Path) -> None:
        self.spec = spec
        self.log_file = logs / f"{spec.name}.log"
        self.ready = asyncio.Event()
        self.last_lines: deque[str] = deque(maxlen=LINES_KEPT)
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def exit_code(self) -> int | None:
        """Its exit code once it has ended; negative: the signal that ended it."""
        return self._process.returncode if self._process else None

    async def start(self, environment: Mapping[str, str]) -> None:
        """Starts the process; it waits for `go`."""
        self._process = await asyncio.create_subprocess_exec(
            *guarded(list(self.spec.command)),
            env={**environment, **self.spec.environment, "MPLP_PROCESS_NAME": self.spec.name, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the supervisor, which stops its children in order
        )
        self._reader = asyncio.create_task(self._read())

    def go(self) -> None:
        """Lets it begin: what it needs is there."""
        stdin = self._process.stdin if self._process else None
        if stdin is not None and not stdin.is_closing():
            with contextlib.suppress(ConnectionError):  # it has ended; `wait` says so
                stdin.write(b"go\n")

    async def wait(self) -> int:
        """Waits until it has ended and its output is written; its exit code."""
        assert self._process is not None
        assert self._reader is not None
        await asyncio.shield(self._reader)
        return await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM, and after 8 s SIGKILL; returns when it has ended."""
        if self._process is None or self._reader is None:
            return
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        try:
            await asyncio.wait_for(self.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self.wait()

    async def _read(self) -> None:
        """Copies its output to the log file, line by line, and notices that it is ready."""
        assert self._process is not None
        assert self._process.stdout is not None
        stdout = self._process.stdout
        _rotate(self.log_file)
        with self.log_file.open("ab", buffering=0) as log:
            while chunk := await _line(stdout):
                with contextlib.suppress(OSError):  # a full disk costs lines of a log, never the process whose output this is
                    log.write(chunk)
                text = chunk.decode(errors="replace").rstrip()
                if text == READY_LINE:
                    self.ready.set()
                elif text:
                    self.last_lines.append(text)


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or what there is of one that is longer than the buffer; empty at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.read(error.consumed)


def _rotate(path: Path) -> None:
    """Keeps one older log once a log has grown to 10 MiB."""
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_suffix(".log.1"))
