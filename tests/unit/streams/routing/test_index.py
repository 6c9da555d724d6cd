"""Which routes get a record: those of its type, and of them those whose conditions hold."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from streams.matching.matchers import RecordView
from streams.routing.index import RouteIndex
from streams.routing.parse import parse_route
from streams.routing.routes import active


def index(**matches: dict[str, Any]) -> RouteIndex:
    documents = [{"id": name, "match": match, "destination": {"topic": "there"}} for name, match in matches.items()]
    return RouteIndex("mplp.system.events", [active(parse_route(document)) for document in documents])


def view(record_type: str, data: Any = None, source: str = "shop") -> RecordView:
    return RecordView({"id": "e", "type": record_type, "source": source, "time": 0, "data": orjson.dumps(data or {}).decode()})


@pytest.mark.parametrize(
    ("record", "routes"),
    [
        (view("order.paid"), ["all", "orders"]),
        (view("user.came"), ["all"]),
        (view("order.paid", {"total": 5, "kind": "a"}), ["all", "orders", "large", "kind"]),
        (view("order.paid", {"total": 5, "kind": "b"}, "web"), ["all", "orders", "large", "web"]),
        (view("order.paid", {"total": "five"}), ["all", "orders"]),
    ],
)
def test_a_record_goes_to_those_whose_conditions_hold(record: RecordView, routes: list[str]) -> None:
    of_all = index(
        all={}, elsewhere={"topic": "other"}, orders={"type": "order.*"}, large={"type": "order.*", "where": "data.total > 3"},
        kind={"where": 'data.kind == "a"'}, web={"source": "web"},
    )  # fmt: skip
    assert [list(of_all.routes(record)) for _ in range(2)] == [routes, routes]


def test_where_nobody_asks_for_more_than_the_type_the_payload_is_not_read() -> None:
    broken = RecordView({"id": "e", "type": "order.paid", "time": 0, "data": "no JSON"})
    assert list(index(one={"type": "order.*"}, two={}).routes(broken)) == ["one", "two"]
    assert list(index(one={"type": "order.*"}, two={"where": "data.x == 1"}).routes(broken)) == ["one"]
