"""`mplp config`, and `status` and `down` where nothing runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from infra.checks import free_port
from services.cli.system import app
from streams.settings import Settings

SECRET = "do-not-show-me"


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory and ports where nothing runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLP_KAFKA_PORT", str(free_port()))
    monkeypatch.setenv("MPLP_HTTP_PORT", str(free_port()))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_config_lists_every_setting_with_where_it_comes_from(somewhere_else: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given one setting by environment, one by file, and one by both
    monkeypatch.setenv("MPLP_PARTITIONS", "7")
    monkeypatch.setenv("MPLP_LOG_LEVEL", "debug")
    (somewhere_else / "mplp.toml").write_text('topic_prefix = "filed"\nlog_level = "error"\n')
    # When they are listed
    result = run("config", "--json")
    # Then all are there, and the environment won
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert set(rows) == set(Settings.model_fields)
    assert (rows["partitions"]["value"], rows["partitions"]["source"], rows["partitions"]["default"]) == (7, "environment", 4)
    assert (rows["topic_prefix"]["value"], rows["topic_prefix"]["source"]) == ("filed", "mplp.toml")
    assert (rows["log_level"]["value"], rows["log_level"]["source"]) == ("debug", "environment")
    assert (rows["clickhouse_database"]["value"], rows["clickhouse_database"]["source"]) == ("mplp", "default")
    assert all(row["description"] for row in rows.values())


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_config_never_shows_a_secret(form: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA_SASL_PASSWORD", "CLICKHOUSE_PASSWORD", "API_KEYS"):
        monkeypatch.setenv(f"MPLP_{name}", SECRET)
    result = run("config", *form)
    assert result.exit_code == 0
    assert SECRET not in result.output
    assert result.stdout.count("********") == 3


def test_status_where_nothing_runs_says_so_and_exits_with_3() -> None:
    result = run("status", "--json")
    seen = json.loads(result.stdout)
    assert result.exit_code == 3
    assert (seen["status"], seen["processes"], seen["lag"]) == ("stopped", [], {})
    assert seen["kafka"]["status"] == "unreachable"
    assert "clickhouse" in seen


def test_down_where_nothing_runs_is_no_error() -> None:
    result = run("down", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"stopped": False, "pids": []}


def test_a_run_file_that_was_left_behind_is_not_believed(somewhere_else: Path) -> None:
    # Given what a supervisor that was killed leaves: its run file, and a lock file that nobody holds
    data = somewhere_else / ".mplp"
    data.mkdir()
    (data / "lock").write_text("1\n")
    (data / "run.json").write_text(
        json.dumps({"pid": 1, "kafka": "127.0.0.1:1", "http": "http://127.0.0.1:1", "processes": [{"name": "x", "pid": 1}]})
    )
    # Then nothing runs, and nothing (here: process 1) is stopped
    assert json.loads(run("status", "--json").stdout)["processes"] == []
    assert json.loads(run("down", "--json").stdout)["stopped"] is False
