"""What a route makes of a record: documents and their faults, filters, transforms, and why not."""

from __future__ import annotations

from typing import Any

import pytest

from streams.errors import InvalidDocument
from streams.records import derived_id
from streams.routing.control import check
from streams.routing.parse import parse_route, validate
from streams.routing.routes import RetryPolicy
from streams.routing.trial import Trial
from streams.webhooks.addresses import parse_networks

#: 2026-02-01.
NOW_US = 1_769_904_000_000_000
ORDER = (
    '{"id": "e1", "type": "order.paid", "time": "2026-01-01T00:00:00Z", "subject": "o-7", '
    '"data": {"total": 250, "cust": "ann", "tags": ["a", "b"]}}'
)


def route(**parts: Any) -> dict[str, Any]:
    return {"id": "r", "match": {"type": "order.*"}, "destination": {"topic": "billing"}, **parts}


def tried(document: dict[str, Any], line: str = ORDER) -> dict[str, Any]:
    (told,) = Trial([parse_route(document)], now_us=NOW_US).line(line)
    return told


def made(*transforms: dict[str, Any]) -> Any:
    return tried(route(transforms=list(transforms)))["record"]["data"]


def test_what_arrives_has_an_id_of_its_own_and_names_its_cause() -> None:
    told = tried(route())
    assert (told["id"], told["route"], told["outcome"], told["error"]) == ("e1", "r", "delivered", None)
    assert (told["record"]["id"], told["record"]["causation_id"]) == (derived_id("route", "r", "e1"), "e1")
    assert told["record"]["time"] == "2026-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("parts", "outcome", "why"),
    [
        ({"match": {"type": "user.*"}}, "unmatched", "its type order.paid does not satisfy user.*"),
        ({"match": {"where": "data.total > 300.0"}}, "unmatched", "where is false: data.total > 300.0"),
        ({"match": {"where": "data.none > 3"}}, "unmatched", "where has no value: data.none > 3: no such key: none"),
        ({"match": {"subject": "p-*", "where": "data.total > 300.0"}}, "unmatched", "its subject o-7 does not satisfy p-*"),
        ({"match": {"source": ["a", "b"]}}, "unmatched", "its source (empty) does not satisfy a, b"),
        ({"match": {"severity": ["error", "critical"]}}, "unmatched", "its severity info is none of error, critical"),
        ({"filters": ["true", "data.total < 10.0"]}, "filtered", "a filter is false: data.total < 10.0"),
    ],
)
def test_why_not_is_said(parts: dict[str, Any], outcome: str, why: str) -> None:
    told = tried(route(**parts))
    assert (told["outcome"], told["record"], told["error"]) == (outcome, None, None)
    assert told["why"].startswith(why)


@pytest.mark.parametrize(
    ("transforms", "code"),
    [
        ([{"set": {"data.x": "data.none"}}], "expression.failed"),
        ([{"set": {"data.total.x": "1"}}], "transform.not-object"),
        ([{"set": {"data.tags[7]": "1"}}], "transform.not-list"),
        ([{"set": {"subject": "data.total"}}], "transform.type"),
        ([{"set": {"time": "'today'"}}], "transform.type"),
        ([{"set": {"severity": "'awful'"}}], "field.invalid"),
        ([{"set": {"data.x": "1.0 / 0.0"}}], "expression.failed"),
        ([{"map": "data.total"}], "transform.not-object"),
        ([{"map": '{"id": "mine"}'}], "transform.field-refused"),
    ],
)
def test_what_has_no_result_is_an_error_with_a_code(transforms: list[Any], code: str) -> None:
    told = tried(route(transforms=transforms))
    assert (told["outcome"], told["error"]["code"], told["error"]["stage"]) == ("error", code, "transform")


def test_a_filter_without_a_value_is_an_error_not_a_no() -> None:
    assert tried(route(filters=["data.none > 1"]))["error"]["code"] == "expression.failed"


def test_steps_see_the_record_as_it_is_then_and_moves_of_one_step_happen_at_once() -> None:
    assert made({"set": {"data": '{"a": 1, "b": 2}'}}, {"rename": {"data.a": "data.b", "data.b": "data.a"}}) == {"a": 2, "b": 1}
    assert made({"set": {"data.cents": "int(data.total * 100.0)"}}, {"drop": ["data.total", "data.none", "data.tags[0]"]}) == {
        "cust": "ann", "tags": ["b"], "cents": 25_000,
    }  # fmt: skip
    assert made({"rename": {"data.cust": "data.who.name", "data.none": "data.x"}})["who"] == {"name": "ann"}
    moved = tried(route(transforms=[{"rename": {"subject": "data.order"}}, {"map": '{"type": "billing.requested", "data": data}'}]))[
        "record"
    ]
    assert (moved["type"], moved["subject"], moved["data"]["order"]) == ("billing.requested", "", "o-7")


def test_parameters_of_a_module_are_shown() -> None:
    told = tried(route(destination={"module": "plan", "operation": "create-plan", "parameters": {"name": "subject"}}))
    assert (told["parameters"], told["destination"]) == ({"name": "o-7"}, "module plan/create-plan")


