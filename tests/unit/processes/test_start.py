"""What a start leaves for later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streams import collector

RECORDER = """
import gc
from pathlib import Path
seen = gc.get_threshold()
def main():
    Path("seen.txt").write_text(f"{seen} {gc.get_freeze_count() > 0}")
"""

UNBUILT = """
import services.processes.core
from services.modules.operation import Parameters, Result
def below(cls):
    for each in cls.__subclasses__():
        yield each
        yield from below(each)
print(*(each.__name__ for base in (Parameters, Result) for each in below(base) if each.__pydantic_complete__))
"""


def test_imports_are_not_walked_over_by_the_collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recorder.py").write_text(RECORDER)
    monkeypatch.setenv("PYTHONPATH", f"{Path.cwd()}:{tmp_path}")
    command = [sys.executable, "-m", "services.processes.preload", "recorder"]
    subprocess.run(command, input=b"go\n", cwd=tmp_path, check=True)
    assert (tmp_path / "seen.txt").read_text() == f"{collector.GC_THRESHOLDS} True"


def test_a_core_builds_no_model_of_an_operation_before_it_is_called() -> None:
    built = subprocess.run([sys.executable, "-c", UNBUILT], capture_output=True, text=True, check=True)
    assert built.stdout.split() == []
