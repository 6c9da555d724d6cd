"""The ports of routing in memory: see `services.gateway.memory`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streams.errors import InvalidInput, NotFound
from streams.records import Json
from streams.routing.selection import LetterSelection


@dataclass
class MemoryRoutes:
    """Routes in a dictionary; a route needs an id and nothing else."""

    stored: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    waiting: dict[str, Sequence[dict[str, Any]]] = field(default_factory=dict)  #: parked keys of routes

    async def list(self) -> list[dict[str, Any]]:
        """See `ports_routes.Routes`."""
        return [self.stored[route_id][-1] for route_id in sorted(self.stored)]

    async def show(self, route_id: str, version: int | None) -> dict[str, Any]:
        """See `ports_routes.Routes`."""
        found = await self.history(route_id)
        if version is not None and version > len(found):
            raise NotFound("route.version-unknown", f"There is no version {version} of {route_id}.")
        return found[-1 if version is None else version - 1]

    async def history(self, route_id: str) -> Sequence[dict[str, Any]]:
        """See `ports_routes.Routes`."""
        if route_id not in self.stored:
            raise NotFound("route.unknown", f"There is no route {route_id}.")
        return self.stored[route_id]

    async def parked(self, route_id: str) -> Sequence[dict[str, Any]]:
        """See `ports_routes.Routes`."""
        await self.history(route_id)
        return self.waiting.get(route_id, [])

    async def plan(self, documents: Sequence[Json]) -> dict[str, Any]:
        """See `ports_routes.Routes`."""
        return {"routes": [{"id": document["id"], "version": len(self.stored.get(document["id"], ())) + 1} for document in documents]}

    async def apply(self, documents: Sequence[Json], *, who: str, why: str) -> dict[str, Any]:
        """See `ports_routes.Routes`."""
        for document in documents:
            if not isinstance(document.get("id"), str):
                raise InvalidInput("route.invalid", "A route needs an id.", pointer="/id")
            versions = self.stored.setdefault(document["id"], [])
            versions.append({"id": document["id"], "version": len(versions) + 1, "who": who, "why": why, "route": document})
        return {"routes": [{"id": document["id"]} for document in documents], "workers": [], "missing": []}

    async def delete(self, route_id: str, *, who: str, why: str) -> dict[str, Any]:
        """See `ports_routes.Routes`."""
        await self.history(route_id)
        del self.stored[route_id]
        return {"routes": [{"id": route_id}], "workers": [], "missing": []}


@dataclass
class MemoryLetters:
    """Dead letters in a list, oldest first; of a selection only route, code and ids are looked at."""

    stored: list[dict[str, Any]] = field(default_factory=list)
    done: list[tuple[str, str, int]] = field(default_factory=list)  #: what, who, how many

    async def list(self, selection: LetterSelection, *, after: str, limit: int) -> list[dict[str, Any]]:
        """See `ports_routes.Letters`."""
        selection.check()
        return [letter for letter in self._wanted(selection) if letter["id"] > after][:limit]

    async def show(self, letter_id: str) -> dict[str, Any]:
        """See `ports_routes.Letters`."""
        found = next((letter for letter in self.stored if letter["id"] == letter_id), None)
        if found is None:
            raise NotFound("letter.unknown", f"There is no dead letter {letter_id}.")
        return found

    async def redrive(
        self, selection: LetterSelection, *, who: str, why: str, dry_run: bool, rate: float | None, edit: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """See `ports_routes.Letters`."""
        return {"matched": (matched := self._settle("redrive", selection, who, dry_run)), "redriven": 0 if dry_run else matched}

    async def purge(self, selection: LetterSelection, *, who: str, why: str, dry_run: bool) -> dict[str, Any]:
        """See `ports_routes.Letters`."""
        return {"matched": (matched := self._settle("purge", selection, who, dry_run)), "purged": 0 if dry_run else matched}

    def _settle(self, what: str, selection: LetterSelection, who: str, dry_run: bool) -> int:
        selection.check()
        found = self._wanted(selection)
        if not dry_run:
            self.done.append((what, who, len(found)))
            self.stored = [letter for letter in self.stored if letter not in found]
        return len(found)

    def _wanted(self, selection: LetterSelection) -> Sequence[dict[str, Any]]:
        return [
            letter
            for letter in self.stored
            if (selection.route is None or letter["route"] == selection.route)
            and (selection.code is None or letter["code"] == selection.code)
            and (selection.ids is None or letter["id"] in selection.ids)
        ]
