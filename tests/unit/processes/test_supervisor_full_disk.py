"""A disk without space costs lines of logs and nothing else; `/dev/full` answers every write with that error."""

from __future__ import annotations

import os
import sys
from io import StringIO, TextIOWrapper
from pathlib import Path

import pytest

from services.processes.supervisor_child import Child, ChildSpec
from services.processes.supervisor_detached import _Report

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


async def test_a_child_whose_log_cannot_be_written_runs_to_its_end(tmp_path: Path) -> None:
    # given a log file on a full disk
    (tmp_path / "talker.log").symlink_to(FULL)
    child = Child(ChildSpec(name="talker", command=(sys.executable, "-c", "print('ready'); print('last words')")), tmp_path)
    # when the child says something
    await child.start(os.environ)
    code = await child.wait()
    # then it has been heard, and has ended by itself
    assert (code, child.ready.is_set(), list(child.last_lines)) == (0, True, ["last words"])


def test_a_supervisor_whose_log_cannot_be_written_still_tells_whoever_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = StringIO()
    with TextIOWrapper(FULL.open("wb", buffering=0), write_through=True) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        _Report(pipe).progress("kafka ended")
    assert "kafka ended" in pipe.getvalue()
