"""What the gateway needs of the history beside queries: what was, what is kept for how long, what goes out, what is erased."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
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


class Keeping(Protocol):
    """The history as something that is kept. All raise `Unavailable` (`history.unavailable`) while it is not open."""

    async def transitions_at(self, execution_id: str, at: datetime) -> Sequence[WorkflowTransition]:
        """The transitions of an execution up to an instant, inclusive, from the tables.

        Raises `NotFound` (`execution.unknown`, `execution.not-begun`), `Refused` (`history.erased`, `history.beyond-retention`).
        """

    def erase(self, asked: Erase) -> AsyncGenerator[Mapping[str, Any], None]:
        """Takes a subject's payloads out, in steps as `ports.Upkeep`.

        Raises `NotFound` (`subject.unknown`), `Refused` (`history.busy`), `Unavailable` (`history.behind`).
        """
