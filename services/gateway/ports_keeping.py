"""What the gateway needs of the history beside queries: what was, what is kept for how long, what goes out, what is erased."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Protocol

from streams.records import WorkflowTransition


@dataclass(frozen=True, slots=True, kw_only=True)
class Erase:
    """Whose payloads are taken out of the history."""

    subject: str
    who: str
    why: str
    effects: bool = False  #: also of what these records caused
    dry_run: bool = False
    timeout_s: float = 60.0


class Streamed(Protocol):
    """An answer that comes bit by bit."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Its bytes."""

    async def close(self) -> None:
        """Gives it up, also in the middle."""


class Keeping(Protocol):
    """The history as something that is kept. All raise `Unavailable` (`history.unavailable`) while it is not open."""

    async def transitions_at(self, execution_id: str, at: datetime) -> Sequence[WorkflowTransition]:
        """The transitions of an execution up to an instant, inclusive, from the tables.

        Raises `NotFound` (`execution.unknown`, `execution.not-begun`), `Refused` (`history.erased`, `history.beyond-retention`).
        """

    async def retention(self, tried: str | None) -> dict[str, Any]:
        """How long each table keeps its rows, what it may not go below, and why. `tried`: lifetimes that are tried, not set.

        Raises `InvalidInput` (`retention.invalid`), `Refused` (`retention.too-short`).
        """

    def tables(self) -> Sequence[str]:
        """Names of the tables."""

    async def days(self, table: str, since: date | None, until: date | None) -> Sequence[dict[str, Any]]:
        """What a table has of each day from `since` on, before `until`. Raises `NotFound` (`table.unknown`)."""

    async def day(self, table: str, day: date) -> Streamed:
        """The rows of a day as Parquet. Raises `NotFound` (`table.unknown`)."""

    def erase(self, asked: Erase) -> AsyncGenerator[Mapping[str, Any], None]:
        """Takes a subject's payloads out, in steps as `ports.Upkeep`.

        Raises `NotFound` (`subject.unknown`), `Refused` (`history.busy`), `Unavailable` (`history.behind`).
        """
