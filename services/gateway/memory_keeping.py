"""The port of the kept history in memory: see `services.gateway.memory`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from services.gateway.ports_keeping import Erase
from streams.errors import NotFound, Refused
from streams.records import WorkflowTransition


@dataclass
class MemoryFile:
    """Bytes that come in two parts; `fails` in between if so wanted."""

    content: bytes
    keeping: MemoryKeeping

    async def chunks(self) -> AsyncIterator[bytes]:
        """See `ports_keeping.Streamed`."""
        half = len(self.content) // 2
        yield self.content[:half]
        if self.keeping.failure is not None:
            raise self.keeping.failure
        yield self.content[half:]

    async def close(self) -> None:
        """Counted."""
        self.keeping.closed += 1


@dataclass
class MemoryKeeping:
    """An execution's transitions by its id; erasures that are remembered and do nothing."""

    stories: dict[str, list[WorkflowTransition]] = field(default_factory=dict)
    asked: list[Erase] = field(default_factory=list)
    files: dict[str, dict[date, bytes]] = field(default_factory=dict)  #: table → day → content
    failure: Exception | None = None  #: in the middle of a file
    closed: int = 0

    async def transitions_at(self, execution_id: str, at: datetime) -> Sequence[WorkflowTransition]:
        """See `ports_keeping.Keeping`."""
        found = [transition for transition in self.stories.get(execution_id, ()) if transition.time <= at]
        if not found:
            raise NotFound("execution.unknown", f"The history has no execution {execution_id!r}.")
        return found

    async def retention(self, tried: str | None) -> dict[str, Any]:
        """See `ports_keeping.Keeping`; nothing has a lifetime, and none can be tried."""
        if tried is not None:
            raise Refused("retention.too-short", f"{tried} is too short.")
        return {"tables": [{"table": table, "wished": None, "in_force": None} for table in self.tables()]}

    def tables(self) -> Sequence[str]:
        """See `ports_keeping.Keeping`."""
        return tuple(sorted(self.files))

    async def days(self, table: str, since: date | None, until: date | None) -> Sequence[dict[str, Any]]:
        """See `ports_keeping.Keeping`."""
        return [
            {"day": day.isoformat(), "rows": len(content)}
            for day, content in sorted(self._of(table).items())
            if (since is None or day >= since) and (until is None or day < until)
        ]

    async def day(self, table: str, day: date) -> MemoryFile:
        """See `ports_keeping.Keeping`."""
        return MemoryFile(self._of(table).get(day, b""), self)

    def _of(self, table: str) -> dict[date, bytes]:
        if table not in self.files:
            raise NotFound("table.unknown", f"There is no table {table}.")
        return self.files[table]

    async def erase(self, asked: Erase) -> AsyncGenerator[Mapping[str, Any], None]:
        """See `ports_keeping.Keeping`."""
        self.asked.append(asked)
        yield {"progress": {"phase": "looking", "topic": "", "done": 0, "of": 0}}
        yield {"report": {"subject": asked.subject, "rows": 0, "tables": {}, "dry_run": asked.dry_run}}
