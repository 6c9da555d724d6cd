"""The how-tos about workflows are run as they stand, and every command on them is one that there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from services.cli.workflow import app
from services.orchestrator.scenario import Scenario

HOW_TO = Path(__file__).resolve().parents[3] / "docs" / "how-to"
PAGE = (HOW_TO / "test-a-workflow.md").read_text()
NAMES = ["test-a-workflow", "start-by-events-and-schedules", "run-for-days"]


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_print_what_the_page_shows(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (HOW_TO / f"{name}.md").read_text()
    for file, text in re.findall(r"`(\w+\.yaml)`:\n\n```yaml\n(.*?)```", page, re.DOTALL):
        (tmp_path / file).write_text(text)
    monkeypatch.chdir(tmp_path)
    ((command, shown),) = re.findall(r"```console\n\$ mplp workflow ([^\n]*)\n(.*?)```", page, re.DOTALL)
    found = CliRunner().invoke(app, command.split())
    assert (found.exit_code, found.stdout) == (0, shown)


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_commands_that_need_servers_are_spelled_right(name: str) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", (HOW_TO / f"{name}.md").read_text(), re.DOTALL)
    lines = [line.removeprefix("mplp workflow ") for block in blocks for line in block.splitlines()]
    assert lines
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for line in lines:
        command, *arguments = shlex.split(line)
        group.commands[command].make_context(command, arguments)  # raises a usage error; nothing is run


def test_every_key_of_a_scenario_is_explained() -> None:
    section = PAGE.partition("## What a scenario may say")[2]
    explained = {name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}
    assert explained == set(Scenario.model_fields)
