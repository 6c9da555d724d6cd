"""Actions of rules on the real stack: events, executions, signals and webhooks, whatever happens to the worker and the receivers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from streams import limits
from streams.bus import Bus
from streams.codec.avro import Codec
from streams.correlation import control
from streams.correlation.intentions import key_of
from streams.kafka import Kafka
from streams.records import CompositeEvent, Delivery, SystemEvent, derived_id
from streams.settings import Settings
from streams.topics import COMPOSITES, DELIVERIES, SYSTEM_EVENTS, TRANSITIONS
from tests.integration.orchestrator.cores import core
from tests.integration.streams.workers import composites, count_rule, wait_for_composites, worker
from tests.raw_records import raw_records
from tests.unit.streams.webhooks.receiver import Request, answer, in_turn, receiver

pytestmark = pytest.mark.broker


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLP_WEBHOOK_RETRY_MS", "20")
    monkeypatch.setenv("MPLP_WEBHOOK_ATTEMPTS", "4")


def acting(rule_id: str, *actions: Any, **correlation: Any) -> dict[str, Any]:
    """Fires at every `order.failed`."""
    made = count_rule(rule_id, condition={"gte": 1}, **correlation)
    return {**made, "actions": list(actions)}


def failed(customer: str) -> SystemEvent:
    return SystemEvent(
        type="order.failed", source="shop", subject=customer, correlation_id=f"story-{customer}", data={"customer": customer}
    )


async def first(bus: Bus, topic: str, wanted: Callable[[Any], bool], count: int = 1, **select: Any) -> list[Any]:
    """The first records of a topic that are wanted."""
    found = []
    async with asyncio.timeout(180):
        async for delivered in bus.read(topic, since="beginning", **select):
            if wanted(delivered.record):
                found.append(delivered.record)
                if len(found) == count:
                    break
    return found


async def deliveries(bus: Bus, route: str, *, until: str, count: int = 1) -> list[Delivery]:
    """The deliveries of a route, until `count` of them have this status."""
    found: list[Delivery] = []
    await first(bus, DELIVERIES, lambda each: each.route_id == route and (found.append(each) or each.status == until), count)
    return found


WAITING = {
    "id": "review", "name": "review", "output": {"got": "${input.customer}", "told": "${s.result.why}"},
    "steps": [{"id": "s", "type": "signal", "name": "go"}],
}  # fmt: skip


async def test_a_composite_emits_starts_signals_and_calls(kafka: Kafka, codec: Codec, bus: Bus, settings: Settings) -> None:
    async with receiver(answer()) as server, worker(settings), core(kafka, codec, "one"):
        await bus.apply_workflow(WAITING)
        waiting = await bus.start_workflow("review", {"customer": "someone"}, execution_id="waiting")
        actions = [
            {"emit": "order.trouble"}, {"start-workflow": {"id": "review", "input": {"customer": "{{group[\"data.customer\"]}}"}}},
            {"signal-workflow": {"execution": waiting, "name": "go", "data": {"why": "{{events[0].data.customer}}"}}},
            {"webhook": f"http://127.0.0.1:{server.port}/in"},
        ]  # fmt: skip
        await control.apply(bus, [acting("trouble", *actions)], who="test")
        event = failed("ann")
        await bus.publish(event)
        (composite,) = await wait_for_composites(bus, 1)

        (emitted,) = await first(bus, SYSTEM_EVENTS, lambda each: each.type == "order.trouble")
        assert (emitted.id, emitted.causation_id, emitted.correlation_id) == (key_of(composite.id, 0), composite.id, "story-ann")
        assert emitted.data == composite.data
        assert emitted.subject == composite.subject

        execution = key_of(composite.id, 1)
        (started,) = await first(bus, TRANSITIONS, lambda each: each.type == "execution.started" and each.execution_id == execution)
        assert (started.data["input"], started.data["trigger_depth"], started.data["by"]) == ({"customer": "ann"}, 1, "rule trouble")
        assert started.correlation_id == "story-ann"
        (ended,) = await first(bus, TRANSITIONS, lambda each: each.type == "execution.completed" and each.execution_id == waiting)
        assert ended.data["output"] == {"got": "someone", "told": "ann"}

        (told,) = await deliveries(bus, "trouble/3", until="delivered")
        assert (told.event_id, told.destination, told.attempt) == (composite.id, f"http://127.0.0.1:{server.port}/in", 1)
        for index, destination in enumerate((SYSTEM_EVENTS, "workflow review", f"execution {waiting}")):
            (row,) = await deliveries(bus, f"trouble/{index}", until="delivered")
            assert row.destination == destination
    (request,) = server.requests
    assert request.headers["idempotency-key"] == key_of(composite.id, 3)
    assert f'"id":"{composite.id}"'.encode() in request.body


async def test_receivers_that_fail_are_tried_again_and_dead_ones_end_among_the_dead_letters(
    bus: Bus, kafka: Kafka, settings: Settings
) -> None:
    slow_down = answer(429, retry_after="1")
    flaky_ones, redirects = in_turn(answer(500), slow_down, answer()), answer(307, location="http://x/")
    async with receiver(flaky_ones) as flaky, receiver(redirects) as moved, receiver(answer(503)) as dead, worker(settings):
        rules = [
            acting("flaky", {"webhook": f"http://127.0.0.1:{flaky.port}/"}), acting("dead", {"webhook": f"http://127.0.0.1:{dead.port}/"}),
            acting("moved", {"webhook": f"http://127.0.0.1:{moved.port}/"}), acting("private", {"webhook": "https://10.0.0.1/"}),
            acting("broken", {"emit": "{{events[7].id}}"}), acting("fine", {"emit": "order.fine"}),
        ]  # fmt: skip
        await control.apply(bus, rules, who="test")
        await bus.publish(failed("ann"))
        await first(bus, SYSTEM_EVENTS, lambda each: each.type == "order.fine")
        told = {rule: await deliveries(bus, f"{rule}/0", until="dead") for rule in ("dead", "moved", "private", "broken")}
        told["flaky"] = await deliveries(bus, "flaky/0", until="delivered")
        reports = await first(bus, SYSTEM_EVENTS, lambda each: each.type == "rule.action-failed", 4)
    assert [row.status for row in told["flaky"]] == ["retrying", "retrying", "delivered"]
    assert len({request.headers["webhook-id"] for request in flaky.requests}) == 1
    assert (told["flaky"][2].time - told["flaky"][1].time).total_seconds() >= 1.0  # it was asked to wait
    assert [row.status for row in told["dead"]] == ["retrying"] * 3 + ["dead"]
    codes = {rule: [row.data["code"] for row in rows if row.status == "dead"] for rule, rows in told.items()}
    assert codes == {
        "dead": ["webhook.failed"], "moved": ["webhook.redirected"], "private": ["webhook.address-refused"],
        "broken": ["action.unrendered"], "flaky": [],
    }  # fmt: skip
    assert {report.data["rule"]: report.data["code"] for report in reports} == {
        rule: found[0] for rule, found in codes.items() if rule != "flaky"
    }
    letters = [dict(letter.headers) for letter in await raw_records(kafka, f"{COMPOSITES}.dlq", 4)]
    assert {letter["mplp.errors.route"].decode(): letter["__streams.errors.exception"].decode() for letter in letters} == {
        f"{rule}/0": found[0] for rule, found in codes.items() if rule != "flaky"
    }


async def test_whoever_is_killed_between_a_composite_and_its_actions_is_succeeded_by_one_who_performs_them(
    kafka: Kafka, codec: Codec, bus: Bus, settings: Settings
) -> None:
    held = asyncio.Event()

    async def hold(_: Request, writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.write(b"HTTP/1.1 204 x\r\n\r\n")

    finished = {"id": "noted", "name": "noted", "steps": [{"id": "s", "type": "transform", "value": "1"}]}
    async with receiver(hold) as server, core(kafka, codec, "one"), worker(settings) as process:
        await bus.apply_workflow(finished)
        actions = [{"emit": "order.trouble"}, {"start-workflow": {"id": "noted"}}, {"webhook": f"http://127.0.0.1:{server.port}/"}]
        await control.apply(bus, [acting("trouble", *actions)], who="test")
        groups = 30
        for number in range(groups):
            await bus.publish(failed(f"c{number}"))
            if number == 12:
                await process.kill()
                await process.start()
        found = await wait_for_composites(bus, groups)
        while not server.under_way:
            await asyncio.sleep(0.01)
        await process.kill()  # calls are under way: nobody knows what became of them
        held.set()
        await process.start()
        wanted = {(composite.id, index) for composite in found for index in range(3)}
        done: set[tuple[str, int]] = set()

        def all_done(row: Delivery) -> bool:
            if row.status == "delivered":
                done.add((row.event_id, int(row.route_id.partition("/")[2])))
            return done >= wanted

        await first(bus, DELIVERIES, all_done)
        called = len(server.requests)
        await process.kill()  # perhaps before a checkpoint knows what was done: the deliveries do
        await process.start()
        await bus.publish(failed("last"))
        (last,) = [composite for composite in await wait_for_composites(bus, groups + 1) if composite not in found]
        await first(bus, DELIVERIES, lambda row: row.event_id == last.id and row.route_id == "trouble/2" and row.status == "delivered")
        assert len(server.requests) == called + 1
        found.append(last)
        groups += 1
        started = await first(bus, TRANSITIONS, lambda each: each.type == "execution.started", groups)
        emitted = [each.record async for each in bus.read(SYSTEM_EVENTS, type="order.trouble", since="beginning", until_end=True)]
        begun = [each.record async for each in bus.read(TRANSITIONS, type="execution.started", since="beginning", until_end=True)]
        said: list[CompositeEvent] = await composites(bus)
    assert Counter(composite.id for composite in said) == Counter(composite.id for composite in found)
    assert {event.id for event in emitted} == {key_of(composite.id, 0) for composite in found}
    assert len({(event.id, event.time) for event in emitted}) == groups  # repeats are the same records
    assert Counter(each.execution_id for each in begun) == Counter(key_of(composite.id, 1) for composite in found)
    assert len(started) == groups
    assert {request.headers["idempotency-key"] for request in server.requests} == {key_of(composite.id, 2) for composite in found}


async def test_a_rule_that_reads_what_it_brings_about_is_stopped(kafka: Kafka, codec: Codec, bus: Bus, settings: Settings) -> None:
    again = {"id": "again", "name": "again", "steps": [{"id": "s", "type": "transform", "value": "1"}]}
    echo = acting("echo", {"emit": "order.failed.again"})
    echo["events"]["failed"] = {"type": "order.failed.**"}
    echo["correlation"].pop("group-by")
    restart = {
        "id": "restart", "events": {"ended": {"type": "execution.completed"}},
        "correlation": {"type": "event_count", "group-by": ["execution_id"], "timespan": "1m", "condition": {"gte": 1}},
        "actions": [{"start-workflow": {"id": "again"}}],
    }  # fmt: skip
    async with worker(settings), core(kafka, codec, "one"):
        await bus.apply_workflow(again)
        await control.apply(bus, [echo, restart], who="test")
        await bus.publish(failed("ann"))
        await bus.start_workflow("again", {})
        stopped = await first(bus, SYSTEM_EVENTS, lambda each: each.type == "rule.loop-stopped", 2)
        dead = (await deliveries(bus, "restart/0", until="dead"))[-1]
        emitted = [each.record async for each in bus.read(SYSTEM_EVENTS, type="order.failed.again", since="beginning", until_end=True)]
        begun = [each.record async for each in bus.read(TRANSITIONS, type="execution.started", since="beginning", until_end=True)]
    assert {event.data["rule"]: (event.data["code"], event.data["depth"]) for event in stopped} == dict.fromkeys(
        ("echo", "restart"), ("rule.loop", limits.TRIGGER_DEPTH_MAX)
    )
    assert len(emitted) == limits.TRIGGER_DEPTH_MAX
    assert sorted(each.data.get("trigger_depth", 0) for each in begun) == list(range(limits.TRIGGER_DEPTH_MAX + 1))
    assert dead.data["code"] == "rule.loop"
    assert derived_id("action", dead.event_id, 0) == dead.data["key"]


async def test_a_circle_through_a_rule_that_reads_composites_is_stopped_too(bus: Bus, settings: Settings) -> None:
    seen = count_rule("seen", condition={"gte": 1})
    seen["events"]["failed"] = {"type": "order.failed.**"}
    echo = {
        "id": "echo", "events": {"seen": {"rule": "seen"}}, "actions": [{"emit": "order.failed.again"}],
        "correlation": {"type": "event_count", "group-by": ["data.count"], "timespan": "1m", "condition": {"gte": 1}},
    }  # fmt: skip
    seen["correlation"].pop("group-by")
    async with worker(settings):
        await control.apply(bus, [seen, echo], who="test")
        await bus.publish(failed("ann"))
        (stopped,) = await first(bus, SYSTEM_EVENTS, lambda each: each.type == "rule.loop-stopped")
        emitted = [each.record async for each in bus.read(SYSTEM_EVENTS, type="order.failed.again", since="beginning", until_end=True)]
    assert (stopped.data["rule"], stopped.data["depth"]) == ("echo", limits.TRIGGER_DEPTH_MAX)
    assert len(emitted) == limits.TRIGGER_DEPTH_MAX
