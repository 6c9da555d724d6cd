"""The queries that run, and how the last ones ended. Pure but for the clock."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from streams.errors import BackboneError, Defect, NotFound, Refused

#: Queries whose end is remembered.
REMEMBERED = 256


class State(StrEnum):
    """Where a query is."""

    WAITING = "waiting"  #: it is checked, or waits for others to end
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(slots=True, kw_only=True)
class Run:
    """One query."""

    query_id: str
    state: State = State.WAITING
    began: float = field(default_factory=time.monotonic)  #: seconds of the monotonic clock
    ended: float | None = None
    rows: int = 0  #: of the answer, so far
    rows_read: int = 0
    rows_total: int = 0  #: that it will read, as far as the engine can tell
    bytes_read: int = 0
    memory_bytes: int = 0
    unwanted: bool = False  #: somebody has cancelled it
    error: BackboneError | None = None

    def to_dict(self, now: float) -> dict[str, Any]:
        """As people and programs get it."""
        return {
            "query_id": self.query_id,
            "state": self.state,
            "elapsed_ms": round(((now if self.ended is None else self.ended) - self.began) * 1000),
            "rows": self.rows,
            "rows_read": self.rows_read,
            "rows_total": self.rows_total,
            "bytes_read": self.bytes_read,
            "memory_bytes": self.memory_bytes,
            "error": None if self.error is None else self.error.to_dict(),
        }


class Registry:
    """Runs by id."""

    def __init__(self) -> None:
        self._running: dict[str, Run] = {}
        self._ended: OrderedDict[str, Run] = OrderedDict()

    def begin(self, query_id: str) -> Run:
        """Notes a query. Raises `Refused` (`query.repeated`) if there is or was one with the id."""
        if query_id in self._running or query_id in self._ended:
            raise Refused("query.repeated", f"There is a query {query_id} already.", pointer="/query_id")
        run = self._running[query_id] = Run(query_id=query_id)
        return run

    def end(self, run: Run, error: BaseException | None) -> None:
        """Notes how it ended; only the first end counts."""
        if run.ended is not None:
            return
        run.ended = time.monotonic()
        if isinstance(error, BackboneError):
            run.error = error
        elif error is not None and not isinstance(error, asyncio.CancelledError):
            run.error = Defect("internal", "Something went wrong that should not.")
        cancelled = isinstance(error, asyncio.CancelledError) or (run.error is not None and run.error.code == "sql.cancelled")
        run.state = State.CANCELLED if cancelled else State.DONE if error is None else State.FAILED
        self._running.pop(run.query_id, None)
        self._ended[run.query_id] = run
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    def find(self, query_id: str) -> Run:
        """A query that runs, or one of the last that ended. Raises `NotFound` (`query.unknown`)."""
        run = self._running.get(query_id) or self._ended.get(query_id)
        if run is None:
            raise NotFound("query.unknown", f"There is no query {query_id}, or it ended long ago.")
        return run

    @property
    def running(self) -> int:
        """How many run or wait."""
        return len(self._running)
