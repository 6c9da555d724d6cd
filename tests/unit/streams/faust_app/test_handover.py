"""Matches handed to their owners in memory: only what comes next, in order, and as it lies in the log."""

from __future__ import annotations

import asyncio

import pytest

from streams import limits
from streams.faust_app.batches import Written
from streams.faust_app.handover import Handover
from streams.faust_app.prefix import Chunk


class Owner:
    """An owner that handles a chunk whenever it is let."""

    def __init__(self, position: int = 0, *, ready: bool = True) -> None:
        self.position = position
        self.ready = ready
        self.chunks: list[Chunk] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.error: Exception | None = None

    async def handle(self, chunk: Chunk) -> None:
        await self.may_go_on.wait()
        if self.error is not None:
            raise self.error
        self.chunks.append(chunk)
        self.position = max(self.position, chunk.end)

    @property
    def values(self) -> list[list[bytes | None]]:
        """What came, chunk by chunk."""
        return [[record.value for record in chunk.records] for chunk in self.chunks]


def written(start: int, *values: bytes, partition: int = 0) -> Written:
    return Written(
        partition, start, [(b"key", value, [("name", value)]) for value in values], [1000 + start + i for i in range(len(values))]
    )


def handover(*owners: Owner) -> tuple[Handover, list[BaseException]]:
    failures: list[BaseException] = []
    return Handover("matches", dict(enumerate(owners)), failures.append), failures


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_comes_next_is_handed_over_as_it_is_stored() -> None:
    owner = Owner(7)
    made, _ = handover(owner)
    made.offer([written(7, b"a", b"b")])
    await settled()
    (chunk,) = owner.chunks
    assert (chunk.topic, chunk.partition, chunk.start, chunk.end) == ("matches", 0, 7, 9)
    assert [(each.offset, each.timestamp, each.key, each.value, list(each.headers)) for each in chunk.records] == [
        (7, 1007, b"key", b"a", [("name", b"a")]), (8, 1008, b"key", b"b", [("name", b"b")]),
    ]  # fmt: skip
    assert made.keeps_up(0)


@pytest.mark.parametrize("start", [5, 9])
async def test_what_lies_elsewhere_is_left_to_the_next_fetch(start: int) -> None:
    owner = Owner(7)
    made, _ = handover(owner)
    made.offer([written(start, b"a", b"b")])
    await settled()
    assert owner.chunks == []


async def test_whoever_lacks_something_takes_over_once_that_was_fetched() -> None:
    owner = Owner(7)
    made, _ = handover(owner)
    made.offer([written(9, b"a", b"b")])
    made.offer([written(11, b"c")])
    assert not made.keeps_up(0)
    owner.position = 8
    made.look(0)
    await settled()
    assert owner.chunks == []
    owner.position = 10
    made.look(0)
    await settled()
    assert owner.position == 12
    assert owner.values == [[b"a", b"b", b"c"]]  # and skips what it knows of it
    assert made.keeps_up(0)


async def test_what_others_write_in_between_is_fetched_first() -> None:
    owner = Owner()
    owner.may_go_on.clear()
    made, _ = handover(owner)
    made.offer([written(0, b"a")])
    await settled()
    made.offer([written(2, b"c")])
    owner.may_go_on.set()
    await settled()
    assert owner.values == [[b"a"]]
    assert not made.keeps_up(0)
    owner.position = 2
    made.look(0)
    await settled()
    assert owner.values == [[b"a"], [b"c"]]


async def test_not_much_waits_for_an_owner_that_does_not_come() -> None:
    owner = Owner(7)
    made, _ = handover(owner)
    for offset in range(9, 90):
        made.offer([written(offset, b"a")])
    owner.position = 9
    made.look(0)
    await settled()
    assert owner.chunks == []  # the first are gone: they are fetched
    owner.position = 89
    made.look(0)
    await settled()
    assert owner.position == 90


async def test_nothing_is_handed_to_an_owner_that_is_taking_its_partition() -> None:
    owner = Owner(7, ready=False)
    made, _ = handover(owner)
    made.offer([written(7, b"a")])
    await settled()
    assert owner.chunks == []
    assert not made.keeps_up(0)


async def test_partitions_of_others_are_no_matter() -> None:
    owner = Owner()
    made, failures = handover(owner)
    made.offer([written(0, b"a", partition=5)])
    await settled()
    assert owner.chunks == []
    assert failures == []
    assert not made.keeps_up(5)


async def test_what_gathers_while_an_owner_is_busy_is_handled_together_in_order() -> None:
    owner = Owner()
    owner.may_go_on.clear()
    made, _ = handover(owner)
    made.offer([written(0, b"a")])
    await settled()
    made.offer([written(1, b"b"), written(2, b"c", b"d")])
    made.offer([written(4, b"e")])
    owner.may_go_on.set()
    await settled()
    assert owner.values == [[b"a"], [b"b", b"c", b"d", b"e"]]
    assert [(chunk.start, chunk.end) for chunk in owner.chunks] == [(0, 1), (1, 5)]


async def test_whoever_writes_faster_than_owners_handle_waits() -> None:
    slow, idle = Owner(), Owner()
    slow.may_go_on.clear()
    made, _ = handover(slow, idle)
    for offset in range(limits.CHUNK_BACKLOG_MAX):
        await asyncio.wait_for(made.room(), 1)
        made.offer([written(offset, b"a"), written(offset, b"a", partition=1)])
        await settled()
    waiting = asyncio.ensure_future(made.room())
    await settled()
    assert not waiting.done()
    slow.may_go_on.set()
    await asyncio.wait_for(waiting, 1)
    await settled()
    assert slow.position == idle.position == limits.CHUNK_BACKLOG_MAX


async def test_a_failure_ends_the_worker() -> None:
    owner = Owner()
    owner.error = RuntimeError("broken")
    made, failures = handover(owner)
    made.offer([written(0, b"a")])
    await settled()
    assert failures == [owner.error]


async def test_closing_lets_what_is_under_way_end() -> None:
    owner = Owner()
    owner.may_go_on.clear()
    made, failures = handover(owner)
    made.offer([written(0, b"a")])
    asyncio.get_running_loop().call_later(0.01, owner.may_go_on.set)
    await made.close()
    assert owner.values == [[b"a"]]
    assert failures == []
