"""The body of a module's process: serves until it is told to end, drains, and goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading

import structlog

from services.modules.user_module import Module
from streams.errors import BackboneError
from streams.tracebacks import plain_processors

#: How the threads of plain functions are called.
THREADS = "module-"


def serve_process(module: Module) -> None:
    """The body of a module's process. See `Module.main`. Stdout has the line `ready` alone, the log goes to stderr."""
    structlog.configure(
        processors=plain_processors(colors=sys.stderr.isatty()),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # What libraries say: when, how grave, and which of them.
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s [%(levelname)s] %(name)s: %(message)s")
    try:
        asyncio.run(serve_until_signalled(module))
    except BackboneError as error:
        sys.stderr.write(f"error: {error.code}: {error.message}\n" + (f"  {error.advice}\n" if error.advice else ""))
        raise SystemExit(error.exit_code) from None
    if any(thread.name.startswith(THREADS) for thread in threading.enumerate()):
        # Plain functions that do not end would keep the process; nobody waits for them, and their requests come again.
        sys.stdout.flush()
        os._exit(0)


async def serve_until_signalled(module: Module) -> None:
    """Runs the module in this process's event loop until SIGTERM or SIGINT; `ready` is printed once it takes requests."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await module.run(ready=_say_ready)


def _say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()
