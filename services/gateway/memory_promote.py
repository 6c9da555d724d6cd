"""Promoted columns in memory: see `services.gateway.memory`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.gateway.ports_promote import Promotion
from streams.errors import NotFound


@dataclass
class MemoryPromotions:
    """Columns by table and path; what was asked is remembered."""

    columns: dict[tuple[str, str], Promotion] = field(default_factory=dict)
    asked: list[Promotion] = field(default_factory=list)

    async def promote(self, asked: Promotion) -> AsyncGenerator[Mapping[str, Any], None]:
        """See `ports_promote.Promotions`."""
        self.asked.append(asked)
        yield {"progress": {"phase": "materialising", "done": 0, "of": 1}}
        created = (asked.table, asked.path) not in self.columns
        self.columns[asked.table, asked.path] = asked
        yield {"report": {**self._column(asked), "created": created, "rows": 1, "values": 1, "unlike": 0, "seconds": 0.0}}

    async def demote(self, asked: Promotion) -> AsyncGenerator[Mapping[str, Any], None]:
        """See `ports_promote.Promotions`."""
        self.asked.append(asked)
        if self.columns.pop((asked.table, asked.path), None) is None:
            raise NotFound("promote.unknown", f"{asked.path} of {asked.table} is not promoted.")
        yield {"report": self._column(asked)}

    async def promoted(self) -> list[dict[str, Any]]:
        """See `ports_promote.Promotions`."""
        return [self._column(promotion) for _, promotion in sorted(self.columns.items())]

    def _column(self, asked: Promotion) -> dict[str, Any]:
        name = asked.path.replace(".", "_")
        return {"table": asked.table, "column": name, "path": asked.path, "type": asked.type or "String", "index": None}
