"""`mplp up --detach` and `mplp down`: a supervisor in a session of its own that reports how its start went, and its end.

`python -m services.processes.supervisor_detached` is that supervisor: settings by environment, and in `MPLP_REPORT_FD` the pipe that
takes its report: JSON lines `{"progress": …}`, then one of `{"ready": run.json}` or `{"error": …}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import psutil

from services.processes.liveness import wait_gone
from services.processes.supervisor import Supervisor, Tell, settings_environment
from services.processes.supervisor_files import holder
from streams.errors import BackboneError, Refused, Unavailable
from streams.records import iso, now
from streams.settings import Settings

REPORT_VARIABLE = "MPLP_REPORT_FD"
#: A stop takes at most 8 s for each kind of child (gateway, workers, cores) and 20 s for Kafka.
STOP_TIMEOUT_S = 50.0


class ReportedError(BackboneError):
    """An error of the detached supervisor, as it reported it."""


def start_detached(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Starts a supervisor that outlives this process; returns the content of `run.json` when all is ready.

    Raises what kept it from starting; nothing runs then.
    """
    if pid := holder(settings.data_dir):
        raise Refused(
            "data.in-use", f"{settings.data_dir} is in use by a running `mplp up` (process {pid}).", advice="Stop it with `mplp down`."
        )
    logs = settings.data_dir.absolute() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    reading, writing = os.pipe()
    with (logs / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.processes.supervisor_detached"],
            env={**os.environ, **settings_environment(settings), REPORT_VARIABLE: str(writing)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(writing,),
        )
    os.close(writing)
    try:
        run_info = _read_report(reading, tell)
        process.returncode = 0  # it is meant to outlive this object, which would complain
        return run_info
    except BackboneError:
        process.wait()  # it has given up and is stopping what it had started
        raise
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    except EOFError:
        raise Unavailable("start.failed", f"The supervisor ended with {process.wait()}.", advice=f"Its log is {log.name}.") from None


def stop_running(settings: Settings) -> list[int]:
    """Stops the supervisor of the data folder and waits until none of its processes is left; their ids, empty if none ran."""
    pid = holder(settings.data_dir)
    if pid is None:
        return []
    try:
        supervisor = psutil.Process(pid)
        family = [supervisor, *supervisor.children(recursive=True)]
        supervisor.send_signal(signal.SIGTERM)
    except psutil.NoSuchProcess:
        return []
    for process in (alive := wait_gone(family, STOP_TIMEOUT_S)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_gone(alive, STOP_TIMEOUT_S)
    return [process.pid for process in family]


def _read_report(descriptor: int, tell: Tell) -> dict[str, Any]:
    with os.fdopen(descriptor) as report:
        for line in report:
            message: dict[str, Any] = json.loads(line)
            match message:
                case {"progress": text}:
                    tell(text)
                case {"ready": run_info}:
                    return dict(run_info)
                case {"error": details, "exit_code": exit_code}:
                    error = ReportedError(details["code"], details["message"], advice=details.get("advice"))
                    error.exit_code = exit_code
                    raise error
    raise EOFError


class _Report:
    """The supervisor's end of the pipe: written until the first result, then closed; everything also goes to the log."""

    def __init__(self, pipe: TextIO) -> None:
        self._pipe = pipe

    def progress(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the log's disk is full: what runs goes on without this line
            sys.stderr.write(f"{iso(now())} {text}\n")
            sys.stderr.flush()
        self._send({"progress": text})

    def ready(self, run_info: Mapping[str, Any]) -> None:
        self._finish({"ready": dict(run_info)})
        self.progress(f"ready at {run_info['http']}, Kafka at {run_info['kafka']}")

    def failed(self, error: BackboneError) -> None:
        self._finish({"error": error.to_dict(), "exit_code": error.exit_code})
        self.progress(str(error))

    def _finish(self, message: Mapping[str, Any]) -> None:
        self._send(message)
        if not self._pipe.closed:
            self._pipe.close()

    def _send(self, message: Mapping[str, Any]) -> None:
        if self._pipe.closed:
            return
        try:
            self._pipe.write(json.dumps(message, default=str) + "\n")
            self._pipe.flush()
        except BrokenPipeError:  # whoever asked went away; the supervisor is wanted all the same
            self._pipe = open(os.devnull, "w")  # noqa: SIM115  stays open as long as the process


def main() -> None:
    """Runs a supervisor with the settings of the environment."""
    report = _Report(os.fdopen(int(os.environ.pop(REPORT_VARIABLE)), "w"))
    try:
        asyncio.run(Supervisor(Settings(), report.progress).run(report.ready))
    except BackboneError as error:
        report.failed(error)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
