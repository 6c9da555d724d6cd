"""Where one pass over a log reads on, and for whom."""

from __future__ import annotations

from streams.routing.sweep import Sweep


def test_it_reads_where_somebody_waits_and_jumps_over_the_rest() -> None:
    sweep = Sweep(1000, 1)
    assert sweep.add(b"a", 10, 12)
    assert sweep.add(b"b", 500, 500)
    read = []
    while (place := sweep.next()) is not None:
        read.append(place)
        sweep.wants(place, b"another")
    assert read == [10, 11, 12, 500]
    assert (sweep.place, list(sweep.keys)) == (501, [b"a", b"b"]), "both were shown all that they have"


def test_who_comes_when_it_has_gone_by_is_left_to_the_next_also_where_it_has_jumped() -> None:
    sweep = Sweep(1000, 1)
    assert sweep.add(b"a", 500, 600)
    assert sweep.next() == 500
    assert not sweep.add(b"b", 300, 700), "the reader is on its way to 500"
    assert sweep.add(b"b", 500, 700)
    assert not sweep.add(b"c", 1000, 1200), "it lies behind the end"


def test_a_reader_that_reads_on_instead_of_jumping_finds_what_was_asked_for_meanwhile() -> None:
    sweep = Sweep(1000, 1)
    assert sweep.add(b"a", 500, 600)
    assert sweep.next() == 500
    assert not sweep.wants(400, b"b")
    assert sweep.add(b"b", 402, 402)
    assert sweep.next() == 402
    assert sweep.wants(402, b"b")


def test_what_is_being_looked_at_is_not_gone_by_yet() -> None:
    sweep = Sweep(1000, 1)
    assert sweep.add(b"a", 10, 20)
    assert sweep.wants(15, b"a")
    assert sweep.place == 15
    sweep.drop(b"a")  # it is let go, and asked for anew
    assert sweep.add(b"a", 15, 20)
    assert sweep.wants(15, b"a")
    sweep.swept(16)
    assert sweep.next() == 16
    sweep.drop(b"a")
    assert sweep.next() is None


def test_it_ends_before_its_end_when_nobody_waits_any_more() -> None:
    sweep = Sweep(1000, 1)
    assert sweep.add(b"a", 10, 2000)
    assert sweep.wants(998, b"a")
    sweep.swept(1000)
    assert sweep.next() is None
    sweep = Sweep(1000, 1)
    assert sweep.add(b"a", 10, 20)
    sweep.clear()
    assert sweep.next() is None
    assert not sweep.wants(15, b"a")
