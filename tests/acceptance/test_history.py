"""The history through the shell: it proves that it is exact, and makes itself anew."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from tests.acceptance.product import Product


def test_it_is_exact_before_and_after_it_is_made_anew(product: Product) -> None:
    events = "".join(f'{{"type": "history.tried", "subject": "s{n}", "data": {{"n": {n}}}}}\n' for n in range(200))
    assert product.mplp("events", "produce", stdin=events).code == 0
    verified = product.mplp("history", "verify", "--json")
    assert (verified.code, verified.json["verdict"]) == (0, "exact"), verified.out
    assert verified.json["rows"] + verified.json["log_records"] == verified.json["offsets"] >= 200
    rebuilt = product.mplp("history", "rebuild", "--topic", "mplp.system.events", "--why", "to see it", "--json")
    assert rebuilt.code == 0, rebuilt.err
    assert rebuilt.json["rows"] >= 200
    text = product.mplp("history", "verify")
    assert text.code == 0, text.out
    assert text.out.splitlines()[-1].startswith("exact: ")
    told = product.rows("SELECT data.why::String AS why FROM system_events WHERE type = 'history.rebuilt'")
    assert told == [{"why": "to see it"}]
    refused = product.mplp("history", "verify", "--topic", "nowhere", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (1, "topic.not-kept")


def test_a_path_of_payloads_becomes_a_column(product: Product) -> None:
    events = "".join(f'{{"type": "promote.tried", "subject": "s", "data": {{"weight": {n}.5, "note": "n"}}}}\n' for n in range(20))
    assert product.mplp("events", "produce", stdin=events).code == 0
    assert product.rows("SELECT count() AS n FROM system_events WHERE type = 'promote.tried'") == [{"n": 20}]
    promoted = product.mplp("history", "promote", "data.weight", "--why", "to see it", "--json")
    assert promoted.code == 0, promoted.err
    assert (promoted.json["column"], promoted.json["type"], promoted.json["values"]) == ("data_weight", "Float64", 20)
    assert product.rows("SELECT sum(data_weight) AS s FROM system_events") == [{"s": 200.0}]
    assert product.mplp("events", "produce", stdin=events).code == 0
    assert product.rows("SELECT sum(data_weight) AS s FROM system_events") == [{"s": 400.0}]
    listed = product.mplp("history", "promote", "--list", "--json")
    assert [item["column"] for item in listed.json] == ["data_weight"]
    assert "data_weight" in product.mplp("history", "promote", "--list").out
    assert product.mplp("history", "promote", "data.weight", "--remove", "--json").code == 0
    gone = product.mplp("query", "SELECT data_weight FROM system_events", "--json")
    assert (gone.code, gone.json["error"]["code"]) == (1, "sql.unknown-column")
    refused = product.mplp("history", "promote", "data.items[0]", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (1, "promote.path")
    told = product.rows("SELECT type FROM system_events WHERE type IN ('history.promoted', 'history.demoted') ORDER BY time")
    assert [row["type"] for row in told] == ["history.promoted", "history.demoted"]


def test_it_is_looked_back_into_exported_and_erased(product: Product, tmp_path: Path) -> None:
    events = "".join(f'{{"type": "note.taken", "subject": "note-{n % 2}", "data": {{"text": "secret {n}"}}}}\n' for n in range(10))
    assert product.mplp("events", "produce", stdin=events).code == 0
    definition = tmp_path / "wait.json"
    definition.write_text('{"id": "looked-back", "name": "Looked back", "steps": [{"id": "go", "type": "signal", "name": "go"}]}')
    assert product.mplp("workflow", "run", str(definition), "--id", "back-1").code == 0
    now = product.mplp("history", "at", "now", "--execution", "back-1", "--json")
    state = product.mplp("workflow", "state", "back-1", "--at", now.json["at"], "--json")
    assert (now.json["execution"], now.json["steps"]) == (state.json["execution"], state.json["steps"])
    assert product.mplp("history", "at", "1d ago", "--execution", "back-1", "--json").json["error"]["code"] == "execution.not-begun"

    def export(table: str) -> Any:
        answer = product.mplp("history", "export", "--table", table, "--to", "now", "--out", str(tmp_path / "out"), "--json")
        assert answer.code == 0, answer.err
        return answer.json

    commands = export("workflow_commands")
    assert export("workflow_commands") == {**commands, "files": [], "kept": len(commands["files"]), "rows": 0, "bytes": 0}
    (file,) = export("system_events")["files"]
    content = (tmp_path / "out" / file["file"]).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (file["bytes"], file["sha256"])

    erased = product.mplp("history", "erase", "--subject", "note-1", "--reason", "to see it", "--json")
    assert (erased.code, erased.json["rows"]) == (0, 5), erased.err
    left = product.rows("SELECT subject, countIf(data_text LIKE '%secret%') AS n FROM system_events WHERE type = 'note.taken' GROUP BY ALL")
    assert sorted((row["subject"], row["n"]) for row in left) == [("note-0", 5), ("note-1", 0)]
    (later,) = export("system_events")["files"]
    assert later["digest"] != file["digest"], "the day has changed, so its file is written again"
    verified = product.mplp("history", "verify", "--topic", "mplp.system.events", "--json")
    assert (verified.code, verified.json["erased"]) == (0, 5), verified.out
    unknown = product.mplp("history", "erase", "--subject", "nobody", "--reason", "a typo", "--json")
    assert (unknown.code, unknown.json["error"]["code"]) == (1, "subject.unknown")
    short = product.mplp("history", "retention", "--try", "system_events=1d", "--json")
    assert (short.code, short.json["error"]["code"]) == (1, "retention.too-short")
