"""`mplp modules` without a server: what is built in is known, what is asked wrongly is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.cli.main import app
from streams.operations import CONTRACT


@pytest.fixture
def mplp(monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int, tmp_path: Path) -> Any:
    monkeypatch.setenv("MPLP_KAFKA_BOOTSTRAP", f"127.0.0.1:{unused_tcp_port}")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(app, ["modules", *arguments], prog_name="mplp", input=input)

    return run


def test_the_built_in_modules_are_known_without_a_server(mplp: Any) -> None:
    listed = mplp("list", "--json")
    assert listed.exit_code == 0
    rows = json.loads(listed.stdout)
    assert {row["module"]: (row["kind"], row["operations"]) for row in rows}["plan"] == ("built-in", list(CONTRACT["plan"]))
    assert "Only the built-in modules" in listed.stderr


def test_a_built_in_module_is_shown_with_its_schemas(mplp: Any) -> None:
    shown = json.loads(mplp("show", "context", "--json").stdout)
    assert set(shown["operations"]) == set(CONTRACT["context"])
    assert shown["operations"]["create-context"]["parameters"]["required"] == ["name"]
    text = mplp("show", "context").stdout
    assert "create-context" in text
    assert "name [type]" in text


def test_another_module_needs_a_server(mplp: Any) -> None:
    assert mplp("show", "invoices").exit_code == 3


@pytest.mark.parametrize(
    ("parameters", "code"),
    [("[1]", "parameters.invalid"), ("{", "parameters.invalid"), ("@missing.json", "parameters.unreadable"), ("@-", "parameters.invalid")],
)
def test_parameters_that_are_none_are_refused_before_anything_is_sent(mplp: Any, parameters: str, code: str) -> None:
    called = mplp("call", "context", "create-context", "--parameters", parameters, "--json", input="nonsense")
    assert called.exit_code == 1
    assert json.loads(called.stdout)["error"]["code"] == code


def test_a_time_out_that_is_none_is_refused(mplp: Any) -> None:
    called = mplp("call", "context", "create-context", "--timeout", "soon", "--json")
    assert (called.exit_code, json.loads(called.stdout)["error"]["code"]) == (1, "duration.invalid")


def test_a_hub_that_does_not_answer_is_not_taken_for_silence(mplp: Any) -> None:
    ended = mplp("subscribe", "ada", "--timeout", "100ms")
    assert (ended.exit_code, ended.stdout) == (3, "")


def test_parameters_come_from_a_file_and_a_silent_server_is_exit_code_3(mplp: Any) -> None:
    Path("parameters.json").write_text('{"name": "room"}')
    assert mplp("call", "context", "create-context", "--parameters", "@parameters.json").exit_code == 3
