"""What `apply` refuses and warns of: where a webhook may go, and modules that are not there yet."""

from __future__ import annotations

from typing import Any

import pytest

from services.modules.inbox import make_inbox
from services.processes.gateway_lags import RouteLags
from services.processes.gateway_routes import ControlRoutes
from streams.bus.bus import Bus, connect
from streams.errors import InvalidDocument, NotFound
from streams.kafka import Kafka
from streams.routing import control
from streams.settings import Settings
from streams.topics import module_requests

pytestmark = pytest.mark.broker


def route(route_id: str, destination: dict[str, Any]) -> dict[str, Any]:
    return {"id": route_id, "match": {"type": "order.*"}, "destination": destination}


async def test_a_webhook_that_could_never_be_called_is_refused_and_leaves_nothing(bus: Bus) -> None:
    inner = route("inner", {"webhook": "https://169.254.169.254/latest"})
    ports = ControlRoutes(bus, RouteLags(bus))
    for attempt in (
        control.apply(bus, [route("copy", {"topic": "mplp.copies"}), inner], who="test"),
        control.plan(bus, [route("copy", {"topic": "mplp.copies"}), inner]),
        ports.apply([route("copy", {"topic": "mplp.copies"}), inner], who="test", why=""),
        ports.plan([route("copy", {"topic": "mplp.copies"}), inner]),
    ):
        with pytest.raises(InvalidDocument) as refused:
            await attempt
        assert [(fault.code, fault.pointer) for fault in refused.value.violations] == [
            ("webhook.address-refused", "/1/destination/webhook")
        ]

    assert await control.DOCUMENTS.all(bus) == []
    with pytest.raises(NotFound):
        await bus.publisher.partitions("mplp.copies")


async def test_a_setting_allows_it_and_without_the_setting_what_is_in_force_is_warned_of(bus: Bus, settings: Settings) -> None:
    open_to_us = settings.model_copy(update={"webhook_networks": "10.0.0.0/8"})
    async with connect(open_to_us) as other:
        applied = await control.apply(other, [route("inner", {"webhook": "http://10.0.0.1/"})], who="test")

    assert applied.warnings == ()
    shown = await ControlRoutes(bus, RouteLags(bus)).show("inner", None)
    assert [(each["code"], each["pointer"]) for each in shown["warnings"]] == [("webhook.address-refused", "/destination/webhook")]


async def test_a_module_that_never_started_is_warned_of_until_it_does(bus: Bus, kafka: Kafka) -> None:
    routes = [route("copy", {"topic": "mplp.copies"}), route("books", {"module": "books", "operation": "enter"})]
    planned = await control.plan(bus, routes)
    applied = await control.apply(bus, routes, who="test")
    ports = ControlRoutes(bus, RouteLags(bus))
    before = await ports.show("books", None)
    await make_inbox(kafka, module_requests("books"))
    after = await ports.show("books", None)

    told = [{"code": "module.unknown", "pointer": "/1/destination/module"}]
    for warnings in (planned.to_dict()["warnings"], applied.to_dict()["warnings"]):
        assert [{name: each[name] for name in ("code", "pointer")} for each in warnings] == told
    assert [(each["code"], each["pointer"]) for each in before["warnings"]] == [("module.unknown", "/destination/module")]
    assert after["warnings"] == []
    with pytest.raises(InvalidDocument) as refused:
        await control.apply(bus, [route("plans", {"module": "plan", "operation": "enter"})], who="test")
    assert [(fault.code, fault.pointer) for fault in refused.value.violations] == [("operation.unknown", "/destination/operation")]
