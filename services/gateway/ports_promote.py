"""What the gateway needs of promoted columns: see `services.gateway.ports`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """Which path becomes a column, or no longer is one."""

    path: str
    table: str
    type: str | None = None  #: none: that of the stored values
    who: str = ""
    why: str = ""


class Promotions(Protocol):
    """Paths of payloads as columns. What takes long comes in steps, as of `ports.Upkeep`."""

    def promote(self, asked: Promotion) -> AsyncGenerator[Mapping[str, Any], None]:
        """Makes a column. Raises `InvalidInput`, `NotFound`, `Refused`, `TooLarge` (`promote.…`), `Unavailable`."""

    def demote(self, asked: Promotion) -> AsyncGenerator[Mapping[str, Any], None]:
        """Takes a column away. Raises `InvalidInput`, `NotFound` (`promote.…`), `Unavailable`."""

    async def promoted(self) -> list[dict[str, Any]]:
        """The columns that there are."""
