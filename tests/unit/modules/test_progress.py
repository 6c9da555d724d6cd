from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.modules.progress import Progress


def test_nothing_is_committed_before_the_first_request() -> None:
    assert Progress().to_commit() is None


def test_only_what_lies_before_the_lowest_unfinished_request_is_committed() -> None:
    progress = Progress()
    for offset in (7, 8, 12):  # compaction and transactions leave gaps
        progress.begin(offset)
    assert progress.to_commit() == 7
    progress.end(8)
    assert progress.to_commit() == 7
    progress.end(7)
    assert progress.to_commit() == 12
    progress.end(12)
    assert progress.to_commit() == 13


def test_a_position_is_committed_once() -> None:
    progress = Progress()
    progress.begin(0)
    progress.end(0)
    progress.committed(1)
    assert progress.to_commit() is None
    progress.begin(1)
    assert progress.to_commit() is None
    progress.end(1)
    assert progress.to_commit() == 2


@given(st.lists(st.integers(1, 3), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_no_unfinished_request_is_ever_behind_the_position(gaps: list[int], random: object) -> None:
    progress = Progress()
    offsets = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    waiting = list(offsets)
    running: list[int] = []
    while waiting or running:
        if waiting and (not running or random.random() < 0.5):  # type: ignore[attr-defined]
            running.append(waiting.pop(0))
            progress.begin(running[-1])
        else:
            progress.end(running.pop(random.randrange(len(running))))  # type: ignore[attr-defined]
        position = progress.position
        assert position is not None
        assert all(offset >= position for offset in running + waiting)
        begun = [offset for offset in offsets if offset not in waiting]
        assert position == min(running) if running else position == begun[-1] + 1
