"""A path of a payload as a column: right for every value, at once and later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from services.history.blocks import Span
from services.history.promote import Progress, Promoter
from services.history.store import History
from streams.errors import BackboneError
from streams.records import SystemEvent
from streams.settings import Settings
from tests.integration.history.world import CODEC, fill

#: Values of one path, of every kind that JSON has.
VALUES: list[Any] = [3, 3.5, -1, 2**63, "4.5", "x", "", None, True, False, {"b": 1}, [1, 2], ["x", "y"], [], "2026-01-31T12:00:00.5Z"]
BASE_MS = 1_790_000_000_000


@pytest.fixture(scope="module")
async def history(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[History]:
    """The small history; tests put beside it what they need."""
    async with History(Settings(data_dir=tmp_path_factory.mktemp("promote"))) as history:
        await fill(history)
        yield history


@pytest.fixture(autouse=True)
async def clean(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """No test leaves a column to the next."""
    yield
    if "history" in request.fixturenames:
        promoter = Promoter(request.getfixturevalue("history"))
        for item in await promoter.promoted():
            await promoter.demote(item["path"], table=item["table"])


async def put(history: History, partition: int, first: int, payloads: list[Any]) -> None:
    records = [SystemEvent(id=f"r{partition}-{n}", type="t", source="s", data=data) for n, data in enumerate(payloads)]
    rows = [(first + n, BASE_MS, CODEC.encode(record)[5:]) for n, record in enumerate(records)]
    span = Span(topic="mplp.system.events", partition=partition, first=first, end=first + len(rows))
    await history.tables.insert(span, "system_events", rows, within_s=60)


async def column(history: History, name: str, partition: int) -> list[Any]:
    sql = f"SELECT {name} FROM system_events WHERE _partition = {partition} ORDER BY _offset"
    return [row[0] for row in (await history.query(sql)).rows()]


async def total(history: History) -> int:
    return int((await history.query("SELECT count() FROM system_events")).rows()[0][0])


#: What the column of each type has for `VALUES`.
EXPECTED: dict[str, list[Any]] = {
    "Float64": [3.0, 3.5, -1.0, 9223372036854776000, *[None] * 11],
    "Int64": [3, None, -1, None, *[None] * 11],
    "UInt64": [3, None, None, 2**63, *[None] * 11],
    "Bool": [*[None] * 8, True, False, *[None] * 5],
    "String": ["3", "3.5", "-1", str(2**63), "4.5", "x", "", None, "true", "false", None, None, None, None, "2026-01-31T12:00:00.5Z"],
    "LowCardinality(String)": ["3", "3.5", "-1", str(2**63), "4.5", "x", "", None, "true", "false", *[None] * 4, "2026-01-31T12:00:00.5Z"],
    "Array(String)": [*[[]] * 11, ["1", "2"], ["x", "y"], [], []],
    "Array(Int64)": [*[[]] * 11, [1, 2], [], [], []],
    "Array(Float64)": [*[[]] * 11, [1.0, 2.0], [], [], []],
}


async def test_a_value_of_another_type_is_no_value(history: History) -> None:
    promoter, count = Promoter(history), len(VALUES)
    await put(history, 5, 0, [{"v": value} for value in VALUES])
    for number, (kind, expected) in enumerate(EXPECTED.items(), start=1):
        done = await promoter.promote("data.v", table="system_events", type=kind)
        assert await column(history, done.column.name, 5) == expected * number, kind
        some = sum(1 for value in expected if value not in (None, []))
        unlike = sum(1 for value, found in zip(VALUES, expected, strict=True) if found in (None, []) and value not in (None, []))
        assert (done.values, done.unlike) == (some * number, unlike * number), kind
        await put(history, 5, count * number, [{"v": value} for value in VALUES])
        assert await column(history, done.column.name, 5) == expected * (number + 1), kind
        await promoter.demote("data.v", table="system_events")


async def test_the_type_of_the_stored_values_and_what_can_be_asked(history: History) -> None:
    promoter, told = Promoter(history), list[Progress]()
    done = await promoter.promote("data.amount", table="system_events", type=None, tell=told.append)
    assert done.to_dict() | {"seconds": 0} == {
        "table": "system_events", "column": "data_amount", "path": "data.amount", "type": "Float64", "index": "minmax", "created": True,
        "rows": await total(history), "values": 12, "unlike": 0, "seconds": 0,
    }  # fmt: skip
    assert told[0].phase == "type"
    assert told[-1].phase == "counting"
    types = {
        path: (await promoter.promote(f"data.{path}", table="system_events", type=None)).column.type
        for path in ("count", "customer.name", "customer.vip")
    }
    assert types == {"count": "Int64", "customer.name": "String", "customer.vip": "Bool"}
    sql = "SELECT sum(data_amount), countIf(data_customer_vip), max(data_count) FROM system_events WHERE data_customer_name != 'c1'"
    assert (await history.query(sql)).rows() == [[48.0, 4, 11]]
    described = {row["name"]: row for row in (await history.query("DESCRIBE system_events")).objects()}
    assert described["data_amount"] == {"name": "data_amount", "type": "Nullable(Float64)", "comment": "promoted from data.amount"}
    assert "data_amount" not in (await history.query("SELECT * FROM system_events LIMIT 1")).columns
    with pytest.raises(BackboneError) as unknown:
        await history.query("SELECT data_amout FROM system_events")
    assert "data_amount" in str(unknown.value.advice)


async def test_promoted_again_and_removed(history: History) -> None:
    promoter = Promoter(history)
    await promoter.promote("data.amount", table="system_events", type=None)
    for again in (None, "float64"):
        assert not (await promoter.promote("data.amount", table="system_events", type=again)).created
    (listed,) = await promoter.promoted()
    rows = await total(history)
    assert (listed["column"], listed["rows"], listed["rows_done"], listed["ready"]) == ("data_amount", rows, rows, True)
    with pytest.raises(BackboneError) as other:
        await promoter.promote("data.amount", table="system_events", type="String")
    assert other.value.code == "promote.other-type"
    await promoter.demote("data.amount", table="system_events")
    assert await promoter.promoted() == []
    with pytest.raises(BackboneError) as gone:
        await promoter.demote("data.amount", table="system_events")
    assert gone.value.code == "promote.unknown"
    assert (await promoter.promote("data.amount", table="system_events", type="String")).created


async def test_one_that_was_cut_off_is_finished(history: History) -> None:
    """As after a kill between adding the column and filling it: it is right at once, and promoted again it is filled."""
    from services.history.promote_sql import Column, add

    cut = Column(table="system_events", name="data_amount", path=("amount",), type="Float64")
    await history._keeper.run(lambda client: client.command(add(cut)))
    promoter = Promoter(history)
    (listed,) = await promoter.promoted()
    assert (listed["rows_done"], listed["ready"]) == (0, False)
    assert (await history.query("SELECT sum(data_amount) FROM system_events")).rows() == [[72.0]]
    assert not (await promoter.promote("data.amount", table="system_events", type=None)).created
    (listed,) = await promoter.promoted()
    assert (listed["rows_done"], listed["ready"]) == (await total(history), True)


async def test_odd_names_and_names_that_are_taken(history: History) -> None:
    await put(history, 6, 0, [{"text": "t", "unit price": 2, "it's": {"a.b": 3, "`\\{x:Int8}%s": 4}, "1": 5}])
    promoter = Promoter(history)
    paths = ["data.text", "data.`unit price`", "data.unit_price", 'data."it\'s"."a.b"', "data.`it's`.`\\`\\\\{x:Int8}%s`", "data.`1`"]
    found = [(await promoter.promote(path, table="system_events", type="String")).column.name for path in paths]
    assert found[:3] == ["data_text_2", "data_unit_price", "data_unit_price_2"]
    values = (await history.query(f"SELECT {', '.join(found)} FROM system_events WHERE _partition = 6")).rows()
    assert values == [["t", "2", None, "3", "4", "5"]]
    written = sorted(path.replace('"it\'s"', "`it's`").replace('"', "`") for path in paths)
    assert sorted(item["path"] for item in await promoter.promoted()) == written


@pytest.mark.parametrize(
    ("path", "table", "type_", "code"),
    [
        ("data.customer", "system_events", None, "promote.object"),
        ("data.items", "system_events", None, "promote.object"),
        ("data.nothing", "system_events", None, "promote.no-values"),
        ("data.amount", "system_event", None, "promote.table"),
        ("data.amount", "dead_letters", None, "promote.table"),
        ("data.amount", "executions", None, "promote.table"),
        ("data.amount", "system_events", "Json", "promote.type"),
        ("data.items[0].sku", "system_events", None, "promote.path"),
    ],
)
async def test_what_cannot_be_promoted(history: History, path: str, table: str, type_: str | None, code: str) -> None:
    with pytest.raises(BackboneError) as refused:
        await Promoter(history).promote(path, table=table, type=type_)
    assert refused.value.code == code
    if path == "data.customer":
        assert refused.value.advice == "It has data.customer.name, data.customer.vip."
    assert await Promoter(history).promoted() == []


async def test_a_payload_that_is_erased_is_gone_from_its_column(history: History) -> None:
    await Promoter(history).promote("data.amount", table="system_events", type=None)
    erase = "ALTER TABLE system_events UPDATE data_text = '{}' WHERE subject = 'customer-1' SETTINGS mutations_sync = 2"
    await history._keeper.run(lambda client: client.command(erase))
    assert (await history.query("SELECT count(data_amount) FROM system_events")).rows() == [[8]]


async def test_an_index_spares_reading(history: History) -> None:
    await put(history, 7, 0, [{"n": number} for number in range(30_000)])
    await Promoter(history).promote("data.n", table="system_events", type=None)
    sql = "SELECT count() FROM system_events WHERE data_n = 29999"
    answer = orjson.loads(await history._keeper.run(lambda client: client.raw_query(sql, fmt="JSON")))
    assert answer["data"] == [{"count()": 1}]
    assert answer["statistics"]["rows_read"] <= 2 * 8192
