"""Changing the routes in force: `streams.control.documents`, for routes, and the topics that they need."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError

from streams import limits
from streams.bus.publisher import translated
from streams.control.changes import Change
from streams.control.documents import APPLY_TIMEOUT_S, Documents, Report
from streams.control.kinds import ROUTES
from streams.errors import InvalidDocument, Violation
from streams.operations import CONTRACT
from streams.records import Json
from streams.routing.parse import parse_route, validate
from streams.routing.routes import Route, ToModule, ToTopic, ToWebhook
from streams.topics import FOREVER, REQUESTS, module_requests
from streams.topics_apply import WantedTopic, create_topics
from streams.webhooks.addresses import Network, refusal_of

if TYPE_CHECKING:
    from streams.bus.bus import Bus


def check(documents: Sequence[Json], in_force: Sequence[Json] = (), allowed: Sequence[Network] | None = None) -> None:
    """Raises `InvalidDocument` (`route.invalid`) with all faults of all documents; of several, pointers begin with the index.

    `allowed`: networks that webhooks may go to besides public ones; None: where they go is not asked.
    """
    several = len(documents) > 1
    faults: list[Violation] = []
    seen: set[str] = set()
    for index, document in enumerate(documents):
        at = f"/{index}" if several else ""
        found = validate(document)
        if not found and allowed is not None:
            found = _refused(parse_route(document), allowed)
        faults += [Violation(code=fault.code, pointer=at + fault.pointer, message=fault.message) for fault in found]
        if not found and document["id"] in seen:
            faults.append(Violation(code="route.id-twice", pointer=f"{at}/id", message=f"{document['id']} is given twice."))
        if not found:
            seen.add(document["id"])
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise InvalidDocument("route.invalid", f"The routes have {count}." if several else f"The route has {count}.", faults)


def _refused(route: Route, allowed: Sequence[Network]) -> list[Violation]:
    """A webhook that could never be called is told now, and not by the first event that is given up."""
    why = refusal_of(route.destination.target, allowed) if isinstance(route.destination, ToWebhook) else None
    return [] if why is None else [Violation(code="webhook.address-refused", pointer="/destination/webhook", message=f"{why}.")]


DOCUMENTS = Documents(ROUTES, check)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an `apply` did."""

    report: Report
    created: tuple[str, ...]  #: destination topics that were missing
    warnings: tuple[Violation, ...] = ()  #: see `warnings`

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        warned = [warning.to_dict() for warning in self.warnings]
        return {**self.report.to_dict(), "created_topics": list(self.created), "warnings": warned}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What an `apply` would do."""

    changes: tuple[Change, ...]
    warnings: tuple[Violation, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"routes": [change.to_dict() for change in self.changes], "warnings": [warning.to_dict() for warning in self.warnings]}


async def apply(bus: Bus, documents: Sequence[Json], who: str, why: str = "", timeout: float = APPLY_TIMEOUT_S) -> Applied:
    """As `Documents.apply`; creates the topics that are missing among the destinations first."""
    check(documents, (), bus.kafka.settings.webhook_allowed())
    created = await create_destinations(bus, documents)
    report = await DOCUMENTS.apply(bus, documents, who, why, timeout)
    return Applied(report=report, created=created, warnings=tuple(await warnings(bus, documents)))


async def plan(bus: Bus, documents: Sequence[Json]) -> Planned:
    """What `apply` would do, with the same checks; nothing is written."""
    check(documents, (), bus.kafka.settings.webhook_allowed())
    changes = await DOCUMENTS.plan(bus, documents)
    return Planned(changes=tuple(changes), warnings=tuple(await warnings(bus, documents)))


async def warnings(bus: Bus, documents: Sequence[Json]) -> list[Violation]:
    """What of valid routes cannot be delivered as things are, and may be later; of several, pointers begin with the index.

    `module.unknown`: no module of this name ever started here; `webhook.address-refused`: of a route that was applied with other settings.
    """
    routes = [parse_route(document) for document in documents]
    modules = {route.destination.module for route in routes if isinstance(route.destination, ToModule)} - CONTRACT.keys()
    unknown = await _never_started(bus, modules) if modules else frozenset[str]()
    allowed = bus.kafka.settings.webhook_allowed()
    found: list[Violation] = []
    for index, route in enumerate(routes):
        at = f"/{index}" if len(routes) > 1 else ""
        found += [replace(fault, pointer=at + fault.pointer) for fault in _refused(route, allowed)]
        if isinstance(route.destination, ToModule) and route.destination.module in unknown:
            message = f"There is no module {route.destination.module}: it never started here. Until it does, what goes there is retried."
            found.append(Violation(code="module.unknown", pointer=f"{at}/destination/module", message=message))
    return found


async def _never_started(bus: Bus, modules: AbstractSet[str]) -> frozenset[str]:
    """Those of which there is no topic of requests."""
    async with bus.kafka.admin() as admin:
        try:
            present = set(await admin.list_topics())
        except KafkaError as error:
            raise translated(error, REQUESTS) from error
    return frozenset(module for module in modules if bus.kafka.names.physical(module_requests(module)) not in present)


async def create_destinations(bus: Bus, documents: Sequence[Json]) -> tuple[str, ...]:
    """Creates the destination topics that the broker does not have, as many partitions as ours; those that it has made (logical names)."""
    routes = [parse_route(document) for document in documents]
    topics = sorted({route.destination.topic for route in routes if isinstance(route.destination, ToTopic)})
    if not topics:
        return ()
    kafka, settings = bus.kafka, bus.kafka.settings
    config = {
        "cleanup.policy": "delete", "retention.ms": str(FOREVER), "max.message.bytes": str(limits.TOPIC_MESSAGE_BYTES_MAX),
    }  # fmt: skip
    wanted = [
        WantedTopic(
            name=kafka.names.physical(topic), partitions=settings.partitions, replication=settings.replication_factor, config=config
        )
        for topic in topics
    ]
    async with kafka.admin() as admin:
        made = await create_topics(admin, wanted)
    return tuple(topic for topic in topics if kafka.names.physical(topic) in made)
