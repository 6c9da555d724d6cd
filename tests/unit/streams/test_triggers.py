"""What starts a published workflow is shown with the next time of its schedules, whatever was published."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.cli.workflow_definitions import trigger_text
from streams.bus.workflows import StoredWorkflow
from streams.records import iso, to_micros
from streams.triggers import read_triggers, triggers_shown

#: A Friday evening in winter.
NOW = to_micros(datetime(2026, 1, 9, 20, 0, tzinfo=UTC))
WORKFLOW = {
    "id": "w",
    "triggers": [
        {"event": "order.*", "where": "data.total > 100.0"},
        {"event": "alarm", "topic": "mplp.composite.events"},
        {"cron": "0 9 * * MON-FRI", "timezone": "Europe/Berlin"},
        {"cron": "@daily", "missed": "all"},
    ],
}
SHOWN = [
    {"event": "order.*", "topic": "mplp.system.events", "where": "data.total > 100.0"},
    {"event": "alarm", "topic": "mplp.composite.events"},
    {"cron": "0 9 * * MON-FRI", "timezone": "Europe/Berlin", "missed": "latest", "next": "2026-01-12T08:00:00.000000Z"},
    {"cron": "@daily", "timezone": "UTC", "missed": "all", "next": "2026-01-10T00:00:00.000000Z"},
]


def test_triggers_are_shown_with_their_next_time() -> None:
    assert triggers_shown(WORKFLOW, NOW) == SHOWN
    assert len(read_triggers(WORKFLOW)) == len(SHOWN)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (None, []),
        ("daily", []),
        ([1, {"cron": "when it suits"}], [{"cron": "when it suits", "timezone": "UTC", "missed": "latest", "next": None}]),
        ([{"cron": "@daily", "timezone": "Mars"}], [{"cron": "@daily", "timezone": "Mars", "missed": "latest", "next": None}]),
    ],
)
def test_what_was_published_unchecked_breaks_no_list(given: object, shown: list[object]) -> None:
    assert triggers_shown({"triggers": given}, NOW) == shown


def test_a_published_workflow_tells_when_it_starts_next() -> None:
    stored = StoredWorkflow(id="w", version="1", revision=1, hash="h", definition=WORKFLOW, who="ann", why="", time="t")
    told = stored.to_dict()
    assert told["definition"] == WORKFLOW
    assert [trigger["next"] > iso(datetime.now(UTC)) for trigger in told["triggers"][2:]] == [True, True]


def test_the_table_has_one_line_for_it() -> None:
    assert [trigger_text(each) for each in SHOWN] == [
        "event order.* where data.total > 100.0",
        "event alarm",
        "cron 0 9 * * MON-FRI Europe/Berlin, next 2026-01-12T08:00:00.000000Z",
        "cron @daily UTC, next 2026-01-10T00:00:00.000000Z",
    ]
    assert trigger_text({"cron": "x", "timezone": "UTC", "next": None}) == "cron x UTC, next never"
