"""What a line holds is bounded: records, keys, and its state."""

from __future__ import annotations

import orjson
import pytest

from streams import limits
from streams.routing import line as lines
from streams.routing.items import Failure
from streams.routing.line import Line
from tests.unit.streams.routing.test_line import item, sweep_all


def test_any_number_of_records_behind_one_that_fails_take_no_memory_and_come_in_order() -> None:
    line: Line[int] = Line(0)
    line.offer(item(0, b"a"))
    begun = line.begin(0)
    assert begun is not None
    line.fail(b"a", Failure(attempts=1, first_ms=0, due_ms=100, code="x", message=""))
    for offset in range(1, 200_000):
        assert line.offer(item(offset, b"a"))

    assert (line._records, len(line), line.waiting(), line.position) == (1, 1, 200_000, 200_000)
    assert len(str(line.dump())) < 200
    assert line.begin(99) is None
    assert line.begin(100) is not None
    line.settle(b"a")
    assert line.sweep_from() == 1
    for _ in range(20):
        sweep_all(line, lambda _: b"a")
        while line.begin(100) is not None:
            line.settle(b"a")
            assert line._records <= lines.KEY_RECORDS_MAX
    assert line.oldest() > 10 * lines.KEY_RECORDS_MAX


def test_a_line_without_room_for_one_more_key_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "KEYS_MAX", 2)
    line: Line[int] = Line(0)
    assert line.offer(item(0, b"a"))
    assert line.offer(item(1, b"b"))

    assert not line.offer(item(2, b"c"))

    assert line.position == 2
    assert not line.has_much_room
    assert line.offer(item(2, b"a")), "a key that has a line already needs no room"


def test_keys_that_are_long_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "KEY_BYTES_MAX", 2000)
    line: Line[int] = Line(0)
    assert line.offer(item(0, b"a" * 5000)), "one may be longer"
    assert not line.offer(item(1, b"b"))
    assert line.begin(0) is not None
    line.settle(b"a" * 5000)
    assert line.offer(item(1, b"b" * 1999))
    assert not line.offer(item(2, b"c"))
    successor: Line[int] = Line(2, line.dump())
    assert not successor.offer(item(2, b"c")), "also after a crash"


def test_the_state_of_as_many_keys_as_there_may_be_fits_into_a_message() -> None:
    line: Line[int] = Line(0)
    size = lines.KEY_BYTES_MAX // lines.KEYS_MAX
    for number in range(lines.KEYS_MAX):
        key = b"%06d" % number + b"k" * (size - 7)
        assert line.offer(item(number, key))
        assert line.begin(0) is not None
        message = chr(1) * 200  # what takes most as JSON
        line.fail(key, Failure(attempts=1000, first_ms=10**13, due_ms=10**13, code="a-module-says-" * 7, message=message, generation=1000))

    text = orjson.dumps(line.dump())
    assert len(text) < limits.LOG_MESSAGE_BYTES_MAX - 1024 * 1024
    assert sum(1 for _ in Line(0, orjson.loads(text)).parked()) == lines.KEYS_MAX
