"""A mark of a level counts once its composites have been matched here, and only what all partitions have told."""

from __future__ import annotations

import orjson
import pytest

from streams.correlation.level_clocks import LevelClocks, LevelMark


@pytest.fixture
def clocks() -> LevelClocks:
    """Two partitions, whose composites are matched up to offset 5."""
    made = LevelClocks()
    made.reached(0, 5, partitions=2)
    made.reached(1, 5, partitions=2)
    return made


def test_there_is_no_clock_before_every_partition_has_told(clocks: LevelClocks) -> None:
    assert LevelClocks().clock(0) is None
    clocks.told(LevelMark(0, 0, 100, 5))
    assert clocks.clock(0) is None
    clocks.told(LevelMark(1, 0, 70, 3))
    assert clocks.clock(0) == 70
    assert clocks.clock(1) is None


def test_a_mark_waits_for_the_composites_before_it(clocks: LevelClocks) -> None:
    clocks.told(LevelMark(0, 0, 100, 5))
    clocks.told(LevelMark(1, 0, 100, 5))
    clocks.told(LevelMark(1, 0, 200, 7))
    clocks.told(LevelMark(0, 0, 300, 5))
    assert clocks.clock(0) == 100
    clocks.reached(1, 6, partitions=2)
    assert clocks.clock(0) == 100
    clocks.reached(1, 7, partitions=2)
    assert clocks.clock(0) == 200


def test_who_comes_back_with_what_is_long_known_moves_nothing(clocks: LevelClocks) -> None:
    for partition in (0, 1):
        clocks.told(LevelMark(partition, 0, 100, 5))
    clocks.told(LevelMark(0, 0, 40, 2))
    clocks.reached(0, 3, partitions=2)
    clocks.told(LevelMark(0, 0, 50, 4))
    assert clocks.clock(0) == 100


def test_many_marks_that_wait_leave_the_oldest_and_the_newest(clocks: LevelClocks) -> None:
    clocks.told(LevelMark(0, 0, 10_000, 5))
    for number in range(6, 1000):
        clocks.told(LevelMark(1, 0, number, number))
    assert len(orjson.dumps(clocks.dump())) < 1000
    clocks.reached(1, 7, partitions=2)
    assert clocks.clock(0) == 7
    clocks.reached(1, 999, partitions=2)
    assert clocks.clock(0) == 999


def test_dumped_and_loaded_it_knows_the_same(clocks: LevelClocks) -> None:
    for mark in (LevelMark(0, 0, 100, 5), LevelMark(1, 0, 90, 5), LevelMark(1, 0, 120, 8), LevelMark(0, 1, 60, 9)):
        clocks.told(mark)
    loaded = LevelClocks()
    loaded.load(orjson.loads(orjson.dumps(clocks.dump())))
    assert loaded.dump() == clocks.dump()
    for each in (clocks, loaded):
        assert each.clock(0) == 90
        each.reached(1, 8, partitions=2)
        assert each.clock(0) == 100
