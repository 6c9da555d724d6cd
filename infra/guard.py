"""Runs a command that dies with its parent, however the parent dies: `python -ISs guard.py PARENT_PID COMMAND…`.

On Linux the kernel does it: the guard asks for SIGKILL on its parent's death and then *becomes* the command, so no process
is added. Elsewhere it stays as a small watcher. It imports nothing but the standard library, to start in milliseconds.

SIGKILL, not SIGTERM: everything here survives being killed at any instruction, and a process that is asked to stop may hang.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1  #: from <sys/prctl.h>
WATCH_INTERVAL_S = 0.2
EXIT_NOT_FOUND = 127


def guarded(command: list[str]) -> list[str]:
    """`command`, wrapped so that it dies with the calling process; to be started by the main thread (the kernel watches the thread)."""
    return [sys.executable, "-ISs", os.path.abspath(__file__), str(os.getpid()), *command]


def main() -> None:
    """Entry point of the wrapper."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    try:
        if sys.platform == "linux":
            _die_with_parent(parent)
            os.execvp(command[0], command)
        sys.exit(_watch(parent, command))
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(EXIT_NOT_FOUND)


def _die_with_parent(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before the request was in force
        sys.exit(1)


def _watch(parent: int, command: list[str]) -> int:
    child = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    while child.poll() is None:
        if os.getppid() != parent:
            child.kill()
        time.sleep(WATCH_INTERVAL_S)
    return child.returncode


if __name__ == "__main__":
    main()
