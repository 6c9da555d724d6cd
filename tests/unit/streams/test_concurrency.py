"""Tasks that are cancelled come to their end."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from streams import concurrency
from streams.concurrency import cancelled, closed, to_the_end


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "AGAIN_S", 0.01)


async def test_a_cancellation_that_a_library_has_swallowed_comes_again() -> None:
    begun, swallowed = asyncio.Event(), 0

    async def work() -> None:
        nonlocal swallowed
        own = asyncio.create_task(asyncio.Event().wait())
        while swallowed < 2:
            begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await own  # as a client does that closes itself: whose cancellation was it?
                continue
            swallowed += 1
            own = asyncio.create_task(asyncio.Event().wait())
        await own

    task = asyncio.create_task(work())
    await begun.wait()
    async with asyncio.timeout(10):
        await cancelled(task)
    assert (task.cancelled(), swallowed) == (True, 2)


async def test_what_has_ended_and_what_fails_is_no_error() -> None:
    async def fail() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("in vain")

    async def end() -> None:
        return None

    ended, failing = asyncio.create_task(end()), asyncio.create_task(fail())
    await asyncio.sleep(0)
    await cancelled(ended, failing)
    assert ended.done()
    assert isinstance(failing.exception(), ValueError)
    await cancelled()


async def test_a_cancellation_comes_after_what_is_not_to_be_cut_off() -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), []

    async def closing() -> None:
        begun.set()
        await go_on.wait()
        done.append("closed")

    task = asyncio.create_task(to_the_end(closing()))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert done == ["closed"]


class Client:
    """Closes as aiokafka's does; its own task misses the first `deaf` cancellations."""

    def __init__(self, deaf: int) -> None:
        self._deaf = deaf
        self.closed = False
        self._task = asyncio.create_task(self._synchronise())

    async def _synchronise(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not self._deaf:
                    raise
                self._deaf -= 1

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self.closed = True


@pytest.mark.parametrize("deaf", [0, 1, 3])
async def test_a_client_whose_own_task_does_not_notice_is_closed_all_the_same(deaf: int) -> None:
    client = Client(deaf)
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await closed(client.close())
    assert client.closed


async def test_who_is_cancelled_while_it_closes_is_so_afterwards() -> None:
    client = Client(2)
    await asyncio.sleep(0)
    task = asyncio.create_task(closed(client.close()))
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(10):
        await asyncio.gather(task, return_exceptions=True)
    assert (task.cancelled(), client.closed) == (True, True)


async def test_what_goes_wrong_while_closing_is_told() -> None:
    async def fail() -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await closed(fail())
