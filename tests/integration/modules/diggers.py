"""A user's module for the tests of worker processes: `python -m tests.integration.modules.diggers`.

Each row of `dig` takes `pause_s`, and a heartbeat follows it. It says by an event where it began, and in which process.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Any

from pydantic import BaseModel

from services.modules import Call, Module
from streams.records import SystemEvent

module = Module("diggers", description="Dig.")
given_up: list[str] = []  #: executions whose operation was cancelled in this process


class Dig(BaseModel):
    """Parameters of `dig`. From row `hangs_at` on the first attempt says nothing more."""

    rows: int
    pause_s: float = 0.1
    hangs_at: int | None = None


class Dug(BaseModel):
    """Result of `dig`."""

    rows: int
    begun_at: int
    pid: int


@module.operation("dig", heartbeat_timeout=20)
@module.operation("dig-closely-watched", heartbeat_timeout=4)
async def dig(parameters: Dig, call: Call) -> Dug:
    """Digs row after row, and goes on where an earlier attempt was."""
    before: Any = call.details or {"row": 0}
    await call.publish(SystemEvent(type="dig.begun", subject=str(os.getpid()), data={"row": before["row"], "attempt": call.attempt}))
    try:
        for row in range(before["row"], parameters.rows):
            await asyncio.sleep(parameters.pause_s)
            if row == parameters.hangs_at and call.attempt == 1:
                await asyncio.Event().wait()
            call.heartbeat({"row": row + 1})
    except asyncio.CancelledError:
        given_up.append(call.execution_id or "")
        raise
    return Dug(rows=parameters.rows, begun_at=before["row"], pid=os.getpid())


@module.operation("hang")
def hang(call: Call) -> None:
    """Says on stdout that it has begun, and for whom, and does not look at its call any more."""
    sys.stdout.write(f"hangs {call.request_id}\n")
    sys.stdout.flush()
    threading.Event().wait()


@module.operation("bore")
def bore(call: Call) -> dict[str, Any]:
    """Blocks for ever where `DIGGERS_BLOCK` is set, and says so on stdout; else says where it was done, and for which request."""
    if os.environ.get("DIGGERS_BLOCK"):
        sys.stdout.write(f"{call.request_id}\n")
        sys.stdout.flush()
        threading.Event().wait()
    return {"pid": os.getpid(), "request": call.request_id}


if __name__ == "__main__":
    module.main()
