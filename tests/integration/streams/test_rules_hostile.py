"""Records that no sane producer sends, straight into the topic, past every check at the door: workers go on, and what they say is right."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from streams.bus.bus import Bus
from streams.codec.avro import Codec
from streams.correlation import control
from streams.correlation.tallies import Tally
from streams.correlation.workers import living
from streams.kafka import Kafka
from streams.records import SystemEvent, new_id, now, to_micros
from streams.settings import Settings
from streams.topics import SYSTEM_EVENTS
from tests.integration.streams.workers import assert_gapless, composites, count_rule, wait_for_composites, worker

pytestmark = pytest.mark.broker


def rule(rule_id: str, type_: str, where: str | None = None, **correlation: Any) -> dict[str, Any]:
    made = count_rule(rule_id, grace="3s", **correlation)
    made["events"]["failed"] = {"type": type_} | ({} if where is None else {"where": where})
    return made


RULES = [
    rule("count", "order.failed"),
    rule("spent", "order.paid", type="value_sum", condition={"field": "data.amount", "gte": 100}),
    rule("picky", "order.paid", "data.amount > 60.0", condition={"gte": 1}),
    rule("settled", "order.failed", output="final", timespan="2s", condition={"gte": 2}),
]
#: Payloads under which nobody is "ann" or pays anything, though each would like to.
PAYLOADS = (
    "{", "", "null", "[]", '"ann"', '{"customer":"ann","amount":NaN}', '{"customer":"ann","amount":1e999}', '{"customer":null,"amount":90}',
    '{"customer":"ann\\ud800","amount":90}', '{"amount":90}', "[" * 3000 + "]" * 3000,
    '{"customer":"ann","amount":' + "9" * 400 + "x}",
)  # fmt: skip
#: What ann pays that is no number.
NO_NUMBERS = ('"90"', "true", "null", "[90]", '{"is":90}')
BEGINNING, END = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)


def raw(codec: Codec, type_: str, data: str, time: datetime) -> bytes:
    """An event as a producer of its own would write it."""
    plain = {
        "id": new_id(), "type": type_, "source": "elsewhere", "subject": "", "time": to_micros(time), "tenant": "default",
        "correlation_id": "", "causation_id": None, "data": data, "severity": "info", "aggregate_id": None, "sequence": None,
        "epoch": None, "input": None,
    }  # fmt: skip
    return codec.encode_raw("SystemEvent", plain)


def hostile(codec: Codec) -> list[bytes | None]:
    """One of each."""
    at = now()
    whole = raw(codec, "order.failed", '{"customer":"ann"}', at)
    found: list[bytes | None] = [None, b"", b"garbage", b"\0\0\0\xff\xff\x01", whole[:9], whole[:-2], b"\0" * 20, b"\xff" * 300]
    for type_ in ("order.failed", "order.paid"):
        found += [raw(codec, type_, payload, at) for payload in PAYLOADS]
    found += [raw(codec, "order.paid", f'{{"customer":"ann","amount":{value}}}', at) for value in NO_NUMBERS]
    found += [raw(codec, "order.failed", '{"customer":"ann"}', time) for time in (BEGINNING, END, at - timedelta(days=30))]
    return found


async def told(bus: Bus, holds: Callable[[dict[str, Tally]], bool]) -> dict[str, Tally]:
    tallies: dict[str, Tally] = {}
    try:
        async with asyncio.timeout(180):
            while not holds(tallies := {each["id"]: Tally() for each in RULES} | (await living(bus))[1]):
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"the figures are {tallies}") from None
    return tallies


def event(type_: str, customer: str, subject: str, **data: Any) -> SystemEvent:
    return SystemEvent(type=type_, source="shop", subject=subject, data={"customer": customer, **data})


async def test_nothing_that_is_thrown_at_a_worker_changes_what_it_says(settings: Settings, bus: Bus, kafka: Kafka, codec: Codec) -> None:
    async with worker(settings):
        await control.apply(bus, RULES, who="test")
        await bus.publish([event("order.failed", "warm", f"s{number}") for number in range(2)])
        await wait_for_composites(bus, 1)  # of `settled`: event time is known
        sane = [event("order.failed", "ann", "s1"), event("order.paid", "ann", "s2", amount=50)]
        await bus.publish(sane)
        async with kafka.producer() as producer:
            for partition in range(settings.partitions):
                for value in hostile(codec):
                    await producer.send(kafka.names.physical(SYSTEM_EVENTS), key=b"k", value=value, partition=partition)
            await producer.flush()
        more = [event("order.failed", "ann", "s3"), event("order.failed", "ann", "s4"), event("order.paid", "ann", "s5", amount=50.5)]
        await bus.publish(more)
        await wait_for_composites(bus, 3)
        # Event time goes on, also in partitions that have seen the year 9999: what waits for it is said.
        tallies = await told(bus, lambda found: found["settled"].composites == 2 and found["count"].late >= 2 * settings.partitions)
        said = await composites(bus)
    assert sorted(composite.rule_id for composite in said) == ["count", "settled", "settled", "spent"]
    by_rule = {composite.rule_id: composite for composite in said}
    ids = [each.id for each in (*sane, *more)]
    assert set(by_rule["count"].event_ids) == {ids[0], ids[2], ids[3]}
    assert set(by_rule["spent"].event_ids) == {ids[1], ids[4]}
    assert orjson.loads(orjson.dumps(by_rule["spent"].data))["value"] == 100.5
    assert_gapless(said)
    times = settings.partitions
    assert (tallies["count"].late, tallies["count"].ahead, tallies["count"].matched) == (2 * times, times, 5 + 2 * times)
    assert tallies["picky"].errors >= len(NO_NUMBERS) * times
    assert tallies["picky"].composites == 0


async def test_last_months_events_in_a_quiet_partition_are_late_beside_live_ones_and_hold_nothing_up(settings: Settings, bus: Bus) -> None:
    async with worker(settings):
        await control.apply(bus, RULES, who="test")
        await bus.publish([event("order.failed", "ann", f"s{number}") for number in range(40)])  # in every partition
        await wait_for_composites(bus, 13)
        await asyncio.sleep(1.5)  # the partitions are idle now: event time goes on by itself
        old = [
            SystemEvent(type="order.failed", source="shop", subject="s1", time=now() - timedelta(days=30), data={"customer": "old"})
            for _ in range(5)
        ]
        await bus.publish(old)
        await bus.publish([event("order.failed", "bob", f"s{number}") for number in range(3)])
        tallies = await told(bus, lambda found: found["count"].late == 5 and found["settled"].late == 5)
        async with asyncio.timeout(180):
            while len(groups := {(each.rule_id, each.group_key["data.customer"]) for each in await composites(bus)}) < 4:
                await asyncio.sleep(0.2)
    assert groups == {("count", "ann"), ("count", "bob"), ("settled", "ann"), ("settled", "bob")}
    assert tallies["count"].late_by_us > 29 * 86_400 * 1_000_000
    assert set(tallies["count"].late_ids) == {each.id for each in old}


async def test_last_months_events_into_idle_partitions_are_not_late(settings: Settings, bus: Bus) -> None:
    begin = now() - timedelta(days=30)

    def failed(customer: str, second: int, subject: str) -> SystemEvent:
        return SystemEvent(
            type="order.failed", source="shop", subject=subject, time=begin + timedelta(seconds=second), data={"customer": customer}
        )

    async with worker(settings):
        acting = {**RULES[0], "actions": [{"emit": "order.trouble"}]}  # which happens now, and must make nothing late
        await control.apply(bus, [acting, *RULES[1:]], who="test")
        for second in range(0, 60, 3):
            await bus.publish([failed(f"c{second // 9}", second + n, f"s{n}") for n in range(3)])
            if second == 30:
                async with asyncio.timeout(180):
                    await anext(bus.subscribe(SYSTEM_EVENTS, since="beginning", type="order.trouble"))
                await asyncio.sleep(1.5)  # all partitions are idle for a while
        tallies = await told(bus, lambda found: found["count"].matched == 60 and found["count"].waiting == 0)
        last = {composite.id: composite for composite in await composites(bus) if composite.rule_id == "count"}
    assert (tallies["count"].late, tallies["settled"].late) == (0, 0)
    assert sum(not composite.retracted for composite in last.values()) == 20
