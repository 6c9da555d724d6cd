"""What is parked now, as the workers have written it down last: no worker is asked, and none need run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streams.records import Snapshot
from streams.routing.states import Parked, RouteState, parked_in, state_of
from streams.topics import ROUTE_STATES

if TYPE_CHECKING:
    from streams.bus.bus import Bus


async def states(bus: Bus, route: str | None = None) -> list[RouteState]:
    """The newest states, by route, topic and partition. Raises `BackboneError`."""
    found: dict[str, RouteState] = {}
    async for delivered in bus.read(ROUTE_STATES, since="beginning", until_end=True):
        if isinstance(delivered.record, Snapshot):
            state = state_of(delivered.record, delivered.timestamp_ms)
            found[state.key] = state
    wanted = [state for state in found.values() if route is None or state.route == route]
    return sorted(wanted, key=lambda state: (state.route, state.topic, state.partition))


async def parked(bus: Bus, route: str | None = None) -> list[Parked]:
    """Parked keys of one route or all, the oldest first within each source partition. Raises `BackboneError`."""
    return [each for state in await states(bus, route) for each in parked_in(state)]
