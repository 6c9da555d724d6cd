"""Backtests over the real engine: what is pushed into SQL loses no record, pages lose and repeat none, and the rules say what they say."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.history.blocks import Span
from services.history.store import History
from streams.codec.avro import Codec, SchemaIds, to_json
from streams.correlation.backtest import Columns
from streams.correlation.backtesting import Progress, Running, chosen
from streams.correlation.chain import Chain
from streams.correlation.parse import parse_rule
from streams.correlation.rules import ActiveRule
from streams.errors import InvalidDocument, InvalidInput, NotFound, TooLarge
from streams.matching.matchers import RecordView
from streams.records import CompositeEvent, InputPosition, ModuleMessage, Record, SystemEvent, WorkflowTransition, to_micros
from streams.settings import Settings
from streams.topics import MESSAGES, SYSTEM_EVENTS, TRANSITIONS

T0 = datetime(2026, 3, 1, 23, 59, tzinfo=UTC)
TABLES = {SystemEvent: "system_events", WorkflowTransition: "workflow_transitions", ModuleMessage: "module_messages"}
CODEC = Codec(SchemaIds.local())


class Stored:
    """The history's columns as the gateway gives them; counts the questions."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.asked: list[str] = []
        self.too_many_rows = 10**9

    async def columns(self, sql: str, parameters: Mapping[str, Any], *, stale: bool = True) -> Columns:
        self.asked.append(sql)
        found: Columns = orjson.loads(await self.history.columns(sql, parameters))
        if "f_id" in found and len(found["f_id"]) > self.too_many_rows:
            raise TooLarge("sql.too-many-rows", "The answer is too large.")
        return found


@pytest.fixture(scope="module")
async def stored(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Stored, list[tuple[str, Record]]]]:
    settings = Settings(kafka_bootstrap="127.0.0.1:1", data_dir=Path(tmp_path_factory.mktemp("history")))
    async with History(settings) as history:
        records = made()
        places: dict[tuple[str, str], list[tuple[int, int, bytes]]] = defaultdict(list)
        for offset, (topic, record) in enumerate(records):
            body = CODEC.encode(record)[5:]
            places[topic, TABLES[type(record)]].append((offset, int(record.time.timestamp() * 1000), body))
        for (topic, table), rows in places.items():
            await history.tables.insert(Span(topic=topic, partition=0, first=0, end=len(records)), table, rows, within_s=60)
        yield Stored(history), records


def made() -> list[tuple[str, Record]]:
    """Records of several kinds, many at one instant, in the order of time and arrival."""
    chance = random.Random(5)
    found: list[tuple[str, Record]] = []
    time = T0
    for number in range(600):
        time += timedelta(seconds=chance.choice([0, 0, 1, 5]))
        customer = chance.choice(["ann", "bob", "çelik", 'q"uote', 7])
        kind = chance.choice(["order.failed", "order.paid", "order", "ordering.x", "other.thing"])
        data: Any = {"customer": customer, "kind": chance.choice(["card", "cash", "ca\\rd", "gift card"]), "ms": chance.randint(1, 50)}
        if chance.random() < 0.05:
            data = ["no", "object"]
        common: dict[str, Any] = {
            "id": f"e{number:04}",
            "source": chance.choice(["shop", "shop-2", "mail"]),
            "subject": f"s{number % 3}",
            "time": time,
            "data": data,
        }
        match chance.randrange(6):
            case 0:
                log = {
                    "aggregate_id": "x",
                    "sequence": number + 1,
                    "epoch": 1,
                    "input": InputPosition(topic="t", partition=1, offset=number),
                }
                found.append(
                    (
                        TRANSITIONS,
                        WorkflowTransition(
                            type="step.failed",
                            execution_id=f"x{number % 2}",
                            workflow_id="w",
                            status="running",
                            step_id=None,
                            **log,
                            **common,
                        ),
                    )
                )
            case 1:
                found.append(
                    (MESSAGES, ModuleMessage(type=kind, kind="request", source_module="core", operation="do-it", deadline=time, **common))
                )
            case 2:
                found.append((MESSAGES, SystemEvent(type=kind, severity="error", **common)))
            case _:
                found.append((SYSTEM_EVENTS, SystemEvent(type=kind, severity=chance.choice(["info", "error"]), **common)))
    return found


def rule(matchers: dict[str, Any], rule_id: str = "r", **correlation: Any) -> dict[str, Any]:
    of = {"type": "event_count", "timespan": "20s", "condition": {"gte": 2}, "events": list(matchers), **correlation}
    return {"id": rule_id, "events": matchers, "correlation": of}


RULES: dict[str, list[dict[str, Any]]] = {
    "a type": [rule({"a": {"type": "order.failed"}}, **{"group-by": ["data.customer"]})],
    "globs": [rule({"a": {"type": ["order.**", "step.*"], "source": "shop*"}})],
    "a glob takes its stem": [rule({"a": {"type": "order.**"}}, condition={"gte": 3})],
    "a required text": [rule({"a": {"where": 'data.kind == "card"'}}, **{"group-by": ["data.customer"]})],
    "a text with an escape": [rule({"a": {"where": "data.kind == 'ca\\\\rd'"}})],
    "severity, which some tables lack": [rule({"a": {"severity": ["error"]}})],
    "fields that some tables lack": [rule({"a": {"where": 'execution_id != "x0"'}}, **{"group-by": ["execution_id"]})],
    "several topics": [rule({"a": {"topic": [SYSTEM_EVENTS, MESSAGES, TRANSITIONS], "where": "data.ms > 10"}}, condition={"gte": 4})],
    "structured fields": [rule({"a": {"topic": TRANSITIONS, "where": "input.partition == 1 && sequence > 3"}})],
    "a time that is a field": [rule({"a": {"topic": MESSAGES, "where": "deadline > 0"}}, **{"group-by": ["operation"]})],
    "an absence": [
        rule({"a": {"type": "order.failed"}, "b": {"type": "order.paid"}}, type="absence", condition=None, **{"group-by": ["subject"]})
    ],
    "tumbling windows": [rule({"a": {"type": "order.*"}}, window="tumbling", condition={"field": "data.ms", "lt": 20}, type="value_avg")],
    "chaining": [
        rule({"a": {"type": "order.failed"}}, "below", **{"group-by": ["data.customer"]}),
        rule({"b": {"rule": "below"}}, "above", timespan="2m", condition={"gte": 3}),
    ],
}  # fmt: skip


