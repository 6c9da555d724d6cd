"""Exceptions in the log of a program of ours that logs as structlog does by itself: as Python writes them.

structlog, finding `rich` installed, draws every frame with all its variables. That takes seconds of processor time for each exception,
in which the event loop stands still, and what a variable holds (a key, a person) stands in the log.
"""

from __future__ import annotations

import sys

import structlog
from structlog.typing import Processor


def plain_processors(*, colors: bool) -> list[Processor]:
    """structlog's own processors, the last of which now writes exceptions plainly. `colors`: the log goes to a terminal."""
    plain = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
        structlog.dev.set_exc_info,
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
        plain,
    ]


def keep_stdout_clean() -> None:
    """Sends what we log to stderr in a program that has not configured structlog: its stdout belongs to the program."""
    if not structlog.is_configured():
        structlog.configure(
            processors=plain_processors(colors=sys.stderr.isatty()), logger_factory=lambda *_: structlog.PrintLogger(sys.stderr)
        )
