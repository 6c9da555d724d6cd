"""What performing the actions of a composite means."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from streams import limits
from streams.causation import depth_headers, depth_of
from streams.correlation.actions import Intended, IntendedCall, IntendedEvent, IntendedSignal, IntendedStart, Unrendered, as_json
from streams.faust_app.action_plan import Call, Cause, Errand, Undone, Write, delivery, lane_of, plan, report
from streams.records import CompositeEvent, Delivery, SystemEvent, WorkflowCommand, derived_id, from_micros, to_micros
from streams.topics import COMMANDS, SYSTEM_EVENTS
from streams.webhooks.outcomes import Failed

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
SAID = WHEN + timedelta(seconds=30)
COMPOSITE = CompositeEvent(
    id="c-1", type="composite.r", source="mplp/correlation", subject="user=7", time=WHEN, tenant="t", correlation_id="story", rule_id="r",
    rule_version=3, correlation_type="event_count", window_start=WHEN, window_end=WHEN, data={"count": 3}, severity="error",
)  # fmt: skip
EVENT = IntendedEvent(key="k-e", type="x.happened", subject="user=7", data={"count": 3})
START = IntendedStart(key="k-s", workflow_id="w", input={"a": 1})
SIGNAL = IntendedSignal(key="k-g", execution_id="ex/child", name="stop", data=[1])
CALL = IntendedCall(key="k-c", url="https://hooks.example/in?token=s", headers={"x": "1"}, body=as_json(COMPOSITE), whole=True)


def planned(*intended: Intended, depth: int = 0, composite: CompositeEvent = COMPOSITE) -> list[Errand]:
    return plan(Cause(composite=composite, said_us=to_micros(SAID), depth=depth), intended)


def one(intended: Intended, **more: Any) -> Any:
    (errand,) = planned(intended, **more)
    return errand


def test_an_event_is_caused_by_the_composite_belongs_to_its_story_and_happens_when_it_was_said() -> None:
    write = one(EVENT)
    assert isinstance(write, Write)
    assert (write.topic, write.topic_key, depth_of(write.headers)) == (SYSTEM_EVENTS, "user=7", 1)
    assert write.record == SystemEvent(
        id="k-e", type="x.happened", source="mplp/rules/r", subject="user=7", time=SAID, tenant="t", correlation_id="story",
        causation_id="c-1", data={"count": 3}, severity="error",
    )  # fmt: skip


def test_a_start_has_an_execution_id_of_its_own_and_a_signal_goes_to_the_home_of_its_execution() -> None:
    start, signal = planned(START, SIGNAL, depth=2)
    assert isinstance(start, Write)
    assert isinstance(signal, Write)
    assert isinstance(start.record, WorkflowCommand)
    assert isinstance(signal.record, WorkflowCommand)
    assert (start.topic, start.topic_key, start.record.execution_id, start.record.command) == (COMMANDS, "k-s", "k-s", "start")
    assert start.record.id == derived_id("start", "k-s")
    assert start.record.data == {"workflow": "w", "input": {"a": 1}, "by": "rule r", "trigger_depth": 3}
    assert (signal.topic, signal.topic_key, signal.record.id, signal.record.command) == (COMMANDS, "ex", "k-g", "signal")
    assert signal.record.data == {"name": "stop", "data": [1], "by": "rule r", "trigger_depth": 3}
    assert (start.record.causation_id, start.record.correlation_id, start.record.tenant) == ("c-1", "story", "t")


def test_a_composite_of_several_stories_begins_its_own() -> None:
    assert one(EVENT, composite=replace(COMPOSITE, correlation_id="")).record.correlation_id == "c-1"


def test_a_group_of_any_text_makes_a_subject_that_an_event_may_have() -> None:
    event = one(replace(EVENT, subject="a\nb" + "x" * 5000))
    assert event.record.subject.startswith("a bxx")
    assert len(event.record.subject) == limits.NAME_CHARACTERS_MAX


def test_a_call_waits_with_others_to_its_server_and_shows_no_query() -> None:
    call, event = planned(CALL, EVENT)
    assert isinstance(call, Call)
    assert (lane_of(call), lane_of(event)) == ("https://hooks.example", "")
    assert orjson.loads(call.body) == as_json(COMPOSITE)
    assert (call.task.key, call.task.route, call.task.destination) == ("k-c", "r/0", "https://hooks.example/in")


def test_planning_again_plans_the_same() -> None:
    assert planned(EVENT, START, SIGNAL, CALL) == planned(EVENT, START, SIGNAL, CALL)


@pytest.mark.parametrize(
    ("intended", "code"),
    [
        (Unrendered(key="k", index=0, action="emit", code="action.unrendered", message="no value"), "action.unrendered"),
        (IntendedCall(key="k", url="ftp://x", headers={}, body={}), "webhook.url-invalid"),
        (IntendedCall(key="k", url="https://x", headers={"a": "b\r\nhost: c"}, body={}), "webhook.header-invalid"),
        (IntendedCall(key="k", url="https://x", headers={"a": "é"}, body={}), "webhook.header-invalid"),
        (IntendedStart(key="k", workflow_id="w", input="x" * limits.PAYLOAD_BYTES_MAX), "payload.too-large"),
    ],
)
def test_what_cannot_be_done_is_said_with_a_code(intended: Intended, code: str) -> None:
    undone = one(intended)
    assert isinstance(undone, Undone)
    assert (undone.failed.code, undone.failed.retryable) == (code, False)


def test_a_loop_ends_at_its_limit_but_who_is_told_of_it_is_still_told() -> None:
    allowed = planned(EVENT, START, SIGNAL, CALL, depth=limits.TRIGGER_DEPTH_MAX - 1)
    assert [type(errand) for errand in allowed] == [Write, Write, Write, Call]
    stopped = planned(EVENT, START, SIGNAL, CALL, depth=limits.TRIGGER_DEPTH_MAX)
    assert [type(errand) for errand in stopped] == [Undone, Undone, Undone, Call]
    assert {errand.failed.code for errand in stopped if isinstance(errand, Undone)} == {"rule.loop"}


def test_reports_say_what_became_of_an_action_and_their_own_chain_ends() -> None:
    task = one(CALL).task
    failed = Failed(code="webhook.failed", message="HTTP 500", retryable=True)
    rows = [
        delivery(task, 1, failed, retries=True, latency_ms=1.23456, at=WHEN).record,
        delivery(task, 2, None, retries=False, latency_ms=1.0, at=WHEN).record,
        delivery(task, 2, failed, retries=False, latency_ms=1.0, at=WHEN).record,
    ]
    assert all(isinstance(row, Delivery) for row in rows)
    assert [row.status for row in rows] == ["retrying", "delivered", "dead"]  # type: ignore[attr-defined]
    assert len({row.id for row in rows}) == 3
    first: Any = rows[0]
    assert (first.event_id, first.route_id, first.destination, first.attempt) == ("c-1", "r/0", "https://hooks.example/in", 1)
    assert (first.error, first.latency_ms, first.data["code"]) == ("webhook.failed: HTTP 500", 1.235, "webhook.failed")

    told = report(task, failed, 8, WHEN)
    assert told is not None
    assert (told.record.type, told.record.subject, depth_of(told.headers)) == ("rule.action-failed", "r", 1)
    assert told.record.data["attempts"] == 8
    loop = Failed(code="rule.loop", message="circles", retryable=False)
    deep = one(EVENT, depth=limits.TRIGGER_DEPTH_MAX).task
    stopped = report(deep, loop, 1, WHEN)
    assert stopped is not None
    assert (stopped.record.type, depth_of(stopped.headers)) == ("rule.loop-stopped", limits.TRIGGER_DEPTH_MAX + 1)
    assert report(one(EVENT, depth=limits.TRIGGER_DEPTH_MAX + 1).task, loop, 1, WHEN) is None


def test_the_counter_is_a_header() -> None:
    assert depth_headers(0) == ()
    assert depth_of(depth_headers(7)) == 7
    assert depth_of(None) == depth_of([("other", b"3")]) == 0
    for text in (b"-1", b"x", b"", b"99999", "½".encode()):
        assert depth_of([("mplp_depth", text)]) > limits.TRIGGER_DEPTH_MAX
    assert from_micros(0).tzinfo is UTC
