"""Shapes of asyncio that several rooms need."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: How long a task that was cancelled may put things in order before it is cancelled again, seconds.
AGAIN_S = 5.0


async def cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Cancels tasks, and returns when all have ended, whatever they raise.

    More than once if need be: a cancellation is lost that arrives while a library awaits a task that it has cancelled itself
    (aiokafka does when a client is closed), or, before Python 3.12, when `asyncio.wait_for` has its result in the same moment.
    """
    left = [task for task in tasks if not task.done()]
    while left:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=AGAIN_S)
        left = [task for task in left if not task.done()]
    await asyncio.gather(*tasks, return_exceptions=True)


async def side_by_side(*works: Coroutine[Any, Any, None]) -> None:
    """Runs them together until one ends or fails; then the others are cancelled. Raises what it raises."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await cancelled(*tasks)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """The result of work that is not to be cut off: a cancellation comes after it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


async def closed(work: Coroutine[Any, Any, Any]) -> None:
    """Closes what a library has opened; a cancellation comes after it. What does not end within `AGAIN_S` is cancelled, until it ends.

    aiokafka's clients wait for tasks of their own that they have cancelled, and before Python 3.12 such a task may not notice
    (see `cancelled`): then only a further cancellation ends the wait. Raises what closing raises.
    """
    task = asyncio.ensure_future(work)
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task}, timeout=AGAIN_S)
        except asyncio.CancelledError as error:
            interrupted = error
            continue
        if not task.done():
            task.cancel()
    if interrupted is not None:
        raise interrupted
    if not task.cancelled():
        task.result()
