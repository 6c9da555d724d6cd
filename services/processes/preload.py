"""Starts a process early: `python -m services.processes.preload MODULE` imports MODULE, waits for a line on stdin, then calls its `main`.

So the seconds that imports take pass while Kafka starts. An end of stdin before the line means that nobody wants the process.
"""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    """Imports, waits, runs."""
    module = importlib.import_module(sys.argv[1])
    if not sys.stdin.readline():
        return
    sys.argv = sys.argv[1:]
    module.main()


if __name__ == "__main__":
    main()