def test_broken_lines_are_named_and_skipped() -> None:
    trial = Trial([parse_route(route())], now_us=NOW_US)
    assert [*trial.line("{"), *trial.line(" "), *trial.line(ORDER)][0]["outcome"] == "delivered"
    assert [*trial.line('{"type": "order.paid", "subject": 7}')] == []
    told = [(broken["line"], broken["code"], broken["pointer"]) for broken in trial.summary.to_dict()["broken"]]
    assert told == [(1, "record.invalid", None), (4, "record.invalid", "/subject")]
    assert str(trial.summary.broken[1]) == "line 4: record.invalid: subject is a text."
    assert trial.summary.records == 1


def test_a_line_needs_no_more_than_a_type_as_where_events_are_produced() -> None:
    told = tried(route(match={"type": "order.*", "where": "data.n == 1"}), '{"type": "order.paid", "data": {"n": 1}}')
    assert (told["id"], told["outcome"]) == ("line-000000000001", "delivered")
    assert told["record"]["time"] == "2026-02-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ({"id": "A b"}, ("route.id-invalid", "/id")),
        ({"match": None}, ("route.field-missing", "/match")),
        ({"match": {"topic": "mplp.internal.matches"}}, ("route.topic-refused", "/match/topic")),
        ({"match": {"topic": "shop.dlq"}}, ("route.topic-refused", "/match/topic")),
        ({"match": {"topic": "shop.*"}}, ("route.topic-refused", "/match/topic")),
        ({"match": {"typ": "x"}}, ("route.field-unknown", "/match/typ")),
        ({"filters": ["true", "(("]}, ("expression.invalid", "/filters/1")),
        ({"transforms": [{"set": {"data.a": "1"}}, {"set": {"data.b": 1}}]}, ("route.value-invalid", "/transforms/1/set/data.b")),
        ({"transforms": [{"drop": ["type"]}]}, ("route.field-refused", "/transforms/0/drop/0")),
        ({"transforms": [{"cut": {}}]}, ("route.value-invalid", "/transforms/0")),
        ({"destination": {}}, ("route.destination-invalid", "/destination")),
        ({"destination": {"topic": "mplp.workflow.transitions"}}, ("route.topic-refused", "/destination/topic")),
        ({"destination": {"topic": "a b"}}, ("route.topic-invalid", "/destination/topic")),
        ({"destination": {"webhook": "ftp://x"}}, ("webhook.url-invalid", "/destination/webhook")),
        ({"destination": {"module": "plan", "operation": "x"}}, ("operation.unknown", "/destination/operation")),
        ({"retry": {"max-retries": -1}}, ("route.value-invalid", "/retry/max-retries")),
        ({"retry": {"initial-interval": "soon"}}, ("duration.invalid", "/retry/initial-interval")),
        ({"order": "time"}, ("route.value-invalid", "/order")),
        ({"surprise": 1}, ("route.field-unknown", "/surprise")),
    ],
)
def test_a_fault_is_named_with_its_place(parts: dict[str, Any], fault: tuple[str, str]) -> None:
    assert [(found.code, found.pointer) for found in validate(route(**parts))] == [fault]


def test_all_faults_of_all_routes_are_told_at_once() -> None:
    with pytest.raises(InvalidDocument) as caught:
        check([route(order="x"), route(retry=3), route()])
    assert [fault.pointer for fault in caught.value.violations] == ["/0/order", "/1/retry"]
    with pytest.raises(InvalidDocument) as caught:
        check([route(), route()])
    assert [(fault.code, fault.pointer) for fault in caught.value.violations] == [("route.id-twice", "/1/id")]


def test_a_webhook_that_could_never_be_called_is_refused_where_it_is_known_what_may_be() -> None:
    inner, outer = route(destination={"webhook": "https://10.0.0.1/"}), route(id="b", destination={"webhook": "https://example.com/"})
    with pytest.raises(InvalidDocument) as caught:
        check([outer, inner], (), ())
    assert [(fault.code, fault.pointer) for fault in caught.value.violations] == [("webhook.address-refused", "/1/destination/webhook")]
    check([outer, inner], (), parse_networks("10.0.0.0/8"))
    check([inner])  # one that is in force goes on being one


def test_a_policy_says_whether_and_when() -> None:
    policy = RetryPolicy(
        max_retries=2, initial_interval_ms=100, max_interval_ms=250, retryable=frozenset({"a"}), non_retryable=frozenset({"b"})
    )
    assert [policy.allows("x", True, attempts) for attempts in (1, 2, 3)] == [True, True, False]
    assert [policy.allows(code, retryable, 1) for code, retryable in (("a", False), ("b", True), ("x", False), ("invalid", True))] == [
        True, False, False, False,
    ]  # fmt: skip
    assert [policy.delay_ms(attempts, "s") for attempts in (1, 2, 3, 900)] == [100, 200, 250, 250]
    assert policy.delay_ms(1, "s", after_ms=5000) == 5000
    assert 0 <= RetryPolicy(initial_interval_ms=100, jitter=1.0).delay_ms(1, "s") < 100
