"""Faults at random moments: processes of a running product are killed, stopped and continued. Every choice comes from a seed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

from streams.settings import Settings


@dataclass(slots=True)
class Torment:
    """Torments the processes of a product whose names begin with one of `victims`, until `until` (`time.monotonic`)."""

    settings: Settings
    random: random.Random
    victims: tuple[str, ...]
    pause_s: tuple[float, float] = (2.0, 8.0)
    done: Counter[str] = field(default_factory=Counter)  #: what was done to whom, how often
    _stopped: set[int] = field(default_factory=set)

    async def run(self, until: float) -> None:
        """Does its worst, then lets everything go on."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            while time.monotonic() < until:
                await asyncio.sleep(self.random.uniform(*self.pause_s))
                name, pid = self._victim()
                if pid in self._stopped:
                    continue
                match self.random.choices(("kill", "pause", "zombie"), (4, 2, 3))[0]:
                    case "kill":
                        self._signal(pid, signal.SIGKILL)
                        self.done[f"{name} killed"] += 1
                    case "pause":
                        self.done[f"{name} paused"] += 1
                        tasks.add(asyncio.create_task(self._stop(pid, self.random.uniform(0.2, 2.0))))
                    case _:
                        self.done[f"{name} made a zombie"] += 1
                        session_s = self.settings.group_session_timeout_ms / 1000
                        tasks.add(asyncio.create_task(self._stop(pid, session_s + self.random.uniform(1.0, 4.0))))
        finally:
            await asyncio.gather(*tasks)

    def _victim(self) -> tuple[str, int]:
        """A process that lives: name and process id."""
        processes = self.settings.run_info().get("processes", ())
        chosen = [(entry["name"], entry["pid"]) for entry in processes if entry["pid"] and entry["name"].startswith(self.victims)]
        return self.random.choice(chosen)

    async def _stop(self, pid: int, seconds: float) -> None:
        self._stopped.add(pid)
        self._signal(pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._signal(pid, signal.SIGCONT)
        self._stopped.discard(pid)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
