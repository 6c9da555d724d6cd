"""A destination that several routes and source partitions lead to is down for all of them, and is told once of each route."""

from __future__ import annotations

import pytest

from services.gateway.route_metrics import RouteCollector
from streams.bus import Bus
from streams.codec.avro import Codec
from streams.kafka import Kafka
from streams.records import SystemEvent
from streams.routing import breaker, control, lateness
from streams.routing.lag import Lag, lag
from tests.integration.streams.route_parts import part
from tests.integration.streams.test_route_changes import EVERY, PATIENT, Hook, named, publish, route, told, until
from tests.unit.streams.webhooks.receiver import receiver

pytestmark = pytest.mark.broker


async def events_of(bus: Bus, kind: str) -> list[SystemEvent]:
    return [event for event in await bus.history(type=kind) if isinstance(event, SystemEvent)]


def metric(found: Lag) -> float:
    """What Prometheus gets to see."""
    (family,) = [
        family for family in RouteCollector(lambda: {"first": found.to_dict()}).collect() if family.name == "mplp_route_destination_down"
    ]
    (sample,) = family.samples
    return sample.value


async def test_routes_and_partitions_that_lead_to_one_place_find_it_down_together_and_well_together(
    bus: Bus, kafka: Kafka, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "PAUSE_MS", 300)
    monkeypatch.setattr(breaker, "KEYS_MAX", 20)
    hook = Hook()
    hook.down = True
    async with receiver(hook) as server, part(kafka, codec) as worker:
        eager = {**PATIENT, "initial-interval": 1}
        await control.apply(bus, [route(server.port, "first", retry=eager), route(server.port, "second", retry=eager)], who="test")
        await until(lambda: worker.part.topics)
        await worker.holds(EVERY, 1)
        await publish(bus, 0, 400, named)
        await told(bus, "route.destination-down", "first")
        await told(bus, "route.destination-down", "second")
        calls = hook.calls
        await until(lambda: hook.calls >= calls + 4)  # it is tried again, and does not count as down anew
        down = await lag(bus, "first")
        while down.down is None:  # it is written down twice a second
            down = await lag(bus, "first")
        hook.down = False
        await until(lambda: hook.count >= 800)
        await told(bus, "route.destination-up", "first")
        await told(bus, "route.destination-up", "second")
        well = await lag(bus, "second")
        while well.down is not None or well.records:
            well = await lag(bus, "second")
        fell, rose = await events_of(bus, "route.destination-down"), await events_of(bus, "route.destination-up")

    assert sorted(event.subject for event in fell) == sorted(event.subject for event in rose) == ["first", "second"]
    assert {event.data["destination"] for event in fell + rose} == {f"http://127.0.0.1:{server.port}/"}
    assert {event.data["error"] for event in fell + rose} == {"webhook.failed: HTTP 503"}
    assert all(event.data["seconds"] > 0 for event in rose)
    assert (down.down.error, metric(down), metric(well)) == ("webhook.failed: HTTP 503", 1.0, 0.0)
    assert down.down.since_ms < down.down.next_ms


async def test_a_route_that_has_room_for_what_comes_but_no_turn_for_it_is_told_once(
    bus: Bus, kafka: Kafka, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lateness, "LATE_MS", 200)
    slow = Hook()
    slow.open.clear()
    async with receiver(slow) as server, part(kafka, codec) as worker:
        await control.apply(bus, [route(server.port, "slow")], who="test")
        await until(lambda: worker.part.topics)
        await worker.holds(EVERY, 1)
        await publish(bus, 0, 400, named)
        await told(bus, "route.fell-behind", "slow")
        slow.open.set()
        await until(lambda: slow.count >= 400)
        await told(bus, "route.caught-up", "slow")
        fell, rose = await events_of(bus, "route.fell-behind"), await events_of(bus, "route.caught-up")

    assert [(event.subject, event.severity) for event in fell + rose] == [("slow", "warning"), ("slow", "info")]
    assert fell[0].data["seconds"] >= 0.2
    assert 0 < fell[0].data["records"] <= 400
