"""Changing the routes in force: `streams.control.documents`, for routes, and the topics that they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streams import limits
from streams.control.documents import APPLY_TIMEOUT_S, Documents, Report
from streams.control.kinds import ROUTES
from streams.errors import InvalidDocument, Violation
from streams.records import Json
from streams.routing.parse import parse_route, validate
from streams.routing.routes import ToTopic
from streams.topics import FOREVER
from streams.topics_apply import WantedTopic, create_topics

if TYPE_CHECKING:
    from streams.bus.bus import Bus


def check(documents: Sequence[Json], in_force: Sequence[Json] = ()) -> None:
    """Raises `InvalidDocument` (`route.invalid`) with all faults of all documents; of several, pointers begin with the index."""
    several = len(documents) > 1
    faults: list[Violation] = []
    seen: set[str] = set()
    for index, document in enumerate(documents):
        at = f"/{index}" if several else ""
        found = validate(document)
        faults += [Violation(code=fault.code, pointer=at + fault.pointer, message=fault.message) for fault in found]
        if not found and document["id"] in seen:
            faults.append(Violation(code="route.id-twice", pointer=f"{at}/id", message=f"{document['id']} is given twice."))
        if not found:
            seen.add(document["id"])
    if faults:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise InvalidDocument("route.invalid", f"The routes have {count}." if several else f"The route has {count}.", faults)


DOCUMENTS = Documents(ROUTES, check)


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an `apply` did."""

    report: Report
    created: tuple[str, ...]  #: destination topics that were missing

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**self.report.to_dict(), "created_topics": list(self.created)}


async def apply(bus: Bus, documents: Sequence[Json], who: str, why: str = "", timeout: float = APPLY_TIMEOUT_S) -> Applied:
    """As `Documents.apply`; creates the topics that are missing among the destinations first."""
    check(documents)
    created = await create_destinations(bus, documents)
    return Applied(report=await DOCUMENTS.apply(bus, documents, who, why, timeout), created=created)


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
