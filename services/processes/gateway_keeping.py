"""The gateway's port for what the history keeps, over the store, the sink and the bus."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import structlog
from aiokafka.errors import KafkaError

from services.gateway.ports_keeping import Erase
from services.history.at import transitions_at
from services.history.erase import EraseAsk, Eraser
from services.history.export import day_as_parquet, days_of
from services.history.queries import Answer
from services.history.retention_keeper import RetentionKeeper
from services.history.sink import Sink
from services.history.store import History
from services.history.tables import all_tables
from services.processes.gateway_history import in_steps
from streams.bus.bus import Bus
from streams.correlation import control
from streams.correlation.parse import parse_rule
from streams.errors import BackboneError
from streams.records import WorkflowTransition

#: Seconds between two looks after what was left undone.
LOOK_S = 3600.0
#: The same when the history was behind, or something was away.
RETRY_S = 5.0

_log = structlog.get_logger("history")


async def rule_spans(bus: Bus) -> dict[str, int]:
    """What each rule looks back over, milliseconds by its id."""
    spans: dict[str, int] = {}
    for stored in await control.list_rules(bus):
        rule = parse_rule(stored.document)
        spans[rule.id] = -(-(rule.kept_us + rule.grace_us) // 1000)
    return spans


class HistoryKeeping:
    """`ports_keeping.Keeping`."""

    def __init__(self, bus: Bus, store: History, sink: Sink, busy: asyncio.Lock, check_open: Callable[[], None]) -> None:
        """`busy` is shared with whatever else makes tables anew; `check_open` raises while the history is not open."""
        self._store, self._sink, self._check_open = store, sink, check_open
        self._retention = RetentionKeeper(store, lambda: rule_spans(bus))
        self._eraser = Eraser(bus.kafka, bus.codec, store, self._behind, bus.publish, busy)

    async def transitions_at(self, execution_id: str, at: datetime) -> Sequence[WorkflowTransition]:
        """See `ports_keeping.Keeping`."""
        self._check_open()
        return await transitions_at(self._store, execution_id, at)

    async def erase(self, asked: Erase) -> AsyncGenerator[Mapping[str, Any], None]:
        """See `ports_keeping.Keeping`; told as the event `history.erased`."""
        self._check_open()
        ask = EraseAsk(
            subject=asked.subject, who=asked.who, why=asked.why, effects=asked.effects, dry_run=asked.dry_run, timeout_s=asked.timeout_s
        )
        async for step in in_steps(lambda tell: self._eraser.run(ask, tell)):
            yield step

    async def retention(self, tried: str | None) -> dict[str, Any]:
        """See `ports_keeping.Keeping`."""
        self._check_open()
        return await self._retention.report(tried)

    def tables(self) -> Sequence[str]:
        """See `ports_keeping.Keeping`."""
        return tuple(all_tables())

    async def days(self, table: str, since: date | None, until: date | None) -> Sequence[dict[str, Any]]:
        """See `ports_keeping.Keeping`."""
        self._check_open()
        return [day.to_dict() for day in await days_of(self._store, table, since, until)]

    async def day(self, table: str, day: date) -> Answer:
        """See `ports_keeping.Keeping`."""
        self._check_open()
        return await day_as_parquet(self._store, table, day)

    async def run(self) -> None:
        """Looks after what is to be done now and then, until cancelled. The history must be open."""
        while True:
            pause_s = LOOK_S
            try:
                await self._retention.apply()
                if not await self._eraser.finish():
                    pause_s = RETRY_S
            except (BackboneError, KafkaError, OSError) as error:
                pause_s = RETRY_S
                _log.warning("history.keeping.waits", error=str(error))
            await asyncio.sleep(pause_s)

    async def _behind(self, timeout_s: float) -> int:
        return await self._sink.wait_until(None, timeout_s)
