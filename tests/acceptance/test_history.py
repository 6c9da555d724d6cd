"""The history through the shell: it proves that it is exact, and makes itself anew."""

from __future__ import annotations

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
