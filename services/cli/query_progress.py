"""How far a query is, on stderr while it runs: one line that is written over on a terminal, else a line now and then."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

from streams.bus.sql import Sql
from streams.errors import BackboneError

#: Time between two looks, seconds.
LOOK_S = 0.5

_CLEAR = "\r\x1b[K"


@contextlib.asynccontextmanager
async def following(asking: Sql, query_id: str, *, tells: bool) -> AsyncIterator[None]:
    """Tells about a query for as long as the block runs, if it `tells` at all."""
    if not tells:
        yield
        return
    telling = asyncio.create_task(_tell(asking, query_id))
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)
        if sys.stderr.isatty():
            sys.stderr.write(_CLEAR)
        with contextlib.suppress(BackboneError):  # the answer, or its error, is what was asked for
            sys.stderr.write(f"{sentence(await asking.progress(query_id))}\n")
        sys.stderr.flush()


async def _tell(asking: Sql, query_id: str) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            found = await asking.progress(query_id)
        except BackboneError:
            continue  # it has not begun, or the gateway is gone, which the question itself will say
        sys.stderr.write(f"{_CLEAR}{sentence(found)}" if sys.stderr.isatty() else f"{sentence(found)}\n")
        sys.stderr.flush()


def sentence(found: Mapping[str, Any]) -> str:
    """How far it is, in a line."""
    rows, total = found["rows_read"], found["rows_total"]
    parts = [f"{found['state']}", f"{found['elapsed_ms'] / 1000:.1f} s"]
    if rows:
        of = f" of {count(total)} ({min(100, 100 * rows // total)} %)" if total >= rows else ""
        parts.append(f"{count(rows)}{of} rows read")
    if found["rows"]:
        parts.append(f"{count(found['rows'])} rows answered")
    if found["memory_bytes"]:
        parts.append(f"{found['memory_bytes'] / 2**20:.0f} MiB")
    return ", ".join(parts)


def count(number: int) -> str:
    """A number as people say it: `12.3 million`."""
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.1f} {name}"
    return f"{number:,}"
