"""What the shell uses without a server is loaded when it is used, not before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from services.processes import offline

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", offline.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(offline, name) is not None


def test_no_name_is_forgotten() -> None:
    assert sorted(offline.__all__) == sorted(offline._MODULE_OF)
    with pytest.raises(AttributeError, match="nothing"):
        _ = offline.nothing


def test_a_command_that_asks_a_server_loads_neither_modules_nor_the_workflow_language() -> None:
    script = (
        "import sys, services.cli.workflow_commands; "
        "print(*sorted(name for name in sys.modules if name.startswith(('services.modules', 'services.orchestrator'))))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
