"""What the gateway needs of routing: see `services.gateway.ports`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from streams.records import Json
from streams.routing.selection import LetterSelection


class Routes(Protocol):
    """Routes in the control topic."""

    async def list(self) -> list[dict[str, Any]]:
        """All routes, ordered by id."""

    async def show(self, route_id: str, version: int | None) -> dict[str, Any]:
        """The route in force, or a version of it. Raises `NotFound` (`route.unknown`, `route.version-unknown`)."""

    async def history(self, route_id: str) -> Sequence[dict[str, Any]]:
        """Every version of a route, oldest first. Raises `NotFound` (`route.unknown`)."""

    async def parked(self, route_id: str) -> Sequence[dict[str, Any]]:
        """Keys of the route that wait for their next attempt, by topic, partition and offset. Raises `NotFound` (`route.unknown`)."""

    async def plan(self, documents: Sequence[Json]) -> dict[str, Any]:
        """What `apply` would change. Raises `InvalidDocument`."""

    async def apply(self, documents: Sequence[Json], *, who: str, why: str) -> dict[str, Any]:
        """Stores routes and waits until the workers use them; the report says which do not. Raises `InvalidDocument`."""

    async def delete(self, route_id: str, *, who: str, why: str) -> dict[str, Any]:
        """Deletes a route. Raises `NotFound` (`route.unknown`)."""


class Letters(Protocol):
    """Dead letters."""

    async def list(self, selection: LetterSelection, *, after: str, limit: int) -> list[dict[str, Any]]:
        """Letters that are meant and not settled, ordered; those behind the letter `after`, at most `limit`."""

    async def show(self, letter_id: str) -> dict[str, Any]:
        """All that is known of a letter. Raises `NotFound` (`letter.unknown`), `InvalidInput` (`letter.id-invalid`)."""

    async def redrive(
        self, selection: LetterSelection, *, who: str, why: str, dry_run: bool, rate: float | None, edit: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Puts letters back; what it did. Raises `Refused` (`dlq.edit-several`)."""

    async def purge(self, selection: LetterSelection, *, who: str, why: str, dry_run: bool) -> dict[str, Any]:
        """Settles letters without putting them back; what it did."""
