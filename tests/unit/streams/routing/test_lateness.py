"""When a route is told to be behind: once, for all its source partitions, and only if it lasts."""

from __future__ import annotations

from streams.routing.lateness import LATE_MS, Lateness, Standing, Told

WELL, READS, WAITS = Standing("r", False, LATE_MS - 1), Standing("r", True, 0), Standing("r", False, 5 * LATE_MS)


def test_who_reads_the_log_for_long_is_told_once_and_once_that_it_has_caught_up() -> None:
    lateness = Lateness()
    assert lateness.look(0, [READS, WELL]) == []
    assert lateness.look(LATE_MS - 1, [READS, WELL]) == []
    assert lateness.look(LATE_MS, [WELL, READS]) == [Told("r", 10.0)]
    assert lateness.look(2 * LATE_MS, [READS, READS]) == []
    assert lateness.look(2 * LATE_MS, [WELL]) == [Told("r", None)]
    assert lateness.look(3 * LATE_MS, [WELL]) == []


def test_who_lets_records_wait_that_it_has_room_for_is_behind_as_well() -> None:
    lateness = Lateness()
    assert lateness.look(0, [WELL, WAITS]) == []
    assert lateness.look(LATE_MS, [WAITS, WELL]) == [Told("r", 50.0)]
    assert lateness.look(LATE_MS, [WELL, WELL]) == [Told("r", None)]


def test_a_moment_is_not_told_nor_is_a_route_that_is_gone() -> None:
    lateness = Lateness()
    assert lateness.look(0, [READS]) == []
    assert lateness.look(LATE_MS - 1, [WELL]) == []
    assert lateness.look(LATE_MS, [READS]) == []
    assert lateness.look(2 * LATE_MS, [READS, Standing("other", False, 0)]) == [Told("r", 10.0)]
    assert lateness.look(2 * LATE_MS, [Standing("other", False, 0)]) == []
    assert lateness.look(3 * LATE_MS, [READS]) == []
    assert lateness.look(4 * LATE_MS, [READS]) == [Told("r", 10.0)]
