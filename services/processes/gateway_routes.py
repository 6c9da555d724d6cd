"""The gateway's ports of routing over the bus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any

from services.processes.gateway_lags import RouteLags
from streams.bus.bus import Bus
from streams.control.changes import Stored
from streams.records import Json
from streams.routing import control, dlq
from streams.routing.lag import lag
from streams.routing.parked import parked
from streams.routing.selection import LetterSelection


class ControlRoutes:
    """`ports_routes.Routes` over the control topic."""

    def __init__(self, bus: Bus, lags: RouteLags) -> None:
        self._bus = bus
        self._lags = lags

    async def list(self) -> list[dict[str, Any]]:
        """See `ports_routes.Routes`."""
        known = {route_id: found.to_dict() for route_id, found in self._lags.latest().items()}
        return [{**route_json(route), "lag": known.get(route.record.id)} for route in await control.DOCUMENTS.all(self._bus)]

    async def show(self, route_id: str, version: int | None) -> dict[str, Any]:
        """See `ports_routes.Routes`."""
        if version is None:
            shown = route_json(await control.DOCUMENTS.show(self._bus, route_id))
            warned = [each.to_dict() for each in await control.warnings(self._bus, [shown["route"]])]
            return {**shown, "lag": (await lag(self._bus, route_id)).to_dict(), "warnings": warned}
        return (await control.DOCUMENTS.version(self._bus, route_id, version)).to_dict()

    async def history(self, route_id: str) -> Sequence[dict[str, Any]]:
        """See `ports_routes.Routes`."""
        return [version.to_dict() for version in await control.DOCUMENTS.history(self._bus, route_id)]

    async def parked(self, route_id: str) -> Sequence[dict[str, Any]]:
        """See `ports_routes.Routes`."""
        await control.DOCUMENTS.show(self._bus, route_id)
        return [each.to_dict() for each in await parked(self._bus, route_id)]

    async def plan(self, documents: Sequence[Json]) -> dict[str, Any]:
        """See `ports_routes.Routes`."""
        return (await control.plan(self._bus, documents)).to_dict()

    async def apply(self, documents: Sequence[Json], *, who: str, why: str) -> dict[str, Any]:
        """See `ports_routes.Routes`."""
        return (await control.apply(self._bus, documents, who, why)).to_dict()

    async def delete(self, route_id: str, *, who: str, why: str) -> dict[str, Any]:
        """See `ports_routes.Routes`."""
        return (await control.DOCUMENTS.delete(self._bus, route_id, who, why)).to_dict()


class BusLetters:
    """`ports_routes.Letters` over the topics of dead letters."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def list(self, selection: LetterSelection, *, after: str, limit: int) -> list[dict[str, Any]]:
        """See `ports_routes.Letters`."""
        found: list[dict[str, Any]] = []
        async with aclosing(dlq.letters(self._bus, selection, after=after or None)) as letters:
            async for letter in letters:
                found.append(letter.to_dict())
                if len(found) >= limit:
                    break
        return found

    async def show(self, letter_id: str) -> dict[str, Any]:
        """See `ports_routes.Letters`."""
        return await dlq.show(self._bus, letter_id)

    async def redrive(
        self, selection: LetterSelection, *, who: str, why: str, dry_run: bool, rate: float | None, edit: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """See `ports_routes.Letters`."""
        return (await dlq.redrive(self._bus, selection, who=who, why=why, dry_run=dry_run, rate=rate, edit=edit)).to_dict()

    async def purge(self, selection: LetterSelection, *, who: str, why: str, dry_run: bool) -> dict[str, Any]:
        """See `ports_routes.Letters`."""
        return await dlq.purge(self._bus, selection, who=who, why=why, dry_run=dry_run)


def route_json(stored: Stored) -> dict[str, Any]:
    """A route with its version, and who applied it, when and why."""
    record = stored.record
    about = {"id": record.id, "version": record.version, "who": record.who, "why": record.why, "time": record.time}
    return {**about, "route": stored.document}
