"""`mplp routes test` and the checks of `mplp routes apply`: offline, so without a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.cli import dlq, frame
from services.cli.main import app


def mplp(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["routes", *arguments], prog_name="mplp", input=stdin)


def route(folder: Path, webhook: str) -> str:
    file = folder / "route.json"
    file.write_text(json.dumps({"id": "hook", "match": {"type": "order.*"}, "destination": {"webhook": webhook}}))
    return str(file)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLP_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("MPLP_WEBHOOK_NETWORKS", raising=False)


@pytest.mark.parametrize("command", ["test", "apply"])
def test_a_webhook_that_could_never_be_called_is_refused_with_its_place(tmp_path: Path, command: str) -> None:
    events = ["--events", "-"] if command == "test" else []
    done = mplp(command, route(tmp_path, "http://10.0.0.1/"), *events, "--json", stdin="")
    assert done.exit_code == 1
    (fault,) = json.loads(done.stdout)["error"]["faults"]
    assert (fault["code"], fault["pointer"]) == ("webhook.address-refused", "/destination/webhook")
    assert "webhook.address-refused at /destination/webhook: 10.0.0.1 is no public address" in done.stderr


def test_a_setting_allows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLP_WEBHOOK_NETWORKS", "10.0.0.0/8")
    done = mplp("test", route(tmp_path, "http://10.0.0.1/"), "--events", "-", "--json", stdin='{"type": "order.paid"}\n')
    assert (done.exit_code, json.loads(done.stdout)["outcome"]) == (0, "delivered")


@pytest.mark.parametrize("json_flag", [[], ["--json"]])
def test_a_broken_line_is_named_with_its_code(tmp_path: Path, json_flag: list[str]) -> None:
    lines = 'x\n{"type": "order.paid"}\n{"subject": "7"}\n'
    done = mplp("test", route(tmp_path, "https://example.com/"), "--events", "-", "--strict", *json_flag, stdin=lines)
    assert done.exit_code == 1
    assert "line 1: record.invalid: " in done.stderr
    assert "line 3: record.invalid: A record needs a type." in done.stderr
    if json_flag:
        summary = next(json.loads(line) for line in done.stderr.splitlines() if line.startswith("{"))
        assert [(each["line"], each["code"], each["pointer"]) for each in summary["broken"]] == [
            (1, "record.invalid", None), (3, "record.invalid", "/type"),
        ]  # fmt: skip


def test_progress_of_a_redrive_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [0.0], list[str]()
    monkeypatch.setattr(dlq, "monotonic", lambda: now[0])
    monkeypatch.setattr(frame, "progress", told.append)
    progress = dlq._Progress("put back")
    for done in range(0, 100, 10):
        progress(done)
        now[0] += 0.5
    assert told == ["0 put back …", "40 put back …", "80 put back …"]
