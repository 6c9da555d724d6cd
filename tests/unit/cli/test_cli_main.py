"""The root of the shell: names, help, version, exit codes, and that nothing is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import services.cli
from services.cli.main import ENTRIES, app, command_line, load, version


def mplp(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "services.cli", *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_names_every_noun_and_imports_none(flag: str) -> None:
    heavy = ("services.cli.", "streams", "aiokafka", "faust", "fastapi", "chdb")
    script = (
        "import sys; from services.cli.main import command_line\n"
        f"try: command_line().main([{flag!r}], prog_name='mplp')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        f"sys.stderr.write(' '.join(sorted(name for name in sys.modules if name.startswith({heavy}))))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert all(f" {name} " in done.stdout for name in ENTRIES), done.stdout
    assert done.stderr == "services.cli.main"


@pytest.mark.parametrize("name", ENTRIES)
def test_every_name_leads_to_a_command_with_help(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "-h"], prog_name="mplp")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert f"mplp {name}" in shown.stdout
    assert load(name).help


def test_no_noun_is_forgotten() -> None:
    shared = {"__init__", "__main__", "main", "documents", "frame", "moments", "parameters", "records", "reference"}
    # `workflow_files` belongs to `workflow`.
    files = {path.stem.partition("_")[0] for path in Path(services.cli.__file__).parent.glob("*.py") if path.stem not in shared}
    assert files == {entry.module.rpartition(".")[2] for entry in ENTRIES.values()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["workflw"], "Did you mean 'workflow'?"),
        (["nonsense"], "No such command 'nonsense'"),
        (["--nonsense"], "No such option"),
        (["status", "--nonsense"], "No such option"),
        (["up", "--port", "many"], "Invalid value"),
        (["up", "--port", "70000"], "Invalid value"),
    ],
)
def test_a_usage_error_ends_with_2_and_says_what_is_wrong(arguments: list[str], said: str) -> None:
    done = mplp(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_no_command_shows_the_help_as_a_usage_error() -> None:
    done = mplp()
    assert done.returncode == 2
    assert "Usage: mplp" in done.stdout + done.stderr


def test_the_version_is_that_of_the_distribution() -> None:
    done = mplp("--version")
    assert (done.returncode, done.stdout) == (0, f"mplp {version()}\n")


def test_completion_can_be_installed() -> None:
    assert {"install_completion", "show_completion"} <= {parameter.name for parameter in command_line().params}
