"""What the supervisor leaves in the data folder: the lock that says that it is in use, and `run.json` that says where it answers."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from streams.errors import Refused
from streams.settings import RUN_FILE

LOCK_FILE = "lock"


class DataLock:
    """Exclusive use of a data folder, held by a process until it ends, however it ends (the kernel frees a flock)."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / LOCK_FILE
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Takes the folder or raises `Refused` (`data.in-use`) that names the process that has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            pid = _read_pid(self._path)
            raise Refused(
                "data.in-use",
                f"{self._path.parent} is in use by a running `mplp up`" + (f" (process {pid})." if pid else "."),
                advice="Stop it with `mplp down`, or choose another folder with --data.",
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        self._file = file

    def release(self) -> None:
        """Gives the folder back."""
        if self._file is not None:
            self._file.close()
            self._file = None


def holder(data_dir: Path) -> int | None:
    """Process id of the supervisor that has the folder; None if nobody has it."""
    path = data_dir / LOCK_FILE
    try:
        file = path.open("r+")
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read_pid(path)
    return None


def write_run_file(data_dir: Path, content: Mapping[str, Any]) -> None:
    """Replaces `run.json` as a whole: a reader sees the old or the new one."""
    path = data_dir / RUN_FILE
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(path)


def remove_run_file(data_dir: Path) -> None:
    """Nothing runs any more."""
    with contextlib.suppress(FileNotFoundError):
        (data_dir / RUN_FILE).unlink()


def _read_pid(path: Path) -> int | None:
    text = path.read_text().strip()
    return int(text) if text.isdigit() else None
