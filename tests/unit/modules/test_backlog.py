"""What the process of a user's module has read ahead: its order, what leaves it, and that it is bounded."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from services.modules.backlog import Backlog
from services.modules.progress import Progress
from streams.records import ModuleMessage


def request(request_id: str) -> ModuleMessage:
    return ModuleMessage(id=request_id, type="shop.requested", kind="request", source_module="test", target_module="shop", operation="sell")


def begun(progress: Progress, *offsets: int) -> Progress:
    for offset in offsets:
        progress.begin(offset)
    return progress


def has_room(backlog: Backlog) -> bool:
    return backlog._room.is_set()


def test_requests_leave_it_in_their_order() -> None:
    backlog, progress = Backlog(), begun(Progress(), 0, 1, 2)
    for offset, name in enumerate("abc"):
        backlog.add(request(name), (progress, offset), 10)
    assert [waiting.request.id for _ in range(3) if (waiting := backlog.first())] == ["a", "b", "c"]
    assert backlog.first() is None


def test_what_is_given_up_is_not_begun_and_its_places_are_done() -> None:
    backlog, progress = Backlog(), begun(Progress(), 0, 1, 2)
    backlog.add(request("a"), (progress, 0), 10)
    backlog.add(request("b"), (progress, 1), 10)
    backlog.add(request("a"), (progress, 2), 10)
    assert backlog.cancel("a")
    assert not backlog.cancel("a")
    assert progress.position == 1, "what lies before it has ended"
    waiting = backlog.first()
    assert waiting is not None
    assert waiting.request.id == "b"
    progress.end(1)
    assert progress.position == 3, "both places of the one that was given up have ended"


def test_a_partition_takes_its_requests_along() -> None:
    backlog, ours, lost = Backlog(), begun(Progress(), 0), begun(Progress(), 0, 1)
    backlog.add(request("ours"), (ours, 0), 10)
    backlog.add(request("lost"), (lost, 0), 10)
    backlog.add(request("ours"), (lost, 1), 10)
    backlog.lose(lost)
    waiting = backlog.first()
    assert waiting is not None
    assert (waiting.request.id, waiting.places) == ("ours", [(ours, 0)])
    assert backlog.first() is None


def test_it_has_no_room_when_there_are_too_many_or_too_large_ones() -> None:
    progress = begun(Progress(), *range(4))
    many, large = Backlog(requests_max=2), Backlog(bytes_max=100)
    many.add(request("a"), (progress, 0), 1)
    assert has_room(many)
    many.add(request("b"), (progress, 1), 1)
    assert not has_room(many)
    many.cancel("a")
    assert has_room(many)
    large.add(request("a"), (progress, 2), 150)
    assert not has_room(large)
    large.first()
    assert has_room(large)


async def test_who_waits_for_something_is_woken() -> None:
    backlog, progress = Backlog(), begun(Progress(), 0)
    waiting = asyncio.create_task(backlog.some())
    await asyncio.sleep(0)
    assert not waiting.done()
    backlog.add(request("a"), (progress, 0), 1)
    await waiting


@given(st.lists(st.tuples(st.sampled_from(["add", "cancel", "first", "lose"]), st.integers(0, 9), st.integers(0, 1))))
def test_what_waits_is_what_was_added_and_neither_taken_nor_given_up_nor_lost(acts: list[tuple[str, int, int]]) -> None:
    backlog, partitions, offset = Backlog(requests_max=5, bytes_max=60), [Progress(), Progress()], 0
    expected: dict[str, list[int]] = {}  # partitions of its places, in the order in which requests came
    for act, number, partition in acts:
        match act:
            case "add":
                partitions[partition].begin(offset)
                backlog.add(request(str(number)), (partitions[partition], offset), number)
                expected.setdefault(str(number), []).append(partition)
                offset += 1
            case "cancel":
                assert backlog.cancel(str(number)) == (expected.pop(str(number), None) is not None)
            case "first":
                waiting = backlog.first()
                wanted = next(iter(expected), None)
                assert (None if waiting is None else waiting.request.id) == wanted
                expected.pop(wanted or "", None)
            case _:
                backlog.lose(partitions[partition])
                partitions[partition] = Progress()
                expected = {name: left for name, places in expected.items() if (left := [each for each in places if each != partition])}
        assert len(backlog) == len(expected)
        assert has_room(backlog) == (len(expected) < 5 and sum(map(int, expected)) < 60)
