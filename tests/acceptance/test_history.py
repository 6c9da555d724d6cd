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