def actives(documents: list[dict[str, Any]]) -> list[ActiveRule]:
    for document in documents:
        document["correlation"] = {name: value for name, value in document["correlation"].items() if value is not None}
    return [ActiveRule(rule=parse_rule(document), version=1, order=order) for order, document in enumerate(documents)]


def expected(documents: list[dict[str, Any]], records: list[tuple[str, Record]], since: datetime, until: datetime) -> list[dict[str, Any]]:
    """All records, none left out, through the engine."""
    chain = Chain(actives(documents))
    said: list[CompositeEvent] = []
    for number, (topic, record) in enumerate(sorted(records, key=lambda each: (each[1].time, each[0], each[1].id)), 1):
        if not since <= record.time < until:
            continue
        _, plain = CODEC.decode_raw(CODEC.encode(record))
        said += chain.advance(to_micros(record.time))
        said += chain.record(topic, RecordView(plain), number)
    said += [*chain.flush(), *chain.flush(), *chain.finish(to_micros(until))]
    return [to_json(each) for each in said]


@pytest.mark.parametrize(("name", "page"), [*((name, 50_000) for name in RULES), ("several topics", 25), ("chaining", 25)])
async def test_a_backtest_says_what_the_rules_say_of_all_records(
    stored: tuple[Stored, list[tuple[str, Record]]], name: str, page: int
) -> None:
    history, records = stored
    since, until = T0 + timedelta(minutes=2), T0 + timedelta(minutes=14)
    running = Running(history, actives(RULES[name]), since, until, page=page)
    said = [to_json(each) async for each in running.composites()]
    wanted = expected(RULES[name], records, since, until)
    assert said == wanted
    assert said, "a rule that says nothing shows nothing"
    summary = running.summary.to_dict()
    assert sum(each["composites"] for each in summary["rules"].values()) == len(wanted)
    assert 0 < summary["read"] <= summary["records"] <= 600
    assert all(sum(each["days"].values()) == each["composites"] for each in summary["rules"].values())


async def test_only_what_can_matter_is_read(stored: tuple[Stored, list[tuple[str, Record]]]) -> None:
    history, records = stored
    running = Running(history, actives(RULES["a type"]), T0, T0 + timedelta(days=1))
    assert [each async for each in running.composites()]
    of_type = [record for topic, record in records if record.type == "order.failed" and topic == SYSTEM_EVENTS]
    assert running.summary.read == len(of_type)
    assert running.summary.looked_at == sum(1 for topic, _ in records if topic in (SYSTEM_EVENTS, TRANSITIONS))


async def test_answers_that_are_too_large_are_asked_for_in_smaller_pages(stored: tuple[Stored, list[tuple[str, Record]]]) -> None:
    history, records = stored
    wanted = expected(RULES["globs"], records, T0, T0 + timedelta(days=1))
    small = Stored(history.history)
    small.too_many_rows = 40
    told: list[Progress] = []
    running = Running(small, actives(RULES["globs"]), T0, T0 + timedelta(days=1), page=600, progress=told.append)
    assert [to_json(each) async for each in running.composites()] == wanted
    assert [each.read for each in told] == sorted({each.read for each in told})
    assert (told[-1].read, told[-1].of) == (running.summary.read, running.summary.read)


async def test_rules_that_others_read_run_along_in_silence(stored: tuple[Stored, list[tuple[str, Record]]]) -> None:
    history, records = stored
    below, above = actives(RULES["chaining"])
    running = Running(history, [above], T0, T0 + timedelta(days=1), silent=[below])
    said = [to_json(each) async for each in running.composites()]
    wanted = [each for each in expected(RULES["chaining"], records, T0, T0 + timedelta(days=1)) if each["rule_id"] == "above"]
    assert said == wanted
    assert list(running.summary.rules) == ["above"]


async def test_what_cannot_be_asked_is_refused(stored: tuple[Stored, list[tuple[str, Record]]]) -> None:
    history, _ = stored
    with pytest.raises(InvalidInput) as empty:
        Running(history, actives(RULES["a type"]), T0, T0)
    assert empty.value.code == "period.empty"
    with pytest.raises(InvalidDocument) as lacking:
        Running(history, actives([rule({"a": {"topic": "my.topic"}})]), T0, T0 + timedelta(days=1))
    assert [(fault.code, fault.pointer) for fault in lacking.value.violations] == [("backtest.topic-not-kept", "/events/a/topic")]
    with pytest.raises(NotFound, match="no rule 'other'"):
        chosen([], ["other"], [])
    with pytest.raises(NotFound, match="no rule 'below'"):
        chosen([RULES["chaining"][1]], [], [])


async def test_a_period_without_records_says_nothing(stored: tuple[Stored, list[tuple[str, Record]]]) -> None:
    history, _ = stored
    running = Running(history, actives(RULES["an absence"]), T0 + timedelta(days=5), T0 + timedelta(days=6))
    assert [each async for each in running.composites()] == []
    assert (running.summary.looked_at, running.summary.read) == (0, 0)
