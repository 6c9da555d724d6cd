"""Starts a process early: `python -m services.processes.preload MODULE [NICENESS]`.

It imports MODULE, waits for a line on stdin, then calls its `main`: the seconds that imports take pass while Kafka starts. An
end of stdin before the line means that nobody wants the process.
"""

from __future__ import annotations

import importlib
import os
import sys


def main() -> None:
    """Imports, waits, runs."""
    module = importlib.import_module(sys.argv[1])
    if not sys.stdin.readline():
        return
    if len(sys.argv) > 2 and hasattr(os, "nice"):
        os.nice(int(sys.argv[2]))  # threads that are started from here on inherit it
    sys.argv = sys.argv[1:2]
    module.main()


if __name__ == "__main__":
    main()
