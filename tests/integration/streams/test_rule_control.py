"""Rules on a real control topic: several people change them at once, nothing repeats and nothing is forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streams.bus.bus import Bus
from streams.codec.avro import Codec
from streams.correlation import control
from streams.errors import InvalidDocument, NotFound
from streams.kafka import Kafka
from streams.topics import CONTROL_RULES
from tests.integration.streams.workers import count_rule

pytestmark = pytest.mark.broker


def titled(title: str, rule_id: str = "count", **more: Any) -> dict[str, Any]:
    return {**count_rule(rule_id), "title": title, **more}


async def test_versions_of_concurrent_changes_never_repeat(bus: Bus, kafka: Kafka, codec: Codec) -> None:
    buses = [Bus(kafka, codec) for _ in range(6)]
    try:
        reports = await asyncio.gather(*(control.apply(each, [titled(f"by {n}")], f"p{n}") for n, each in enumerate(buses)))
    finally:
        for each in buses:
            await each.close()
    assert sorted(rule.version for report in reports for rule in report.documents) == [1, 2, 3, 4, 5, 6]
    by_offset = [rule.version for report in sorted(reports, key=lambda report: report.offset or 0) for rule in report.documents]
    assert by_offset == [1, 2, 3, 4, 5, 6]
    kept = await control.history(bus, "count")
    assert [(each.version, each.in_force) for each in kept] == [(n, n == 6) for n in range(1, 7)]
    assert {(each.who, each.document["title"]) for each in kept} == {(f"p{n}", f"by {n}") for n in range(6)}
    told = [event.data["version"] for event in await bus.history(source="mplp/rules")]
    assert sorted(told) == [1, 2, 3, 4, 5, 6]


async def test_several_rules_change_together_or_not_at_all(bus: Bus) -> None:
    with pytest.raises(InvalidDocument) as refused:
        await control.apply(bus, [titled("good"), {**titled("bad", "other"), "severity": "loud"}], "ann")
    assert [violation.pointer for violation in refused.value.violations] == ["/1/severity"]
    assert await control.list_rules(bus) == []
    await control.apply(bus, [titled("a"), titled("b", "other")], "ann")
    assert [stored.record.id for stored in await control.list_rules(bus)] == ["count", "other"]


async def test_what_a_change_would_do_is_said_and_nothing_is_written(bus: Bus) -> None:
    await control.apply(bus, [titled("one")], "ann")
    before = await _records(bus)
    (change,) = await control.plan(bus, [titled("two")])
    assert (change.kind, change.version) == ("changed", 2)
    assert {"-title: one", "+title: two"} <= set(change.diff().splitlines())
    assert await _records(bus) == before


async def test_an_older_version_is_found_and_comes_back(bus: Bus) -> None:
    await control.apply(bus, [titled("one")], "ann", "begin")
    await control.apply(bus, [titled("two")], "bob", "better")
    one = await control.version(bus, "count", 1)
    report = await control.apply(bus, [one.document], "bob", "it was not")
    assert [(rule.version, rule.changed) for rule in report.documents] == [(3, True)]
    assert [(each.document["title"], each.who, each.why) for each in await control.history(bus, "count")] == [
        ("one", "ann", "begin"),
        ("two", "bob", "better"),
        ("one", "bob", "it was not"),
    ]
    with pytest.raises(NotFound, match="there are 1, 2, 3"):
        await control.version(bus, "count", 4)
    with pytest.raises(NotFound) as unknown:
        await control.history(bus, "other")
    assert unknown.value.code == "rule.unknown"


async def test_only_the_version_that_was_judged_is_disabled(bus: Bus) -> None:
    await control.apply(bus, [titled("one")], "ann")
    await control.apply(bus, [titled("two")], "ann")
    assert not await control.disable(bus, "count", 1, "worker-1", "1.2 s per record")
    assert await control.disable(bus, "count", 2, "worker-1", "1.2 s per record")
    assert not await control.disable(bus, "count", 3, "worker-1", "again")
    stored = await control.show(bus, "count")
    assert (stored.record.version, stored.document["enabled"], stored.record.who) == (3, False, "worker-1")
    assert [rule.version for rule in (await control.apply(bus, [titled("two")], "ann")).documents] == [4]
    (event,) = await bus.history(type="rule.disabled")
    assert event.data == {"id": "count", "version": 3, "who": "worker-1", "why": "1.2 s per record"}


async def _records(bus: Bus) -> list[tuple[str, int]]:
    return [(delivered.record.id, delivered.offset) async for delivered in bus.read(CONTROL_RULES, since="beginning", until_end=True)]
