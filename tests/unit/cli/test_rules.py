"""`mplp rules test` and the checks of `mplp rules apply`: offline, so without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from services.cli.main import app
from services.cli.rules_show import figures_text
from streams.correlation.tallies import Tally

RULE = """
id: failing
events: {failed: {type: order.failed}}
correlation: {type: event_count, group-by: [data.customer], timespan: 10m, condition: {gte: 2}}
"""


def mplp(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["rules", *arguments], prog_name="mplp", input=stdin)


def event(second: int, **fields: Any) -> str:
    return json.dumps({"type": "order.failed", "time": f"2026-01-01T00:00:{second:02}Z", "data": {"customer": "ann"}, **fields}) + "\n"


@pytest.fixture
def rule(tmp_path: Path) -> str:
    file = tmp_path / "rule.yaml"
    file.write_text(RULE)
    return str(file)


def test_one_json_object_per_composite_and_a_summary_on_stderr(rule: str) -> None:
    done = mplp("test", rule, "--events", "-", stdin=event(0) + "broken\n" + event(1))
    assert done.exit_code == 0
    (composite,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (composite["rule_id"], composite["group_key"], composite["event_count"]) == ("failing", {"data.customer": "ann"}, 2)
    assert composite["window_end"] == "2026-01-01T00:00:01.000000Z"
    assert "line 2: record.invalid: " in done.stderr
    assert "2 records, 2 matched, 0 late, 0 duplicates, 1 errors, 1 composites" in done.stderr


ACTIONS = """
actions:
  - emit: order.trouble
  - start-workflow: {id: review, input: {who: '{{group["data.customer"]}}'}}
  - signal-workflow: {execution: "{{events[0].subject}}", name: stop}
"""


def test_what_a_composite_would_bring_about_is_said_if_asked_and_what_could_not_be_done_always(rule: str) -> None:
    Path(rule).write_text(RULE + ACTIONS)
    asked = mplp("test", rule, "--events", "-", "--actions", stdin=event(0) + event(1))
    silent = mplp("test", rule, "--events", "-", stdin=event(0) + event(1))
    (composite,) = [json.loads(line) for line in asked.stdout.splitlines()]
    emit, start, signal = composite.pop("actions")
    assert emit == {"action": "emit", "type": "order.trouble"}
    assert start == {"action": "start-workflow", "id": "review", "input": {"who": "ann"}}
    assert (signal["action"], signal["code"]) == ("signal-workflow", "action.unrendered")
    assert json.loads(silent.stdout) == composite
    for done in (asked, silent):
        assert "action failing/2 (signal-workflow): " in done.stderr
        assert "1 composites, 3 actions" in done.stderr


def test_what_became_of_actions_is_among_the_figures() -> None:
    assert not any("actions" in line for line in figures_text(Tally(matched=1)))
    (line,) = [line for line in figures_text(Tally(performed=3, given_up=1, waiting=2)) if "actions" in line]
    assert line == "3 actions performed, 1 given up (see mplp.composite.events.dlq), 2 waiting"


def test_json_makes_the_summary_json_too(rule: str) -> None:
    done = mplp("test", rule, "--events", "-", "--json", stdin=event(0))
    assert done.exit_code == 0
    assert done.stdout == ""
    assert json.loads(done.stderr)["records"] == 1


def test_strict_is_not_content_with_broken_lines(rule: str) -> None:
    done = mplp("test", rule, "--events", "-", "--strict", stdin=event(0) + "broken\n" + event(1))
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 1
    assert "records.broken" in done.stderr


def test_rules_are_checked_all_at_once(tmp_path: Path, rule: str) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("id: x\nevents: {a: {kind: 1}}\ncorrelation: {type: anomaly, timespan: 1s, gap: 1s}\n---\nid: Y\n")
    done = mplp("test", rule, str(wrong), "--events", "-", "--json", stdin="")
    assert done.exit_code == 1
    assert done.stdout == "", "stdout has composites and nothing else"
    faults = [line.split(": ")[0].split(" at ") for line in done.stderr.splitlines() if line.startswith("  ")]
    assert {(code.strip(), pointer) for code, pointer in faults} == {
        ("rule.field-unknown", "/1/events/a/kind"),
        ("rule.option-refused", "/1/correlation/gap"),
        ("rule.id-invalid", "/2/id"),
        ("rule.field-missing", "/2/events"),
        ("rule.field-missing", "/2/correlation"),
    }


def test_a_rule_given_twice_is_refused(rule: str) -> None:
    done = mplp("test", rule, rule, "--events", "-", stdin="")
    assert done.exit_code == 1
    assert "rule.id-twice" in done.stderr


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("{", "file.unreadable"),
        ("", "file.empty"),
        ("\x00", "file.unreadable"),
        ("a: &a [1]\nb: *a\n", "file.unreadable"),
        ("id: a\nid: b\n", "file.unreadable"),
        ("1: a\n", "file.unreadable"),
        ("[" * 5000, "file.unreadable"),
        ("!!python/object/apply:os.getcwd []", "file.unreadable"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: str, code: str) -> None:
    file = tmp_path / "rule.yaml"
    file.write_text(content)
    done = mplp("test", str(file), "--events", "-", stdin="")
    assert done.exit_code == 1
    assert code in done.stderr


def test_missing_files(tmp_path: Path, rule: str) -> None:
    assert "file.missing" in mplp("test", str(tmp_path / "none.yaml"), "--events", "-", stdin="").stderr
    assert "file.missing" in mplp("test", rule, "--events", str(tmp_path / "none.ndjson")).stderr


def test_until(rule: str, tmp_path: Path) -> None:
    final = tmp_path / "final.yaml"
    final.write_text(RULE.replace("gte: 2}", "gte: 2}, output: final"))
    early = mplp("test", str(final), "--events", "-", "--until", "2026-01-01T00:00:01Z", stdin=event(0) + event(1))
    late = mplp("test", str(final), "--events", "-", "--until", "2026-01-01T00:00:02Z", stdin=event(0) + event(1))
    assert (len(early.stdout.splitlines()), len(late.stdout.splitlines())) == (0, 1)
    assert "time.invalid" in mplp("test", rule, "--events", "-", "--until", "soon", stdin="").stderr
