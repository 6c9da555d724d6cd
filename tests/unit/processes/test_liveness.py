"""Whether processes live."""

from __future__ import annotations

import subprocess
import sys

import psutil

from services.processes.liveness import is_alive, is_alive_pid, wait_gone


def test_a_process_that_ended_is_gone_even_if_nobody_collects_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    seen = psutil.Process(process.pid)
    assert is_alive(seen)
    assert wait_gone([seen], 0.05) == [seen]
    process.stdin.close()  # it ends, and is a zombie until `wait` below
    assert wait_gone([seen], 10) == []
    assert psutil.pid_exists(process.pid)
    assert not is_alive_pid(process.pid)
    process.wait()
    assert not is_alive_pid(process.pid)
