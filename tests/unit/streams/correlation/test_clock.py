from __future__ import annotations

from typing import Any

from streams.correlation.clock import STALE_US, UNKNOWN_US, Clocks

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND


def mark(partition: int, time: int, offset: int = 1, *, idle: bool = False, topic: str = "t") -> dict[str, Any]:
    return {"topic": topic, "partition": partition, "time": time, "offset": offset, "idle": idle}


def test_without_a_mark_of_every_partition_there_is_no_clock() -> None:
    clocks = Clocks()
    assert clocks.update({"t": 2}, [mark(0, 5)], NOW) is None
    assert clocks.update({"t": 2}, [mark(1, 7)], NOW) == 5


def test_the_clock_is_the_least_of_the_busy_partitions() -> None:
    clocks = Clocks()
    assert clocks.update({"t": 3}, [mark(0, 50), mark(1, 30), mark(2, 10, idle=True)], NOW) == 30


def test_all_idle_the_greatest_counts() -> None:
    clocks = Clocks()
    assert clocks.update({"t": 2}, [mark(0, 50, idle=True), mark(1, UNKNOWN_US, idle=True)], NOW) == 50


def test_a_busy_partition_without_an_event_yet_holds_the_clock() -> None:
    clocks = Clocks()
    assert clocks.update({"t": 2}, [mark(0, 50), mark(1, UNKNOWN_US)], NOW) is None


def test_idle_time_grows_at_the_rate_of_the_wall_clock_from_where_it_stood() -> None:
    clocks = Clocks()
    clocks.update({"t": 1}, [mark(0, 50)], NOW)
    assert clocks.update({"t": 1}, [mark(0, 50, idle=True)], NOW + SECOND) == 50
    assert clocks.update({"t": 1}, [mark(0, 50, idle=True)], NOW + 3 * SECOND) == 50 + 2 * SECOND
    # Busy again: it goes on from there and never back.
    assert clocks.update({"t": 1}, [mark(0, 60, 2)], NOW + 4 * SECOND) == 50 + 2 * SECOND


def test_what_was_said_before_a_pause_does_not_let_idle_time_grow_over_it() -> None:
    clocks = Clocks()
    clocks.update({"t": 1}, [mark(0, 50)], NOW)
    clocks.update({"t": 1}, [mark(0, 50, idle=True)], NOW + SECOND)
    resumed = NOW + SECOND + STALE_US + 1
    assert clocks.update({"t": 1}, [mark(0, 50, idle=True)], resumed) == 50
    assert clocks.update({"t": 1}, [mark(0, 50, idle=True)], resumed + SECOND) == 50 + SECOND


def test_a_partition_without_an_owner_is_not_idle() -> None:
    clocks = Clocks()
    clocks.update({"t": 2}, [mark(0, 10, idle=True), mark(1, 50)], NOW)
    assert clocks.update({"t": 2}, [mark(1, 60)], NOW + STALE_US) == 60
    assert clocks.update({"t": 2}, [mark(1, 70)], NOW + STALE_US + 1) == 10


def test_a_mark_of_a_former_owner_is_ignored() -> None:
    clocks = Clocks()
    clocks.update({"t": 1}, [mark(0, 50, 9)], NOW)
    assert clocks.update({"t": 1}, [mark(0, 500, 8, idle=True)], NOW) == 50


def test_it_goes_on_after_a_checkpoint() -> None:
    clocks = Clocks()
    clocks.update({"t": 1}, [mark(0, 50, idle=True)], NOW)
    loaded = Clocks()
    loaded.load(clocks.dump())
    for both in (clocks, loaded):
        assert both.update({"t": 1}, [mark(0, 50, idle=True)], NOW + SECOND) == 50 + SECOND
