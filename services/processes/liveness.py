"""Whether processes live. One that has ended counts as gone even where nobody collects it, as in a container without an init."""

from __future__ import annotations

import time
from collections.abc import Sequence

import psutil

POLL_INTERVAL_S = 0.02


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs still (and is not another one with its id)."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_alive_pid(pid: int) -> bool:
    """Whether a process with this id runs."""
    try:
        return is_alive(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return False


def wait_gone(processes: Sequence[psutil.Process], timeout_s: float) -> list[psutil.Process]:
    """Waits until all have ended; those that have not within the time."""
    deadline = time.monotonic() + timeout_s
    while (alive := [process for process in processes if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)
    return alive
