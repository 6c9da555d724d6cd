"""The how-to about testing workflows is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.workflow import app
from services.orchestrator.scenario import Scenario

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "how-to" / "test-a-workflow.md").read_text()


def test_the_commands_print_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in re.findall(r"`(\w+\.yaml)`:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    ((command, shown),) = re.findall(r"```console\n\$ mplp workflow ([^\n]*)\n(.*?)```", PAGE, re.DOTALL)
    found = CliRunner().invoke(app, command.split())
    assert (found.exit_code, found.stdout) == (0, shown)


def test_every_key_of_a_scenario_is_explained() -> None:
    section = PAGE.partition("## What a scenario may say")[2]
    explained = {name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}
    assert explained == set(Scenario.model_fields)
