"""Every ready query answers right on real rows; saved ones are found, filled and refused as documented."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.history.saved import SavedQueries, ready
from services.history.store import History
from streams.errors import BackboneError
from streams.settings import Settings
from tests.integration.history.world import fill

#: Query → parameters, columns that are looked at, and their rows.
ANSWERS: dict[str, tuple[dict[str, Any], str, list[list[Any]]]] = {
    "running-executions": ({}, "execution_id status last_type last_step", [["e3", "running", "approval.requested", "ask"]]),
    "stuck-executions": ({"minutes": 1}, "execution_id workflow_id last_type last_step", [["e3", "approve", "approval.requested", "ask"]]),
    "failed-executions": ({"workflow": "review"}, "execution_id error_code error duration_ms", [["e2", "unavailable", "away", 50_000]]),
    "execution-story": (
        {"execution": "e3"},
        "sequence after_ms type step_id",
        [[1, 0, "execution.started", None], [2, 10_000, "step.started", "ask"], [3, 10_000, "approval.requested", "ask"]],
    ),
    "slowest-executions": ({"limit": 5}, "execution_id duration_ms failed_steps", [["e1", 60_000, 0], ["e2", 50_000, 1]]),
    "slowest-steps": (
        {},
        "workflow_id step_id attempts p50_ms max_ms",
        [["review", "b", 1, 20_000, 20_000], ["review", "a", 3, 10_000, 10_000]],
    ),
    "failing-steps": (
        {},
        "workflow_id step_id failures attempts share error_codes executions",
        [["review", "a", 2, 3, 0.6667, ["unavailable"], 1]],
    ),
    "retried-steps": ({}, "execution_id step_id attempts last_status error_codes", [["e2", "a", 2, "failed", ["unavailable"]]]),
    "workflow-results": (
        {},
        "workflow_id executions completed failed open success_rate p50_ms",
        [["review", 2, 1, 1, 0, 0.5, 60_000], ["approve", 1, 0, 0, 1, None, None]],
    ),
    "executions-per-hour": ({"workflow": "review"}, "executions completed failed open", [[2, 1, 1, 0]]),
    "waiting-approvals": ({}, "execution_id workflow_id step_id request", [["e3", "approve", "ask", '{"question":"May I?"}']]),
    "refused-commands": ({}, "execution_id command code reason", [["e1", "cancel", "execution.wrong-state", "It has ended."]]),
    "event-counts": (
        {},
        "type source events subjects",
        [["order.paid", "shop-a", 6, 3], ["order.shipped", "shop-b", 6, 3], ["odd.text", "else", 1, 1]],
    ),
    "events-per-minute": ({"type": "order.%"}, "events", [[1]] * 12),
    "silent-sources": ({"times": 2, "limit": 2}, "source events usual_pause_s", [["shop-a", 6, 120], ["shop-b", 6, 120]]),
    "severe-events": (
        {"limit": 3},
        "kind type source",
        [["event", "order.shipped", "shop-b"], ["event", "order.shipped", "shop-b"], ["event", "order.shipped", "shop-b"]],
    ),
    "story": (
        {"correlation": "story-1", "limit": 3},
        "kind id",
        [["composite", "composite-1"], ["composite", "composite-1"], ["event", "order-1"]],
    ),
    "direct-effects": ({"id": "command-1"}, "kind type id", [["transition", "command.refused", "refused"]]),
    "recent-composites": (
        {"rule": "burst"},
        "rule_id group_key event_count explanation",
        [["burst", {"customer": "c0"}, 3, "Three orders of c0."]],
    ),
    "rule-activity": ({}, "rule_id composites groups retracted", [["burst", 2, 2, 1]]),
    "module-operations": (
        {},
        "module operation responses errors error_codes p95_ms",
        [["plan", "create-plan", 2, 1, ["plan.unknown"], 80]],
    ),
    "delivery-results": ({}, "route_id delivered failed events p50_ms last_error", [["billing", 2, 1, 3, 20, "refused"]]),
    "dead-letters": ({}, "topic stage route code letters", [["mplp.system.events.dlq", "deliver", "billing", "http.500", 2]]),
    "unreadable-records": ({}, "topic kind error_code records", [["mplp.system.events", "undecodable", "avro.invalid", 3]]),
    "payload-fields": (
        {"type": "order.paid"},
        "path types events",
        [["amount", ["Float64"], 6], ["count", ["Int64"], 6], ["customer.name", ["String"], 6], ["customer.vip", ["Bool"], 6]],
    ),
    "busiest-subjects": ({"limit": 2}, "subject events severe", [["customer-0", 4, 1], ["customer-1", 4, 1]]),
    "history-freshness": (
        {},
        "topic rows partitions",
        [
            ["mplp.composite.events", 3, 1],
            ["mplp.deliveries", 3, 1],
            ["mplp.module.messages", 5, 1],
            ["mplp.system.events", 16, 1],
            ["mplp.system.events.dlq", 2, 1],
            ["mplp.workflow.commands", 1, 1],
            ["mplp.workflow.transitions", 16, 1],
        ],
    ),
}


@pytest.fixture(scope="module")
async def history(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[History]:
    async with History(Settings(data_dir=tmp_path_factory.mktemp("saved"))) as history:
        # Within the hour that most of them look back, and all minutes over.
        await fill(history, datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=30))
        yield history


def test_every_ready_query_has_a_known_answer() -> None:
    assert set(ANSWERS) == set(ready())
    assert len(ready()) >= 20


@pytest.mark.parametrize("name", sorted(ANSWERS))
async def test_a_ready_query_answers_on_real_rows(history: History, name: str) -> None:
    parameters, columns, rows = ANSWERS[name]
    sql, values = SavedQueries("").find(name).filled(parameters)
    found = (await history.query(sql, values)).objects()
    if name == "payload-fields":
        found = [row for row in found if not row["path"].startswith(("items", "note"))]
    if name == "events-per-minute":
        found = [row for row in found if row["events"]]
    assert [[row[column] for column in columns.split()] for row in found] == rows


@pytest.fixture
def own(tmp_path: Path) -> SavedQueries:
    (tmp_path / "mine.sql").write_text(
        "-- title: Mine\n-- parameters:\n--   n: {default: 3}\n--   s: {description: A text.}\n"
        "SELECT {n:UInt8} AS n, {s:String} AS s, '{not:This}' AS t -- nor {that:One}\n"
    )
    (tmp_path / "dead-letters.sql").write_text("-- title: Ours instead\nSELECT 1 AS x\n")
    (tmp_path / "broken.sql").write_text("SELECT 1\n")
    return SavedQueries(str(tmp_path))


async def test_queries_of_a_folder_are_listed_win_and_are_answered(history: History, own: SavedQueries) -> None:
    listed = {query["name"]: query for query in own.all()}
    assert set(listed) == {*ANSWERS, "mine", "broken"}
    assert listed["dead-letters"]["title"] == "Ours instead"
    assert "head" in listed["broken"]["fault"]
    assert [(p["name"], p["type"], p["required"]) for p in listed["mine"]["parameters"]] == [("n", "UInt8", False), ("s", "String", True)]
    sql, values = own.find("mine").filled({"s": "x"})
    assert (await history.query(sql, values)).rows() == [[3, "x", "{not:This}"]]


@pytest.mark.parametrize(
    ("name", "parameters", "code", "advice"),
    [
        ("mine", {}, "sql.parameter", "A text."),
        ("mine", {"s": "x", "nn": 1}, "sql.parameter", "Did you mean n?"),
        ("broken", {}, "query.invalid", ""),
        ("slowest-stepps", {}, "query.unsaved", "Did you mean slowest-steps?"),
        ("../mine", {}, "query.unsaved", ""),
    ],
)
def test_what_does_not_fit_is_refused_with_what_was_meant(
    own: SavedQueries, name: str, parameters: dict[str, Any], code: str, advice: str
) -> None:
    with pytest.raises(BackboneError) as refused:
        own.find(name).filled(parameters)
    assert refused.value.code == code
    assert advice in (refused.value.advice or "")


@pytest.mark.parametrize(
    "text",
    [
        "-- title: x\n",
        "-- [\nSELECT 1",
        "-- title: ''\nSELECT 1",
        "-- title: x\n-- colour: red\nSELECT 1",
        "-- title: x\n-- parameters: {n: {}}\nSELECT 1",
    ],
)
def test_a_head_that_cannot_be_is_a_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "q.sql").write_text(text)
    with pytest.raises(BackboneError, match=r"query\.invalid"):
        SavedQueries(str(tmp_path)).find("q")
