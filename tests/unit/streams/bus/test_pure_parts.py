"""Pure parts of the bus: selections, starts, commands, outcomes, problems."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

import streams
from streams.bus.gateway import problem
from streams.bus.selection import Selection
from streams.bus.sources import parse_since
from streams.bus.stories import outcome, result_of, start_command, time_of_id
from streams.errors import BackboneError, Defect, Denied, InvalidInput, ModuleFailed, NotFound, Refused, TooLarge, Unavailable
from streams.records import MessageError, ModuleMessage, SystemEvent, WorkflowTransition, new_id, now, to_micros

PAID = SystemEvent(type="order.paid", source="shop/eu", subject="order-7", correlation_id="story", data={"total": 12.5})


def plain(event: SystemEvent) -> dict[str, Any]:
    return {
        "type": event.type,
        "source": event.source,
        "subject": event.subject,
        "correlation_id": event.correlation_id,
        "time": to_micros(event.time),
    }


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (Selection(), True),
        (Selection(type="order.*"), True),
        (Selection(type="payment.**"), False),
        (Selection(source="shop/*"), True),
        (Selection(subject="order-7", correlation_id="story"), True),
        (Selection(subject="order"), False),
        (Selection(correlation_id=""), False),
        (Selection(since=PAID.time), True),
        (Selection(until=PAID.time), False),
        (Selection(where="data.total > 12.0 && type == 'order.paid'"), True),
        (Selection(where="data.total > 100"), False),
        (Selection(where="data.missing == 1"), False),
        (Selection(where="data.total"), False),
        (Selection(where="time < timestamp('2200-01-01T00:00:00Z')"), True),
    ],
)
def test_selection(selection: Selection, wanted: bool) -> None:
    assert (selection.wants_plain(plain(PAID)) and selection.wants(PAID)) is wanted


def test_an_expression_that_is_none_is_refused_before_reading() -> None:
    with pytest.raises(InvalidInput) as refused:
        Selection(where="data.total >").check()
    assert refused.value.code == "expression.invalid"


def test_starts() -> None:
    time = datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert parse_since("now") == "now"
    assert parse_since("beginning") == "beginning"
    assert parse_since("2026-01-31T12:00:00+02:00") == time
    assert parse_since(datetime(2026, 1, 31, 10)) == time
    for bad in ("yesterday", "", "2026-01-31"):
        with pytest.raises(InvalidInput) as refused:
            parse_since(bad)
        assert refused.value.code == "since.invalid"


def test_the_time_in_a_generated_id_tells_where_reading_may_begin() -> None:
    before = time_of_id(new_id())

    assert before is not None
    assert timedelta(0) < now() - before < timedelta(minutes=5)
    assert time_of_id("mine-1") is None
    assert time_of_id("6d706c70-0000-5000-8000-6261636b626e") is None


def test_an_idempotency_key_gives_the_same_execution() -> None:
    def start(definition: Any, key: str | None) -> str:
        return start_command(definition, {}, execution_id=None, idempotency_key=key, by="").execution_id

    definition = {"workflow": {"id": "w", "steps": []}}
    assert start(definition, "k") == start(definition["workflow"], "k") == start("w", "k")
    assert start(definition, "k") != start(definition, "k2")
    assert start(definition, None) != start(definition, None)


def test_an_execution_id_that_is_none_is_refused() -> None:
    for execution_id in ("", "x" * 201):
        with pytest.raises(InvalidInput):
            start_command({"id": "w"}, {}, execution_id=execution_id, idempotency_key=None, by="")


def test_the_outcome_is_what_the_last_record_says() -> None:
    last = WorkflowTransition(
        type="execution.failed", execution_id="e", workflow_id="w", status="failed",
        data={"error": {"code": "timeout"}, "duration_ms": 7},
    )  # fmt: skip
    assert outcome(last) == {"execution_id": "e", "status": "failed", "output": None, "duration_ms": 7, "error": {"code": "timeout"}}


@pytest.mark.parametrize(
    ("status", "family"),
    [
        (400, InvalidInput),
        (422, InvalidInput),
        (404, NotFound),
        (409, Refused),
        (403, Denied),
        (413, TooLarge),
        (503, Unavailable),
        (500, Defect),
    ],
)
def test_problem_details_become_our_errors(status: int, family: type) -> None:
    faults = [{"code": "query.refused", "pointer": "/sql", "message": "No."}]
    content = orjson.dumps({"code": "query.refused", "detail": "No.", "pointer": "/sql", "advice": "Ask again.", "faults": faults})
    error = problem(status, content)
    assert type(error) is family
    assert error.to_dict() == {"code": "query.refused", "message": "No.", "pointer": "/sql", "advice": "Ask again.", "faults": faults}
    assert problem(status, b"<html>").code == "gateway.failed"


def test_what_users_import_is_there() -> None:
    for name in streams.__all__:
        assert getattr(streams, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = streams.nothing  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("code", "error", "status"),
    [
        ("invalid", InvalidInput, 400),
        ("not-found", NotFound, 404),
        ("module.unknown", NotFound, 404),
        ("denied", Denied, 403),
        ("conflict", Refused, 409),
        ("credit.exhausted", Refused, 409),
        ("payload.too-large", TooLarge, 413),
        ("internal", ModuleFailed, 502),
        ("extension.failed", ModuleFailed, 502),
        ("extension.hangs", ModuleFailed, 502),
        ("module.silent", Unavailable, 503),
        ("unavailable", Unavailable, 503),
    ],
)
def test_what_a_module_refuses_is_an_error_of_its_kind(code: str, error: type[BackboneError], status: int) -> None:
    faults = [{"code": "invalid", "pointer": "/a", "message": "no."}, {"code": "invalid", "pointer": "/b", "message": "nor this."}]
    response = ModuleMessage(
        type="x.refused",
        kind="response",
        source_module="x",
        operation="y",
        status="error",
        error=MessageError(code=code, message="No."),
        data={"pointer": "/a", "faults": faults},
    )
    with pytest.raises(BackboneError) as refused:
        result_of(response)
    assert (type(refused.value), refused.value.http_status) == (error, status)
    assert refused.value.to_dict() == {"code": code, "message": "No.", "pointer": "/a", "faults": faults}
