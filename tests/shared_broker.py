"""One broker for all the processes that share the tests of a run (pytest-xdist).

    with shared_broker(folder) as bootstrap: ...

Whoever comes first starts a keeper, a process that has the broker as its child. Whoever uses it holds a shared lock on a file, which
the kernel takes back however its holder ends. The keeper tries for the lock alone: once it gets it, nobody uses the broker any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from infra.kafka import EmbeddedKafka

#: Many short-lived topics: give their disk back at once.
#: And it is never restarted: however long the machine stands still, its controller shall not take it for dead.
OVERRIDES = {
    "file.delete.delay.ms": "1000",
    "log.segment.bytes": str(16 * 2**20),
    "log.index.size.max.bytes": "65536",
    "broker.session.timeout.ms": "120000",
}

ROOT = Path(__file__).resolve().parents[1]
#: How often the keeper looks whether somebody still uses the broker.
LOOK_EVERY_S = 0.25


@contextlib.contextmanager
def shared_broker(folder: Path) -> Iterator[str]:
    """Address of the broker of all who give this folder. Who started its keeper leaves only after everybody else."""
    folder.mkdir(parents=True, exist_ok=True)
    keeper = None
    with (folder / "users.lock").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        with (folder / "start.lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if not _address(folder).exists():
                keeper = _start_keeper(folder)
        yield _address(folder).read_text()
    if keeper is not None:
        keeper.wait()


def _address(folder: Path) -> Path:
    return folder / "bootstrap"


def _start_keeper(folder: Path) -> subprocess.Popen[bytes]:
    """Starts it and returns when the broker answers."""
    with (folder / "keeper.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "tests.shared_broker", str(folder)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    while not _address(folder).exists():
        if keeper.poll() is not None:
            raise RuntimeError(f"The broker of the tests did not start: {(folder / 'keeper.log').read_text()[-3000:]}")
        time.sleep(0.05)
    return keeper


async def _keep(folder: Path) -> None:
    """Runs the broker until nobody uses it; it goes at once if it fails, or nobody waited for it."""
    with (folder / "users.lock").open("w") as users:
        async with EmbeddedKafka(folder / "kafka", overrides=OVERRIDES) as kafka:
            written = folder / "bootstrap.new"
            written.write_text(kafka.bootstrap)
            written.rename(_address(folder))
            while not _alone(users):
                await asyncio.sleep(LOOK_EVERY_S)
            _address(folder).unlink()


def _alone(users: IO[str]) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    asyncio.run(_keep(Path(sys.argv[1])))
