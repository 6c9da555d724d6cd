"""The port of the kept history in memory: see `services.gateway.memory`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from services.gateway.ports_keeping import Erase
from streams.errors import NotFound
from streams.records import WorkflowTransition


@dataclass
class MemoryKeeping:
    """An execution's transitions by its id; erasures that are remembered and do nothing."""

    stories: dict[str, list[WorkflowTransition]] = field(default_factory=dict)
    asked: list[Erase] = field(default_factory=list)

    async def transitions_at(self, execution_id: str, at: datetime) -> Sequence[WorkflowTransition]:
        """See `ports_keeping.Keeping`."""
        found = [transition for transition in self.stories.get(execution_id, ()) if transition.time <= at]
        if not found:
            raise NotFound("execution.unknown", f"The history has no execution {execution_id!r}.")
        return found

    async def erase(self, asked: Erase) -> AsyncGenerator[Mapping[str, Any], None]:
        """See `ports_keeping.Keeping`."""
        self.asked.append(asked)
        yield {"progress": {"phase": "looking", "topic": "", "done": 0, "of": 0}}
        yield {"report": {"subject": asked.subject, "rows": 0, "tables": {}, "dry_run": asked.dry_run}}
