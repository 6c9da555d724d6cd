"""What must hold before a broker starts, each with an error that says what to do: a free port, space on the disk."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from streams.errors import Refused

LOOPBACK = "127.0.0.1"
#: Below this the broker is not started: it would stop at once and leave half-written files.
FREE_BYTES_MIN = 64 * 2**20


def free_port() -> int:
    """A port on loopback that is free now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def check_port(port: int, *, host: str = LOOPBACK, what: str = "Kafka", option: str = "--kafka-port") -> None:
    """Raises `Refused` (`port.taken`) when `port` cannot be bound."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: connections that linger do not count
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Refused(
                "port.taken",
                f"Port {port}, wanted for {what}, cannot be used: {error.strerror}.",
                advice=f"Stop what uses it, or choose another with {option} (0: any free one).",
            ) from error


def check_space(folder: Path) -> None:
    """Raises `Refused` (`disk.full`) when the disk of `folder` has less than 64 MiB left."""
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES_MIN:
        raise Refused(
            "disk.full",
            f"{folder} has {free // 2**20} MiB left; {FREE_BYTES_MIN // 2**20} MiB are needed to start.",
            advice="Make space, then start again.",
        )
