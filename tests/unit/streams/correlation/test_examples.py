"""The example rules over their example events, through the command, as the how-to says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.main import app

ROOT = Path(__file__).parents[4]
EXPECTED = sorted((ROOT / "examples" / "rules").glob("*.expected.ndjson"))
HOW_TO = (ROOT / "docs" / "how-to" / "write-a-rule.md").read_text()


def tried(*arguments: str) -> list[dict[str, object]]:
    done = CliRunner().invoke(app, ["rules", "test", *arguments], prog_name="mplp")
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda file: file.name.partition(".")[0])
def test_examples_say_what_is_expected(expected: Path) -> None:
    base = expected.with_name(expected.name.partition(".")[0])
    said = tried(f"{base}.yaml", "--events", f"{base}.ndjson")
    wanted = [json.loads(line) for line in expected.read_text().splitlines()]
    assert [{name: one[name] for name in of} for one, of in zip(said, wanted, strict=True)] == wanted


def test_every_example_has_events_and_what_it_must_say() -> None:
    names = {file.stem for file in (ROOT / "examples" / "rules").glob("*.yaml")}
    assert {file.name.partition(".")[0] for file in EXPECTED} == names
    assert all(file.read_text().strip() for file in EXPECTED), "an example that says nothing shows nothing"


def test_the_how_to_runs_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (command,) = re.findall(r"^\$ mplp rules test (.+)$", HOW_TO, re.MULTILINE)
    (composite,) = tried(*command.split())
    said = str(composite["explanation"])
    assert said in HOW_TO.replace("\n", " "), "the how-to shows what the command says"
