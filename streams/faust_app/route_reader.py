"""Reads the routes in force from their control topic (`streams.faust_app.control`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from streams.codec.avro import Codec
from streams.control.changes import VERSION_MARK
from streams.errors import BackboneError
from streams.faust_app.control import ControlReader
from streams.kafka import Kafka
from streams.records import ControlRecord
from streams.routing.parse import parse_route
from streams.routing.routes import ActiveRoute, active
from streams.topics import CONTROL_ROUTES

_log = structlog.get_logger("control")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChange:
    """A route has a new version: `active`, or None if it was deleted or cannot be run here."""

    route_id: str
    active: ActiveRoute | None


class RoutesReader(ControlReader[RouteChange]):
    """The routes in force."""

    def __init__(self, kafka: Kafka, codec: Codec) -> None:
        super().__init__(kafka, codec, CONTROL_ROUTES)
        self._since_ms: dict[str, int] = {}  # route → when it came into force; versions since then count
        self.routes: dict[str, ActiveRoute] = {}

    def _take(self, record: Any) -> tuple[str, RouteChange] | None:
        found = None if record.value is None else self._decoded(record, "route")
        if found is None:
            return None
        if VERSION_MARK in found.id:
            self._note(found, record.timestamp)
            return None
        change = RouteChange(route_id=found.id, active=self._active(found, record))
        if change.active is None:
            self.routes.pop(found.id, None)
        else:
            self.routes[found.id] = change.active
        return found.id, change

    def _note(self, found: ControlRecord, timestamp_ms: int) -> None:
        """Every version is kept: a route is in force since the first behind its last deletion."""
        route_id = found.id.partition(VERSION_MARK)[0]
        if found.deleted:
            self._since_ms.pop(route_id, None)
        else:
            self._since_ms.setdefault(route_id, timestamp_ms)

    def _active(self, found: ControlRecord, record: Any) -> ActiveRoute | None:
        if found.deleted:
            return None
        try:
            route = parse_route(orjson.loads(found.content))
        except (BackboneError, ValueError) as error:
            _log.error("route.not-run", route=found.id, version=found.version, reason=str(error))
            return None
        since_ms = self._since_ms.get(found.id, record.timestamp)
        return active(route, version=found.version, order=record.offset, since_ms=since_ms)
