"""Starts a process early: `python -m services.processes.preload MODULE [NICENESS]`.

It imports MODULE, waits for a line on stdin, then calls its `main`: the seconds that imports take pass while Kafka starts. An
end of stdin before the line means that nobody wants the process.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys

from streams import collector


def main() -> None:
    """Imports, waits, runs."""
    collector.look_seldom()  # imports make much that stays, and nothing that goes
    module = importlib.import_module(sys.argv[1])
    if not sys.stdin.readline():
        return
    if len(sys.argv) > 2:
        _yield_to_others(int(sys.argv[2]))
    sys.argv = sys.argv[1:2]
    module.main()


def _yield_to_others(niceness: int) -> None:
    """Makes this process one that lets others go before it; threads that are started from here on inherit it.

    Beside a lower share of the processors (`nice`), on Linux the class for batch work: a process of it that wakes up does not
    push another one off its processor. Whoever follows the logs wakes up at every append, just when the owner goes on.
    """
    if niceness <= 0 or not hasattr(os, "nice"):
        return
    os.nice(niceness)
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):  # a container may forbid it: then the share alone counts
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


if __name__ == "__main__":
    main()
