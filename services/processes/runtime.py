"""What every process of ours does alike: logs to stderr, one event loop, a clean end on SIGTERM, and the line `ready` on stdout."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
import uvloop
from aiokafka.errors import KafkaError

from streams import collector, topics
from streams.codec.avro import Codec, headers_of
from streams.errors import BackboneError
from streams.kafka import Kafka
from streams.records import Heartbeat, new_id
from streams.settings import Settings

HEARTBEAT_INTERVAL_S = 1.0
#: Type of the last heartbeat of a process that was asked to end; it tells no positions, so nobody waits for the process.
ENDED = "process.ended"
#: How long a process waits for Kafka and its topics at its start: the broker boots beside it.
START_TIMEOUT_S = 60.0

_log = structlog.get_logger("process")


def process_name(default: str) -> str:
    """Name of this process, unique among the living and stable over restarts (`MPLP_PROCESS_NAME`, set by `mplp up`)."""
    return os.environ.get("MPLP_PROCESS_NAME") or f"{default}-{socket.gethostname()}-{os.getpid()}"


def configure_logs(settings: Settings) -> None:
    """Structured lines on stderr: JSON when it is a file or pipe, coloured text on a terminal."""
    level = logging.getLevelName(settings.log_level.upper())
    renderer: Any = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")


def say_ready() -> None:
    """Tells the supervisor that this process serves."""
    collector.settle()
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def run_process(main: Callable[[Settings], Coroutine[Any, Any, None]]) -> None:
    """Runs `main` until it ends or SIGTERM or SIGINT cancels it. An error ends the process with its code on stderr and exit code 1."""
    collector.look_seldom()
    settings = Settings()
    configure_logs(settings)
    try:
        uvloop.run(_until_signalled(main(settings)))
    except BackboneError as error:
        _log.error("process.failed", code=error.code, message=error.message, advice=error.advice)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


async def _until_signalled(main: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(main)
    loop = asyncio.get_running_loop()
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped:
            raise


async def connected(settings: Settings) -> tuple[Kafka, Codec]:
    """Clients and codec, once Kafka answers and the schemas are registered; waits up to `START_TIMEOUT_S` for both."""
    from streams.codec.registry import connect_codec

    kafka = Kafka(settings)
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
    while True:
        try:
            return kafka, await connect_codec(kafka)
        except BackboneError as error:
            if asyncio.get_running_loop().time() > deadline:
                raise
            _log.debug("process.waiting", code=error.code)
        await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Alive:
    """What a heartbeat tells of its process."""

    control_offsets: Mapping[str, int] = field(default_factory=dict)
    partitions: Sequence[str] = ()
    figures: Mapping[str, int] = field(default_factory=dict)


def _nothing() -> None:
    """Nobody need be told."""


async def send_heartbeats(
    kafka: Kafka, codec: Codec, name: str, state: Callable[[], Alive], changed: asyncio.Event | None = None,
    first: Callable[[], None] = _nothing,
) -> None:  # fmt: skip
    """Says on `mplp.internal.workers` that the process lives, with what `state` tells.

    Once a second, and whenever `changed` is set. `first` is called when it has been said once: only then do others wait for the
    process. A process that is asked to end takes its last word back, so that nobody waits for it.
    """
    topic = kafka.names.physical(topics.WORKERS)
    host = f"{socket.gethostname()}:{os.getpid()}"
    changed = changed or asyncio.Event()
    async with kafka.producer() as producer:
        try:
            while True:
                changed.clear()
                alive = state()
                beat = Heartbeat(
                    id=new_id(), type="process.lived", source=f"mplp/{name}", subject=name,
                    process=name, host=host,
                    control_offsets=alive.control_offsets, partitions=tuple(alive.partitions), data=dict(alive.figures),
                )  # fmt: skip
                with contextlib.suppress(BackboneError, KafkaError):
                    await producer.send_and_wait(topic, key=name.encode(), value=codec.encode(beat), headers=headers_of(beat))
                    first()
                    first = _nothing
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_INTERVAL_S):
                        await changed.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(BackboneError, KafkaError):
                # Those who follow see the last word, those who read the topic later nothing at all.
                last = Heartbeat(id=new_id(), type=ENDED, source=f"mplp/{name}", subject=name, process=name, host=host)
                await producer.send(topic, key=name.encode(), value=codec.encode(last), headers=headers_of(last))
                await asyncio.shield(producer.send_and_wait(topic, key=name.encode(), value=None))
            raise
