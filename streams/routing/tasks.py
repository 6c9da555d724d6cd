"""What a route has to do with a record, and what is told of it: deliveries, events, dead letters. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from streams.log.ports import Stored
from streams.records import Json, Severity, SystemEvent, derived_id, iso
from streams.routing.letters import Redriven
from streams.routing.plan import Plan
from streams.routing.recipes import Made, Rejected
from streams.routing.routes import ActiveRoute
from streams.routing.seen import Seen

SOURCE = "mplp/routes"
_ERROR_CHARACTERS_MAX = 1000


class Task:
    """A record that is a route's business."""

    __slots__ = ("_delivery_id", "id_written", "outcome", "plan", "redriven", "seen")

    def __init__(self, seen: Seen, plan: Plan, outcome: Made | Rejected, redriven: Redriven | None = None) -> None:
        self.seen = seen
        self.plan = plan
        self.outcome = outcome
        self.redriven = redriven
        self._delivery_id: str | None = None
        self.id_written: bytes | None = None  #: `delivery_id`, if it was written with others

    @property
    def raw(self) -> Stored:
        """The record, where the route reads it."""
        return self.seen.raw

    @property
    def event_id(self) -> str:
        """The record's id; empty if it cannot be read."""
        return self.seen.id

    @property
    def size(self) -> int:
        """About how much memory it takes, bytes: the payload is there twice, as it came and as it is read."""
        return 512 + 4 * self.seen.bytes

    @property
    def attempts(self) -> int:
        """Attempts that were made before it was put back."""
        return self.redriven.attempts if self.redriven is not None else 0

    @property
    def delivery_id(self) -> str:
        """The id of what arrives: the same in every attempt."""
        if self.id_written is not None:
            return self.id_written.decode()
        if self._delivery_id is None:
            self._delivery_id = self.plan.id_of(self.outcome.original) if isinstance(self.outcome, Made) else ""
        return self._delivery_id


def loop_event(active: ActiveRoute, task: Task, code: str, message: str, attempts: int, at: datetime) -> SystemEvent:
    """`route.loop-stopped`: what was stopped is told beside its letter, since nobody waits for it."""
    return _event(
        "route.loop-stopped", active.id, at, "warning", (active.id, task.raw.topic, task.raw.partition, task.raw.offset),
        {
            "route": active.id, "route_version": active.version, "event": task.event_id, "code": code,
            "message": message[:_ERROR_CHARACTERS_MAX], "attempts": attempts, "depth": task.seen.depth,
        },
    )  # fmt: skip


def state_event(kind: str, route_id: str, place: str, severity: Severity, data: dict[str, Json], at: datetime) -> SystemEvent:
    """`route.stopped`, `route.resumed`, `route.abandoned`: how a route does on one source partition."""
    return _event(kind, route_id, at, severity, (place, iso(at)), {"route": route_id, "place": place, **data})


def route_event(kind: str, route_id: str, severity: Severity, data: dict[str, Json], at: datetime) -> SystemEvent:
    """`route.fell-behind`, `route.caught-up`: how a route does, as a worker sees it."""
    return _event(kind, route_id, at, severity, (iso(at),), {"route": route_id, **data})


def destination_event(kind: str, route_id: str, destination: str, severity: Severity, data: dict[str, Json], at: datetime) -> SystemEvent:
    """`route.destination-down`, `route.destination-up`: how the destination of a route does, as a worker sees it."""
    return _event(kind, route_id, at, severity, (destination, iso(at)), {"route": route_id, "destination": destination, **data})


def _event(kind: str, route_id: str, at: datetime, severity: Severity, identity: Sequence[object], data: Json) -> SystemEvent:
    return SystemEvent(
        id=derived_id(kind, route_id, *identity), type=kind, source=SOURCE, subject=route_id, time=at, correlation_id=route_id,
        severity=severity, data=data,
    )  # fmt: skip
